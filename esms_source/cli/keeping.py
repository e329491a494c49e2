"""Commands on what is loaded: ask it, and settle RefIds by hand."""

from __future__ import annotations

from pathlib import Path

import click

from esms_source.cli.options import AS_JSON, pipeline_options, read_ref_id_file
from esms_source.cli.output import echo, print_json, print_table

# Everything else is imported by the command that needs it: help answers at once.


@click.command()
@click.argument("sql")
@pipeline_options
@click.option(
    "--csv",
    "csv_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write CSV; an earlier file is replaced.",
)
@AS_JSON
def query(
    pipeline: str,
    dataset: str,
    destination: str,
    sql: str,
    csv_file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Run SQL on what is loaded, and print what it selects.

    Tables and views are found by their bare names.

    \b
    esms query "SELECT state, count(*) FROM ref_ids GROUP BY state"
    esms query "SELECT * FROM delivery_daily" --csv delivery.csv
    """  # noqa: D301  click reads the backspace
    from esms_source.cli.query import run_query, write_csv
    from esms_source.load.destination import open_pipeline, reporting_errors

    with reporting_errors():
        names, rows = run_query(open_pipeline(destination, dataset, pipeline), sql)
        if csv_file is not None:
            echo(f"{write_csv(csv_file, names, rows)} rows in {csv_file}")
        elif as_json:
            print_json([dict(zip(names, row, strict=True)) for row in rows])
        elif names:
            print_table(names, rows)


@click.command()
@pipeline_options
@click.option(
    "--ref-ids",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The RefIds: CSV with a header, or one a line.",
)
def settle(pipeline: str, dataset: str, destination: str, ref_ids: Path) -> None:
    """Never ask for some RefIds again: they become expired, by hand.

    What is final stays so. --repoll expired asks for them again all the same.
    """
    from esms_source.cli.settle import settle as settle_by_hand
    from esms_source.config import resolve_settings
    from esms_source.load.destination import open_pipeline

    settled, notes = settle_by_hand(
        open_pipeline(destination, dataset, pipeline),
        resolve_settings(),
        read_ref_id_file(ref_ids),
    )
    echo(f"{settled} RefIds are never asked again")
    for line in notes:
        echo(line, err=True)
