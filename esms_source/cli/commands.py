"""The command line: commands and their options; errors become exit codes."""

from __future__ import annotations

import sys
from errno import EPIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from esms_source.cli.memory import tune
from esms_source.cli.options import AS_JSON, choice_options, pipeline_options
from esms_source.cli.output import (
    echo,
    print_json,
    print_plan,
    print_report,
    print_table,
)
from esms_source.exceptions import ConfigError, EsmsError
from esms_source.runtime import stop_on_signals

# Everything else is imported by the command that needs it: help answers at once.
if TYPE_CHECKING:
    from esms_source.cli.demo import World

EXIT_FAILED = 1


class _Commands(click.Group):
    """Commands whose errors are one line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  click's own type
        try:
            return super().invoke(ctx)
        except EsmsError as exc:
            echo(f"esms: {exc}", err=True)
            ctx.exit(exc.exit_code)
        except click.UsageError as exc:
            asked = exc.ctx.command_path if exc.ctx else "esms"
            echo(f"esms: {exc.format_message()} See {asked} --help", err=True)
            ctx.exit(exc.exit_code)
        except OSError as exc:
            if exc.errno == EPIPE:  # whoever reads has seen enough: click ends then
                raise
            where = f": {exc.filename!r}" if exc.filename else ""
            echo(f"esms: {exc.strerror or type(exc).__name__}{where}", err=True)
            ctx.exit(EXIT_FAILED)


_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(package_name="esms-source")
def main() -> None:
    """Load the delivery callbacks of eSMS.vn's Zalo messages into your warehouse.

    \b
    esms demo     see it work, no account needed
    esms check    are settings, warehouse, destination and API key right?
    esms plan     what would be asked
    esms run      ask it and load it
    esms report   look at what came

    Settings come from .dlt/config.toml and .dlt/secrets.toml, or from the
    environment: SOURCES__ESMS__API_KEY, SOURCES__ESMS__REF_IDS__TABLE.
    Exit codes: 0 done, 1 something failed, 2 the command or a setting is
    wrong, 75 another run holds the pipeline.
    """  # noqa: D301  click reads the backspace
    tune()


@main.command()
@pipeline_options
@choice_options
@AS_JSON
def run(
    pipeline: str,
    dataset: str,
    destination: str,
    *,
    choice: dict[str, Any],
    as_json: bool,
) -> None:
    """Ask eSMS for every RefId that is due, and load what it answers.

    Loads slice by slice, so that a crash costs at most one slice; what an
    earlier run left pending is loaded first. Run it as often as you like:
    settled RefIds are never asked again.

    \b
    esms run --oa-id 1090257973118325189 --max-ref-ids 10000
    esms run --repoll failed,expired --since 2026-11-01
    """  # noqa: D301  click reads the backspace
    from esms_source.cli.progress_bar import progress_bar
    from esms_source.load.destination import open_pipeline
    from esms_source.run import sync
    from esms_source.runtime import Progress

    progress = Progress()
    with stop_on_signals() as stop, progress_bar(progress, stop):
        try:
            report = sync(
                open_pipeline(destination, dataset, pipeline),
                progress=progress,
                stop=stop,
                **choice,
            )
        except EsmsError as exc:
            if exc.report:
                print_report(exc.report, as_json=as_json)
            raise
    print_report(report, as_json=as_json)
    if report.exit_code:
        sys.exit(report.exit_code)


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
    most one request of the API's budget.
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


@main.command()
@click.option(
    "--port",
    default=8200,
    type=click.IntRange(0, 65_535),
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@click.option("--latency", default=0.05, help="Seconds per answer.")
@click.option("--rate", default=20.0, help="Requests a second; 0 lifts the limit.")
@click.option("--faults", default="", help="Such as 500=0.1,429=0.05,html=0.02.")
@click.option("--seed", default=1, help="The same seed gives the same answers.")
def simulate(port: int, latency: float, rate: float, faults: str, seed: int) -> None:
    """Run the bundled simulator of the API alone, until interrupted.

    \b
    esms simulate --latency 0.5 --faults 500=0.1,drop=0.05
    SOURCES__ESMS__BASE_URL=http://127.0.0.1:8200 esms run
    """  # noqa: D301  click reads the backspace
    from esms_source.simulator import Behaviour, serve

    try:
        behaviour = Behaviour(
            latency=latency, rate=rate or None, faults=faults, seed=seed
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc
    try:
        serve(behaviour, "127.0.0.1", port, announce=echo)
    except OSError as exc:
        fact = f"port {port} can't be used ({exc.strerror})"
        raise ConfigError(fact, "choose another --port") from exc


@main.command()
@click.option(
    "--folder",
    default="esms-demo",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo's files go; an earlier demo's are replaced.",
)
def demo(folder: Path) -> None:
    """See it work: a simulated API, a small warehouse, two runs. No account needed."""
    from esms_source.cli.demo import World, apart_from_projects

    world = World(folder.resolve())
    world.make()
    with apart_from_projects():
        _show(world)


def _show(world: World) -> None:
    """Run twice in a small world, and print what came."""
    import dlt
    import requests

    from esms_source.cli.demo import (
        DELIVERY,
        LATE_ROW,
        QUERIES,
        TOP_ERRORS,
        simulated_api,
    )
    from esms_source.cli.progress_bar import progress_bar
    from esms_source.run import sync
    from esms_source.runtime import Progress

    echo(f"A warehouse of RefIds in {world.warehouse}")
    pipeline = dlt.pipeline(
        "esms_demo",
        destination=dlt.destinations.duckdb(str(world.result)),
        dataset_name="zalo",
        pipelines_dir=str(world.pipelines),
    )
    with simulated_api() as url, stop_on_signals() as stop:
        settings = world.settings(url)
        for title in (
            "First run: everything",
            "Second run: what is due, and a late row",
        ):
            echo(f"\n{title}")
            progress = Progress()
            with progress_bar(progress, stop):
                report = sync(pipeline, progress=progress, stop=stop, **settings)
            print_report(report, as_json=False)
            world.add_late_row()
        seen = requests.get(f"{url}/stats", timeout=10).json()
        echo(
            f"\nThe server saw {seen['requests']} requests,"
            f" at most {seen['most_in_one_second']} in any second,"
            f" and refused {seen['refusals']}."
        )
    late = world.query(LATE_ROW)[1]
    echo(f"The late row was found: {late[0][0] if late else 'no'}")
    for title, sql in (("Delivery per OA", DELIVERY), ("Top errors", TOP_ERRORS)):
        echo(f"\n{title}")
        print_table(*world.query(sql))
    echo(f"\nTry next, on {world.result}:")
    for query in QUERIES:
        echo(f"  {query}")
