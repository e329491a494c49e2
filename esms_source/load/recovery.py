"""What an earlier run left behind: what has begun and not ended is undone."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from dlt.destinations.exceptions import DatabaseUndefinedRelation

from esms_source.databases import columns_of
from esms_source.exceptions import ConfigError
from esms_source.load.destination import identity_of
from esms_source.load.packages import drop, has_begun, pending_packages
from esms_source.sql import moment_literal, text_list
from esms_source.tables import API_REQUESTS, LOADS, REJECTED_ROWS, SCHEMA

if TYPE_CHECKING:
    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.load.loader import Loader

DESTINATION: Final = "esms_destination"
"""Under which name a pipeline remembers what its packages are for."""

PLAIN_RUN_SECONDS: Final = 86_400.0
"""Age from which on nobody is loading what a plain run left any more."""


def recover(pipeline: dlt.Pipeline, loader: Loader) -> None:
    """Load what is pending and whole; drop what began to write, or came too late.

    What is dropped costs nothing but asking again: its RefIds are due.

    Raises:
        ConfigError: What is pending is for another destination.
        DestinationError: The destination can't be read, or refuses.
    """
    identity = identity_of(pipeline)
    packages = list(pending_packages(pipeline))
    if packages:
        known = _remembered(pipeline)
        if known not in (None, identity):
            raise _for_another_destination(pipeline)
        load_ids = [package.load_id for package in packages]
        # A run may be killed just when dlt moves a package to its next folder.
        half_moved = len(set(load_ids)) < len(load_ids)
        must_go = known is None or half_moved or _is_overtaken(pipeline, min(load_ids))
        for package in packages:
            if package.schema_name == SCHEMA and (must_go or has_begun(package)):
                drop(package)
        if pipeline.has_pending_data:
            loader.load()
        # Where dlt lost its own state it would consume nothing, for ever.
        for package in pending_packages(pipeline):
            drop(package)
    pipeline.set_local_state_val(DESTINATION, identity)


def remember_destination(pipeline: dlt.Pipeline) -> None:
    """Let a later run know what the packages of this one are for."""
    pipeline.set_local_state_val(DESTINATION, identity_of(pipeline))


def sweep(pipeline: dlt.Pipeline, *, locked: bool) -> None:
    """Delete the requests and rejected rows of loads that never completed.

    Args:
        pipeline: Where they are.
        locked: Whether no ``sync`` can be loading now. A plain run may be: its rows,
            which bear no ``run_id``, stay for a day.
    """
    with pipeline.sql_client() as client:
        loads = client.make_qualified_table_name(LOADS)
        completed = (
            f"SELECT load_id FROM {loads} WHERE status = 0 AND schema_name = '{SCHEMA}'"
        )
        # Where none is left they were pruned, and tell nothing.
        if columns_of(client, LOADS) is None or not client.execute_sql(
            f"{completed} LIMIT 1"
        ):
            return
        for table in (API_REQUESTS, REJECTED_ROWS):
            _sweep_table(client, table.name, completed, locked=locked)


def _sweep_table(
    client: SqlClientBase[Any], table: str, completed: str, *, locked: bool
) -> None:
    columns = columns_of(client, table)
    if columns is None:
        return
    # Tables of version 0.1 have no run_id before the first load.
    run_id = "max(run_id)" if "run_id" in columns else "NULL"
    name = client.make_qualified_table_name(table)
    rows = client.execute_sql(
        f"SELECT load_id, {run_id} FROM {name}"
        f" WHERE load_id NOT IN ({completed}) GROUP BY load_id"
    )
    dead = [
        load_id
        for load_id, run_id in rows or ()
        if (locked and run_id) or _is_old(load_id)
    ]
    if dead:
        client.execute_sql(f"DELETE FROM {name} WHERE load_id IN ({text_list(dead)})")


def _is_old(load_id: str) -> bool:
    return time.time() - float(load_id) > PLAIN_RUN_SECONDS


def _remembered(pipeline: dlt.Pipeline) -> str | None:
    try:
        known: str = pipeline.get_local_state_val(DESTINATION)
    except KeyError:
        return None
    return known


def _for_another_destination(pipeline: dlt.Pipeline) -> ConfigError:
    name, folder = pipeline.pipeline_name, pipeline.pipelines_dir
    fact = (
        f"the pipeline {name!r} in {folder} has loads pending for another destination"
    )
    remedy = (
        "run once for that one, or drop them:"
        f" dlt pipeline --pipelines-dir {folder} {name} drop-pending-packages"
    )
    return ConfigError(fact, remedy)


def _is_overtaken(pipeline: dlt.Pipeline, oldest: str) -> bool:
    """Tell whether any load completed since the oldest pending one was begun."""
    # dlt makes load ids of the time.
    begun_at = datetime.fromtimestamp(float(oldest), timezone.utc)
    try:
        with pipeline.sql_client() as client:
            loads = client.make_qualified_table_name(LOADS)
            rows = client.execute_sql(
                f"SELECT count(*) FROM {loads} WHERE schema_name = '{SCHEMA}'"
                f" AND inserted_at >= {moment_literal(begun_at)}"
            )
    except DatabaseUndefinedRelation:
        return False
    return bool(rows and rows[0][0])
