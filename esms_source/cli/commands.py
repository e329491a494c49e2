"""The command line: commands and their options; errors become exit codes."""

from __future__ import annotations

import logging
import sys
from errno import EPIPE
from pathlib import Path
from typing import Any, NoReturn

import click

from esms_source.cli.keeping import compact, forget, init, query, settle
from esms_source.cli.memory import tune
from esms_source.cli.options import AS_JSON, choice_options, pipeline_options
from esms_source.cli.output import echo, print_json, print_plan
from esms_source.cli.showing import demo, simulate
from esms_source.cli.stderr import BY, LOG_FORMATS, TEXT, format_named_in, say, talk
from esms_source.exceptions import EsmsError
from esms_source.runtime import stop_on_signals

# Everything else is imported by the command that needs it: help answers at once.
EXIT_FAILED = 1


class _Commands(click.Group):
    """Commands whose errors are one line on stderr and an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as exc:
            if not given:  # the help
                raise
            talk(verbose=False, quiet=False, log_format=format_named_in(given))
            _end(ctx, _told(exc), exc.exit_code)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  click's own type
        talk(**ctx.params)
        try:
            return super().invoke(ctx)
        except EsmsError as exc:
            _end(ctx, str(exc), exc.exit_code)
        except click.UsageError as exc:
            _end(ctx, _told(exc), exc.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _end(ctx, "aborted", EXIT_FAILED)
        except OSError as exc:
            if exc.errno == EPIPE:  # whoever reads has seen enough: click ends then
                raise
            where = f": {exc.filename!r}" if exc.filename else ""
            _end(ctx, f"{exc.strerror or type(exc).__name__}{where}", EXIT_FAILED)


def _told(exc: click.UsageError) -> str:
    asked = exc.ctx.command_path if exc.ctx else "esms"
    return f"{exc.format_message()} See {asked} --help"


def _end(ctx: click.Context, said: str, exit_code: int) -> NoReturn:
    say(f"{BY}{said}", logging.ERROR, exit_code=exit_code)
    ctx.exit(exit_code)


_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(package_name="esms-source")
@click.option("--verbose", is_flag=True, help="Log what a run does, on stderr.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default=TEXT,
    help="Of what goes to stderr; json is one object a line.",
)
def main(**_: object) -> None:
    """Load the delivery callbacks of eSMS.vn's Zalo messages into your warehouse.

    \b
    esms demo     see it work, no account needed
    esms init     write the settings of a new project
    esms check    are settings, warehouse, destination and API key right?
    esms plan     what would be asked
    esms run      ask it and load it
    esms query    ask what came, in SQL
    esms report   look at it on a page

    Settings come from .dlt/config.toml and .dlt/secrets.toml, or from the
    environment: SOURCES__ESMS__API_KEY, SOURCES__ESMS__REF_IDS__TABLE.
    Exit codes: 0 done, 1 something failed, 2 the command or a setting is
    wrong, 75 another run holds the pipeline.
    """  # noqa: D301  click reads the backspace
    tune()


@main.command()
@pipeline_options
@choice_options
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.FloatRange(1),
    help="Stay, and run again and again until a signal.",
)
@AS_JSON
def run(
    pipeline: str,
    dataset: str,
    destination: str,
    *,
    choice: dict[str, Any],
    every: float | None,
    as_json: bool,
) -> None:
    """Ask eSMS for every RefId that is due, and load what it answers.

    Loads slice by slice, so that a crash costs at most one slice; what an
    earlier run left pending is loaded first. Run it as often as you like:
    settled RefIds are never asked again.

    \b
    esms run --oa-id 1090257973118325189 --max-ref-ids 10000
    esms run --repoll failed,expired --since 2026-11-01
    esms run --every 300
    """  # noqa: D301  click reads the backspace
    from esms_source.cli.rounds import run_once, run_rounds
    from esms_source.load.destination import open_pipeline

    target = open_pipeline(destination, dataset, pipeline)
    with stop_on_signals() as stop:
        if every is None:
            report = run_once(target, choice, stop, as_json=as_json)
            exit_code = report.exit_code
        else:
            run_rounds(target, choice, stop, every, as_json=as_json)
            exit_code = 0
    if exit_code:
        sys.exit(exit_code)


@main.command()
@pipeline_options
@choice_options
@AS_JSON
def plan(
    pipeline: str,
    dataset: str,
    destination: str,
    *,
    choice: dict[str, Any],
    as_json: bool,
) -> None:
    """Show what a run would ask, per OA; ask nothing and write nothing."""
    from esms_source.config import resolve_settings
    from esms_source.load.checks import check_destination
    from esms_source.load.destination import (
        open_pipeline,
        own_pipeline,
        reporting_errors,
    )
    from esms_source.planning.planner import Choice, make_plan
    from esms_source.polling.poller import most_ahead
    from esms_source.runtime import Clock

    settings = resolve_settings()
    compare_all, only = choice.pop("compare_all"), choice.pop("ref_ids")
    with (
        reporting_errors(),
        own_pipeline(open_pipeline(destination, dataset, pipeline)) as target,
    ):
        check_destination(target)
        made = make_plan(
            target,
            settings,
            Choice(only=only, **choice),
            Clock().started_at,
            compare_all=compare_all,
            slice_ref_ids=settings.slice_ref_ids - most_ahead(settings),
        )
    made.close()
    print_plan(made, settings, as_json=as_json)


@main.command()
@pipeline_options
@AS_JSON
def check(pipeline: str, dataset: str, destination: str, *, as_json: bool) -> None:
    """Check settings, warehouse, destination and API key: a line each.

    Says how many rows of the warehouse aren't in the ledger, and why. Spends at
    most one request on each endpoint in use.
    """
    from esms_source.cli.check import checks

    outcomes = []
    for outcome in checks(pipeline, dataset, destination):
        outcomes.append(outcome)
        if not as_json:
            echo(f"{outcome.status:<4}  {outcome.name}: {outcome.said}")
    if as_json:
        print_json(
            [{name: getattr(o, name) for name in o._fields[:3]} for o in outcomes]
        )
    exit_code = max(outcome.exit_code for outcome in outcomes)
    if exit_code:
        sys.exit(exit_code)


@main.command()
@pipeline_options
@click.option(
    "--output",
    default="esms-report.html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; an earlier report is replaced.",
)
def report(pipeline: str, dataset: str, destination: str, output: Path) -> None:
    """Write a page of the delivery figures: one HTML file, no network needed."""
    from esms_source.config import resolve_settings
    from esms_source.load.checks import check_destination
    from esms_source.load.destination import (
        open_pipeline,
        own_pipeline,
        reporting_errors,
    )
    from esms_source.report import write_report

    settings = resolve_settings()
    with (
        reporting_errors(),
        own_pipeline(open_pipeline(destination, dataset, pipeline)) as target,
    ):
        check_destination(target)
        echo(write_report(target, settings, output))


@main.command()
@click.argument("ref_ids", metavar="REFID...", nargs=-1, required=True)
@pipeline_options
@click.option("--oa-id", help="The OA that sent them, if not the one of the ledger.")
@AS_JSON
def lookup(
    pipeline: str,
    dataset: str,
    destination: str,
    ref_ids: tuple[str, ...],
    oa_id: str | None,
    *,
    as_json: bool,
) -> None:
    """Ask for some RefIds now and print what the answers mean; load nothing.

    Their OA is that of --oa-id, else that of the ledger, else the setting oa_id.
    """
    from esms_source.cli.check import known_target
    from esms_source.cli.lookup import Known, look_up, read_known
    from esms_source.config import resolve_settings

    settings = resolve_settings()
    unique = list(dict.fromkeys(text for ref_id in ref_ids if (text := ref_id.strip())))
    target = known_target(pipeline, dataset, destination)
    known = Known() if target is None else read_known(target, unique)
    with stop_on_signals() as stop:
        found = look_up(settings, unique, known, oa_id, stop)
    if as_json:
        print_json([vars(item) for item in found])
    else:
        for item in found:
            of = f"OA {item.oa_id}" + (f" ({item.oa_name})" if item.oa_name else "")
            echo(f"{item.ref_id}  {item.state}  {of}  {item.error or ''}".rstrip())
            for row in item.callbacks:
                for name, value in row.items():
                    if value is not None:
                        echo(f"    {name}: {value}")
    if any(item.state == "failed" for item in found):
        sys.exit(EXIT_FAILED)


for _command in (init, query, settle, forget, compact, simulate, demo):
    main.add_command(_command)
