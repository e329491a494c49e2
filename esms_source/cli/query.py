"""SQL on the destination, with the dataset as its search path."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlt.destinations.exceptions import DatabaseException

from esms_source.databases import Patience, columns_of, local_file
from esms_source.databases.alchemy import (
    is_alchemy,
    literally,
    names_of,
    quoting,
    sqlite_file,
)
from esms_source.exceptions import ConfigError, DestinationError
from esms_source.keeping import is_lake, reading
from esms_source.load.checks import check_destination
from esms_source.load.errors import read_failure
from esms_source.sql import quote_name
from esms_source.tables import REF_IDS
from esms_source.views import show_views

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings


def run_query(
    pipeline: dlt.Pipeline, settings: Settings, sql: str
) -> tuple[list[str], list[Any]]:
    """Run SQL; return the columns' names and the rows of what it selects.

    Raises:
        ConfigError: The SQL is wrong.
        DestinationError: Nothing is loaded there, or it can't be reached.
        PipelineBusyError: Somebody else holds the file for too long.
    """
    check_destination(pipeline)
    if is_lake(pipeline):
        with reading(pipeline) as client:
            show_views(client, settings)
            return _run(client, sql)
    client = pipeline.sql_client()
    path = local_file(client) or sqlite_file(client)
    name = client.dataset_name
    # It would be made by looking.
    if path is not None and not Path(path).exists():
        raise _nothing_there(name)
    Patience()(client.open_connection)
    try:
        return _run(client, sql)
    finally:
        client.close_connection()


def _run(client: SqlClientBase[Any], sql: str) -> tuple[list[str], list[Any]]:
    name = client.dataset_name
    try:
        if columns_of(client, REF_IDS.name) is None:
            raise _nothing_there(name)
        if sqlite_file(client) is None:  # SQLite looks into all files that are open
            client.execute_sql(_use(client, name))
        with client.execute_query(literally(client, sql)) as cursor:
            names = names_of(cursor)
            return names, list(map(tuple, cursor.fetchall())) if names else []
    except DatabaseException as exc:
        failure = read_failure(exc)
        if not failure.refused:
            raise
        raise ConfigError(f"the SQL is refused: {failure.said}") from exc


def _use(client: SqlClientBase[Any], dataset: str) -> str:
    """Return the statement after which names are those of a dataset."""
    if is_alchemy(client):
        return f"USE {quoting(client)(dataset)}"
    return f"SET search_path = {quote_name(dataset)}"


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a table; return how many rows it has.

    Raises:
        ConfigError: The file can't be written.
    """
    count = 0
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for count, row in enumerate(rows, 1):  # noqa: B007  counted
                writer.writerow(row)
    except OSError as exc:
        fact = f"{str(path)!r} can't be written ({exc.strerror})"
        raise ConfigError(fact, "choose another --csv") from exc
    return count


def _nothing_there(dataset: str) -> DestinationError:
    fact = f"nothing is loaded into the dataset {dataset!r}"
    return DestinationError(fact, "name another --dataset, or run esms run")
