"""What commands print: tables, JSON, how a run went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from esms_source.planning.work_list import Plan
    from esms_source.run import Report

WIDE: Final = 200
"""Columns of text where no terminal says how wide it is."""


def print_table(names: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows as a table, as wide as the terminal is."""
    table = Table(*names)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)


def print_json(value: object) -> None:
    """Print JSON; what it has no form for, as text."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_plan(plan: Plan, requests_per_second: float, *, as_json: bool) -> None:
    """Print what a run would ask; what the user has to know of it on stderr."""
    requests = sum(oa.requests for oa in plan.oas)
    seconds = requests / requests_per_second
    if as_json:
        print_json(
            {
                "oas": [vars(oa) for oa in plan.oas],
                "ref_ids": plan.total,
                "requests": requests,
                "seconds": seconds,
                "compared_all": plan.compared_all,
                "skipped": plan.skipped.to_dict(),
            }
        )
        return
    names = ("oa_id", "new", "due", "settled", "waiting", "requests")
    print_table(names, [[getattr(oa, name) for name in names] for oa in plan.oas])
    click.echo(
        f"{plan.total} RefIds in {requests} requests:"
        f" {seconds:.0f} s at {requests_per_second:g} requests/s"
    )
    for line in plan.skipped.remedies():
        click.echo(line, err=True)


def print_report(report: Report, *, as_json: bool) -> None:
    """Print how a run went; what the user has to know of it on stderr."""
    if as_json:
        print_json(report.to_dict())
    else:
        click.echo(
            f"asked {report.asked} RefIds in {report.attempts} requests:"
            f" {report.answered} answered, {report.missing} missing,"
            f" {report.failed} failed;"
            f" {report.rows} rows, {report.rejected} rejected"
        )
        stages = ", ".join(f"{name} {s:.1f} s" for name, s in report.seconds.items())
        click.echo(f"time: {stages}")
    for error, count in report.problems.most_common(5):
        click.echo(f"{count} RefIds failed: {error}", err=True)
    for line in report.skipped.remedies():
        click.echo(line, err=True)
    if report.left:
        click.echo(f"{report.left} RefIds were not reached; they stay due", err=True)
