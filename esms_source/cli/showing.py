"""Commands that need no account: the simulator, and a demo on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from esms_source.cli.output import echo, print_report, print_table
from esms_source.exceptions import ConfigError
from esms_source.runtime import stop_on_signals

# Everything else is imported by the command that needs it: help answers at once.
if TYPE_CHECKING:
    from esms_source.cli.demo import World


@click.command()
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


@click.command()
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
    echo("\nTry next:")
    for command in world.commands():
        echo(f"  {command}")
