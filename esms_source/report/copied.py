"""A dataset that SQLAlchemy reaches, copied into a DuckDB, whose SQL the page needs."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import dlt
import duckdb
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseTransientException

from esms_source.databases.alchemy import driver_errors, kinds_of, streamed
from esms_source.keeping.lake import DUCKDB_TYPES
from esms_source.planning.alchemy import as_texts, ledger_types
from esms_source.runtime import ScratchFolder
from esms_source.sql import quote_name
from esms_source.tables import (
    BIGINT,
    LOADS,
    REF_IDS,
    RUNS,
    SCHEMA,
    TABLES,
    TEXT,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlt.destinations.sql_client import SqlClientBase

PART_ROWS: Final = 50_000

LOADS_TYPES: Final = {"load_id": DUCKDB_TYPES[TEXT], "status": DUCKDB_TYPES[BIGINT]}


@contextmanager
def copied(pipeline: dlt.Pipeline, memory: str) -> Iterator[SqlClientBase[Any]]:
    """Copy a dataset's tables, and open them by their names, without its views.

    Args:
        pipeline: To the dataset.
        memory: What DuckDB may take before it uses the disk, such as 400MB.

    Raises:
        DatabaseException: They can't be read.
    """
    with ScratchFolder() as folder, duckdb.connect() as connection:
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET memory_limit = ?", [memory])
        with pipeline.sql_client() as source:
            dataset = source.dataset_name
            try:
                _copy_all(source, connection, f"memory.{quote_name(dataset)}")
            except driver_errors(source) as exc:
                raise DatabaseTransientException(exc) from exc
        destination = dlt.destinations.duckdb(connection)
        target = dlt.dataset(destination, dataset, Schema(SCHEMA))
        with target.sql_client as client:
            yield client


def _copy_all(
    source: SqlClientBase[Any], connection: duckdb.DuckDBPyConnection, where: str
) -> None:
    import sqlalchemy as sa  # noqa: PLC0415  an extra

    connection.execute(f"CREATE SCHEMA {where}")
    types = {
        table.name: {column.name: DUCKDB_TYPES[column.type] for column in table.columns}
        for table in (*TABLES, RUNS)
    }
    types |= {REF_IDS.name: ledger_types(source), LOADS: LOADS_TYPES}
    for name, known in types.items():
        # One that isn't there is missed by whoever asks for it.
        with suppress(sa.exc.NoSuchTableError):
            _copy(source, connection, f"{where}.{quote_name(name)}", name, known)


def _copy(
    source: SqlClientBase[Any],
    connection: duckdb.DuckDBPyConnection,
    target: str,
    name: str,
    known: Mapping[str, str],
) -> None:
    present = {
        column: known.get(column, DUCKDB_TYPES[TEXT])
        for column in kinds_of(source, name)
    }
    columns = ", ".join(f"{quote_name(n)} {kind}" for n, kind in present.items())
    connection.execute(f"CREATE TABLE {target} ({columns})")
    sql = f"SELECT * FROM {source.make_qualified_table_name(name)}"
    for rows in streamed(source, sql, PART_ROWS):
        connection.register("part", as_texts(present, rows))
        connection.execute(f"INSERT INTO {target} BY NAME FROM part")
        connection.unregister("part")
