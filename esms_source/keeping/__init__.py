"""How a destination keeps rows: replaced in place, or appended to files as events.

In files nothing can be deleted by a merge. So every row is an event there, and what is
current follows from the events: the newest of each RefId, of loads that completed, and
the callbacks of the load that it names in ``answered_by_load``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import dlt
import pyarrow as pa
import pyarrow.compute as pc

from esms_source.keeping.lake import (
    EVENTS,
    KEYS,
    PARQUET,
    Lake,
    check_layout,
    format_of,
    is_lake,
    opened,
    url_of,
    write_file,
)
from esms_source.tables import ANSWERED_BY_LOAD, CALLBACKS, REF_IDS, SMALL, TABLES, TEXT

if TYPE_CHECKING:
    import duckdb
    from dlt.destinations.sql_client import SqlClientBase
    from dlt.extract import DltSource

    from esms_source.tables import Table

__all__ = [
    "KEYS",
    "as_events",
    "as_kept",
    "as_plain",
    "check_layout",
    "format_of",
    "is_lake",
    "jobs_once",
    "pages_of",
    "reading",
    "show",
    "url_of",
    "write_file",
]

MOST_TRIES: Final = "load.raise_on_max_retries"
USUAL_TRIES: Final = 5
"""dlt's setting of how often a job is tried, and what it is where nobody sets it."""

PAGE_ROWS: Final = 50_000

KEY: Final = ("oa_id", "ref_id")

Pages = Callable[[str], Iterator[dict[str, pa.Table]]]
"""Takes the id of a load, yields its rows by table."""


@contextmanager
def reading(pipeline: dlt.Pipeline, *tables: Table) -> Iterator[SqlClientBase[Any]]:
    """Open a destination to read its tables by their names, whatever it keeps them in.

    Args:
        pipeline: To the destination.
        *tables: Which ones will be read; none for all. It spares a lake's files.

    Raises:
        DestinationError: Files are missing, or in a form that can't be read.
    """
    if not is_lake(pipeline):
        with pipeline.sql_client() as client:
            yield client
        return
    with opened(pipeline, tables) as client:
        yield client


def pages_of(client: SqlClientBase[Any], sql: str) -> Iterator[pa.Table]:
    """Yield what a query of a lake selects, some rows at a time."""
    connection: duckdb.DuckDBPyConnection = client.native_connection
    for batch in connection.sql(sql).to_arrow_reader(PAGE_ROWS):
        yield pa.Table.from_batches([batch])


def show(
    pipeline: dlt.Pipeline, connection: duckdb.DuckDBPyConnection
) -> tuple[str, str]:
    """Show the tables of a lake to a DuckDB; return the catalog and schema they are in.

    What is current is found once: several queries can follow.
    """
    lake = Lake(pipeline)
    connection.execute("ATTACH ':memory:' AS lake")
    lake.show(connection, "lake", (REF_IDS,), at_once=True)
    return "lake", lake.dataset


def as_kept(source: DltSource, pipeline: dlt.Pipeline, table_format: str) -> DltSource:
    """Let a source's tables be written as its destination keeps them.

    Args:
        source: Of tables that are merged by their keys.
        pipeline: Where they go.
        table_format: Of a lake: parquet, delta or iceberg.
    """
    if not is_lake(pipeline):
        return source
    small = {table.name for table in SMALL}
    names = {table.name for table in TABLES}
    for name, resource in source.resources.items():
        if name in names:
            resource.apply_hints(
                table_name=EVENTS.get(name, name),
                write_disposition="replace" if name in small else "append",
                primary_key=(),
                merge_key=(),
                **_format(table_format),
            )
    return source


def as_plain(source: DltSource, table_format: str) -> DltSource:
    """Let a source's tables be written to a lake in place of what they held."""
    for resource in source.resources.values():
        hints = _format(table_format)
        resource.apply_hints(write_disposition="replace", **hints)
    return source


@contextmanager
def jobs_once(table_format: str) -> Iterator[None]:
    """Keep dlt from writing rows a second time that may stand in a table already.

    An error may come after a commit. A load that fails by it never completes, and what
    it asked is asked again.
    """
    is_safe = table_format == PARQUET  # a file is written over by itself
    if is_safe or dlt.config.get(MOST_TRIES) is not None:
        yield
        return
    dlt.config[MOST_TRIES] = 1
    try:
        yield
    finally:
        dlt.config[MOST_TRIES] = USUAL_TRIES


def _format(table_format: str) -> dict[str, Any]:
    if table_format == PARQUET:
        return {"file_format": PARQUET}
    return {"file_format": PARQUET, "table_format": table_format}


def as_events(pages: Pages, pipeline: dlt.Pipeline) -> Pages:
    """Let rows of a lake's ledger name the load whose callbacks count."""
    if not is_lake(pipeline):
        return pages

    def events(load_id: str) -> Iterator[dict[str, pa.Table]]:
        for page in pages(load_id):
            rows = _answered(page[REF_IDS.name], page[CALLBACKS.name])
            yield {**page, REF_IDS.name: rows}

    return events


def _answered(rows: pa.Table, callbacks: pa.Table) -> pa.Table:
    is_answered = pc.is_in(_keys(rows), value_set=_keys(callbacks))
    before = pa.nulls(len(rows), TEXT)
    if ANSWERED_BY_LOAD in rows.column_names:
        before = rows[ANSWERED_BY_LOAD]
        rows = rows.drop_columns([ANSWERED_BY_LOAD])
    loads = pc.if_else(is_answered, rows["load_id"], before)
    return rows.append_column(pa.field(ANSWERED_BY_LOAD, TEXT), loads)


def _keys(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*(rows[name] for name in KEY), "\x1f")
