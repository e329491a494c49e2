"""What leaves the tables: of loads that never completed, and what is too old."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from esms_source.databases import (
    columns_of,
    execute,
)
from esms_source.keeping import is_lake
from esms_source.sql import moment_literal, text_list
from esms_source.tables import API_REQUESTS, LOADS, REJECTED_ROWS, RUNS, SCHEMA

if TYPE_CHECKING:
    from datetime import datetime

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

PLAIN_RUN_SECONDS: Final = 86_400.0
"""Age from which on nobody is loading what a plain run left any more."""


def sweep(pipeline: dlt.Pipeline, *, locked: bool) -> None:
    """Delete the requests and rejected rows of loads that never completed.

    Args:
        pipeline: Where they are.
        locked: Whether no ``sync`` can be loading now. A plain run may be: its rows,
            which bear no ``run_id``, stay for a day.
    """
    if is_lake(pipeline):
        return  # what isn't of a completed load is never read there
    with pipeline.sql_client() as client:
        loads = client.make_qualified_table_name(LOADS)
        completed = (
            f"SELECT load_id FROM {loads} WHERE status = 0 AND schema_name = '{SCHEMA}'"
        )
        # Where none is left they were pruned, and tell nothing.
        if columns_of(client, LOADS) is None or not execute(
            client, f"{completed} LIMIT 1"
        ):
            return
        for table in (API_REQUESTS, REJECTED_ROWS):
            _sweep_table(client, table.name, completed, locked=locked)


def prune(pipeline: dlt.Pipeline, before: datetime) -> None:
    """Delete what is kept for looking back, where it is older than some moment.

    Args:
        pipeline: Where it is.
        before: The moment, in UTC.
    """
    with pipeline.sql_client() as client:
        for table, column in (
            (API_REQUESTS, "started_at"),
            (REJECTED_ROWS, "polled_at"),
            (RUNS, "started_at"),
        ):
            if columns_of(client, table.name) is not None:
                name = client.make_qualified_table_name(table.name)
                execute(
                    client,
                    f"DELETE FROM {name} WHERE {column} < {moment_literal(before)}",
                )


def _sweep_table(
    client: SqlClientBase[Any], table: str, completed: str, *, locked: bool
) -> None:
    columns = columns_of(client, table)
    if columns is None:
        return
    # Tables of version 0.1 have no run_id before the first load.
    run_id = "max(run_id)" if "run_id" in columns else "NULL"
    name = client.make_qualified_table_name(table)
    rows = execute(
        client,
        f"SELECT load_id, {run_id} FROM {name}"
        f" WHERE load_id NOT IN ({completed}) GROUP BY load_id",
    )
    dead = [
        load_id
        for load_id, run_id in rows or ()
        if (locked and run_id) or _is_old(load_id)
    ]
    if dead:
        execute(client, f"DELETE FROM {name} WHERE load_id IN ({text_list(dead)})")


def _is_old(load_id: str) -> bool:
    return time.time() - float(load_id) > PLAIN_RUN_SECONDS
