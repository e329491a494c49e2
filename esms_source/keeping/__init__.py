"""How a destination keeps rows: replaced in place, or appended to files as events.

In files nothing can be deleted by a merge. So every row is an event there, and what is
current follows from the events: the newest of each RefId, of loads that completed, and
the callbacks of the load that it names in ``answered_by_load``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from esms_source.keeping.lake import (
    EVENTS,
    Lake,
    check_layout,
    is_lake,
    opened,
    write_file,
)
from esms_source.tables import ANSWERED_BY_LOAD, CALLBACKS, REF_IDS, SMALL, TABLES, TEXT

if TYPE_CHECKING:
    import dlt
    from dlt.destinations.sql_client import SqlClientBase
    from dlt.extract import DltSource

__all__ = [
    "PARQUET",
    "as_events",
    "as_kept",
    "as_plain",
    "check_layout",
    "is_lake",
    "reading",
    "show",
    "write_file",
]

PARQUET: Final = "parquet"
"""The format of files that no table format stands over."""

KEY: Final = ("oa_id", "ref_id")

Pages = Callable[[str], Iterator[dict[str, pa.Table]]]
"""Takes the id of a load, yields its rows by table."""


@contextmanager
def reading(pipeline: dlt.Pipeline) -> Iterator[SqlClientBase[Any]]:
    """Open a destination to read its tables by their names, whatever it keeps them in.

    Raises:
        DestinationError: Files are missing, or in a form that can't be read.
    """
    if not is_lake(pipeline):
        with pipeline.sql_client() as client:
            yield client
        return
    with opened(pipeline) as client:
        yield client


def show(
    pipeline: dlt.Pipeline, connection: duckdb.DuckDBPyConnection
) -> tuple[str, str]:
    """Show the tables of a lake to a DuckDB; return the catalog and schema they are in.

    What is current is found once: several queries can follow.
    """
    lake = Lake(pipeline)
    connection.execute("ATTACH ':memory:' AS lake")
    lake.show(connection, "lake", at_once=True)
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


def _format(table_format: str) -> dict[str, Any]:
    if table_format == PARQUET:
        return {"file_format": PARQUET}
    return {"file_format": PARQUET, "table_format": table_format}


def as_events(pages: Pages) -> Pages:
    """Let rows of the ledger name the load whose callbacks count."""

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
