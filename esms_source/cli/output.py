"""What commands print: tables, JSON, how a run went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from esms_source.cli.printable import printable, printable_json
from esms_source.cli.stderr import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esms_source.config import Settings
    from esms_source.outcome import Report
    from esms_source.planning.work_list import Plan

WIDE: Final = 200
"""Columns of text where no terminal says how wide it is."""


def echo(text: object = "") -> None:
    """Print a line of a result; what is said beside them goes through ``say``."""
    click.echo(printable(str(text)))


def print_table(names: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows as a table, as wide as the terminal is."""
    table = Table()
    for name in names:
        table.add_column(Text(printable(name)))
    for row in rows:
        cells = ("" if cell is None else printable(str(cell)) for cell in row)
        # As rich's own text: a plain one may hold its markup, such as [/x].
        table.add_row(*map(Text, cells))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)


def print_json(value: object) -> None:
    """Print JSON; what it has no form for, as text."""
    click.echo(printable_json(value, ensure_ascii=False, indent=2))


def print_plan(plan: Plan, settings: Settings, *, as_json: bool) -> None:
    """Print what a run would ask; what the user has to know of it on stderr."""
    rate, query_rate = settings.requests_per_second, settings.query_requests_per_second
    requests = sum(oa.requests for oa in plan.oas)
    queries = sum(oa.queries for oa in plan.oas)
    if as_json:
        print_json(
            {
                "oas": [vars(oa) for oa in plan.oas],
                "ref_ids": plan.total,
                "requests": requests,
                "queries": queries,
                "seconds": requests / rate + queries / query_rate,
                "compared_all": plan.compared_all,
                "skipped": plan.skipped.to_dict(),
            }
        )
        return
    names = ["oa_id", "new", "due", "settled", "waiting", "requests"]
    names += ["queries"] * bool(queries)
    print_table(names, [[getattr(oa, name) for name in names] for oa in plan.oas])
    click.echo(
        f"{plan.total} RefIds in {requests} requests:"
        f" {requests / rate:.0f} s at {rate:g} requests/s"
    )
    if queries:
        click.echo(
            f"{queries} of them are asked of QueryZnsStatus too, where GetCallback has"
            f" no row again: {queries / query_rate:.0f} s at {query_rate:g} requests/s"
        )
    for line in plan.skipped.remedies():
        say(line)


def print_report(report: Report, *, as_json: bool) -> None:
    """Print how a run went; what the user has to know of it on stderr."""
    if as_json:
        print_json(report.to_dict())
    else:
        echo(
            f"asked {report.asked} RefIds in {report.attempts} requests:"
            f" {report.answered} answered, {report.missing} missing,"
            f" {report.failed} failed;"
            f" {report.rows} rows, {report.rejected} rejected"
        )
        if report.queried:
            echo(
                f"asked QueryZnsStatus for {report.queried} missing RefIds in"
                f" {report.queries} requests: {report.found} have a result"
            )
        stages = ", ".join(f"{name} {s:.1f} s" for name, s in report.seconds.items())
        echo(f"time: {stages}")
    for error, count in report.problems.most_common(5):
        say(f"{count} RefIds failed: {error}", ref_ids=count)
    for line in (*report.warnings, *report.skipped.remedies()):
        say(line)
    if report.next_due_at and not as_json:
        due_at = report.next_due_at.astimezone()
        echo(
            f"{report.waiting} RefIds wait, the next is due at {due_at:%Y-%m-%d %H:%M}"
        )
    if report.left:
        text = f"{report.left} RefIds were not reached; they stay due"
        say(text, ref_ids=report.left)
