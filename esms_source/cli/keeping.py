"""Commands on what is loaded: ask it, and settle RefIds by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from esms_source.cli.options import AS_JSON, pipeline_options, read_ref_id_file
from esms_source.cli.output import echo, print_json, print_table
from esms_source.cli.stderr import say

# Everything else is imported by the command that needs it: help answers at once.


@click.command()
@click.option("--warehouse", help="dlt's name of the warehouse's kind, such as duckdb.")
@click.option("--warehouse-credentials", metavar="FILE|URL", help="Where it is.")
@click.option("--schema", "dataset_name", help="Schema of the table of RefIds.")
@click.option("--table", help="Table of RefIds.")
@click.option("--ref-id-column", help="Its column of RefIds.")
@click.option("--oa-id-column", help="Its column of OAs.")
@click.option("--sent-at-column", help="Its column of times.")
@click.option("--sent-at-timezone", help="Zone of times that name none.")
@click.option("--oa-id", help="The OA of rows that name none.")
@click.option(
    "--destination",
    "result",
    help="dlt's name of where to load to: duckdb, postgres, sqlalchemy, filesystem, …",
)
@click.option(
    "--destination-credentials",
    "result_credentials",
    metavar="FILE|URL",
    help="Where that is; of filesystem, a folder or s3://bucket/folder.",
)
@click.option("--api-key", envvar="ESMS_API_KEY", help="eSMS's key.")
@click.option("--secret-key", envvar="ESMS_SECRET_KEY", help="eSMS's secret.")
def init(**given: str | None) -> None:
    """Write the settings of a new project into .dlt/ of this folder.

    Asks on a terminal, where no option is given, and looks into the warehouse. With
    neither, writes a template to fill in. Changes nothing where settings are.

    \b
    esms init --warehouse-credentials crm.duckdb --table zns_messages
    """  # noqa: D301  click reads the backspace
    from esms_source.cli.init import Answers, ask, settings_folder, write_settings

    folder = settings_folder()
    answers = Answers(**given)
    is_asked = not answers and sys.stdin.isatty()
    if is_asked:
        ask(answers)
    write_settings(folder, answers)
    echo(f"Wrote {folder / 'config.toml'} and secrets.toml beside it.")
    is_complete = answers.table and answers.api_key and answers.secret_key
    if not is_complete:
        echo("Fill in what begins with # there.")
    result = answers.result or "duckdb"
    into = "" if result == "duckdb" else f" --destination {result}"
    echo(f"Then: esms check{into}, esms plan{into}, esms run{into}")


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
    from esms_source.config import resolve_settings
    from esms_source.load.destination import open_pipeline, reporting_errors

    with reporting_errors():
        target = open_pipeline(destination, dataset, pipeline)
        names, rows = run_query(target, resolve_settings(), sql)
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
        say(line)


@click.command()
@pipeline_options
@click.option("--phone", metavar="P", help="The person's, with 0 or 84 in front.")
@click.option(
    "--ref-ids",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The person's messages: CSV with a header, or one a line.",
)
def forget(
    pipeline: str,
    dataset: str,
    destination: str,
    phone: str | None,
    ref_ids: Path | None,
) -> None:
    """Take a person out of every table; nobody asks for the messages again.

    The ledger keeps a row for each message, with a digest in place of its RefId.
    What other systems hold, and copies and backups of the tables, are not touched.
    """
    from esms_source.cli.forget import forget as take_out
    from esms_source.config import resolve_settings
    from esms_source.load.destination import open_pipeline

    if phone is None and ref_ids is None:
        raise click.UsageError("Give --phone or --ref-ids.")
    counts = take_out(
        open_pipeline(destination, dataset, pipeline),
        resolve_settings(),
        phone,
        None if ref_ids is None else read_ref_id_file(ref_ids),
    )
    for table, rows in counts.items():
        echo(f"{table}: {rows} rows")


@click.command()
@pipeline_options
def compact(pipeline: str, dataset: str, destination: str) -> None:
    """Write the current rows of a lake as the plain tables ref_ids and callbacks.

    For programs that read files and know no events; esms query needs no such tables.
    """
    from esms_source.cli.compact import compact as write_current
    from esms_source.config import resolve_settings
    from esms_source.load.destination import open_pipeline

    target = open_pipeline(destination, dataset, pipeline)
    for table, rows in write_current(target, resolve_settings()).items():
        echo(f"{table}: {rows} rows")
