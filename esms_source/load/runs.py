"""The table ``runs``: one row for each run of ``sync``, written without a load."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from dlt.destinations.job_client_impl import SqlJobClientBase

from esms_source.databases import (
    columns_of,
    execute,
)
from esms_source.databases.alchemy import quoting, taken, type_name
from esms_source.keeping import is_lake, write_file
from esms_source.load.locks import dataset_lock
from esms_source.tables import REF_IDS, RUNS

if TYPE_CHECKING:
    from datetime import datetime

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.databases import Patience


def record_run(pipeline: dlt.Pipeline, patience: Patience, row: dict[str, Any]) -> None:
    """Write the row of a run; the table is made where it is missing.

    Args:
        pipeline: Where to.
        patience: How long to wait for who else holds it.
        row: A value for each column but ``pipeline_name`` and ``version``.

    Raises:
        DatabaseException: The destination doesn't take it.
    """
    client: Any = pipeline.destination_client()
    if is_lake(pipeline):
        write_file(pipeline, RUNS, run_row(pipeline, row), row["run_id"])
        return
    if not isinstance(client, SqlJobClientBase):
        return
    values = list(run_row(pipeline, row).values())
    with dataset_lock(pipeline, patience), client.sql_client as sql:
        name = sql.make_qualified_table_name(RUNS.name)
        if columns_of(sql, RUNS.name) is None:
            if not sql.has_dataset():
                sql.create_dataset()
            sql.execute_sql(f"CREATE TABLE {name} ({_columns(client)})")
        places = ", ".join(["%s"] * len(values))
        columns = ", ".join(map(quoting(sql), RUNS.schema.names))
        insert = f"INSERT INTO {name} ({columns}) VALUES ({places})"
        sql.execute_sql(insert, *taken(sql, values))


def run_row(pipeline: dlt.Pipeline, row: dict[str, Any]) -> dict[str, Any]:
    """Return all values of a run's row, in order."""
    known = {
        "pipeline_name": pipeline.pipeline_name,
        "version": _version(),
    }
    return {name: (known | row)[name] for name in RUNS.schema.names}


@cache
def _version() -> str:
    """Return this package's version; looked up each time, Python keeps the search."""
    return metadata.version("esms-source")


def last_comparison(client: SqlClientBase[Any]) -> datetime | None:
    """Return when a run last compared the whole warehouse table, and reached all."""
    if columns_of(client, RUNS.name) is None:
        return None
    name = client.make_qualified_table_name(RUNS.name)
    rows = execute(client, f"SELECT max(started_at) FROM {name} WHERE compared_all")
    found: datetime | None = rows[0][0] if rows else None
    return found


def what_waits(client: SqlClientBase[Any]) -> tuple[int, datetime | None]:
    """Return how many RefIds are to be asked again, and when the first of them is."""
    if columns_of(client, REF_IDS.name) is None:
        return 0, None
    name = client.make_qualified_table_name(REF_IDS.name)
    rows = execute(
        client,
        f"SELECT count(*), min(next_poll_at) FROM {name}"
        " WHERE next_poll_at IS NOT NULL",
    )
    return (int(rows[0][0]), rows[0][1]) if rows else (0, None)


def _columns(client: SqlJobClientBase) -> str:
    """Return the table's columns in the destination's types."""
    hints = RUNS.to_dlt()
    table: Any = {"name": RUNS.name, "columns": hints}
    quote = quoting(client.sql_client)
    return ", ".join(
        f"{quote(name)} "
        + type_name(client, client.type_mapper.to_destination_type(hint, table))
        + ("" if hint.get("nullable", True) else " NOT NULL")
        for name, hint in hints.items()
    )
