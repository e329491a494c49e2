"""The small tables: what codes and ids mean, read from the package's ``codes/*.csv``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import dlt
import pyarrow as pa
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from pyarrow import csv

from esms_source.tables import SMALL, Table

if TYPE_CHECKING:
    from dlt.destinations.sql_client import SqlClientBase
    from dlt.extract import DltResource


@cache
def read_code_table(table: Table) -> pa.Table:
    """Read the rows of a small table.

    Raises:
        pa.ArrowInvalid: The file doesn't hold what the table declares.
    """
    path = resources.files("esms_source").joinpath("codes", f"{table.name}.csv")
    options = csv.ConvertOptions(
        column_types=table.schema, include_columns=table.schema.names
    )
    with path.open("rb") as file:
        return csv.read_csv(file, convert_options=options).cast(table.schema)


def small_tables() -> list[DltResource]:
    """Return one resource per small table; each load replaces it."""
    return [_resource(table) for table in SMALL]


def are_current(client: SqlClientBase[Any]) -> bool:
    """Tell whether the destination has the rows that this package ships."""
    return all(_is_current(client, table) for table in SMALL)


def _resource(table: Table) -> DltResource:
    def rows() -> Iterator[pa.Table]:
        yield read_code_table(table)

    rows.__doc__ = table.description
    return dlt.resource(
        rows,
        name=table.name,
        columns=table.to_dlt(),
        primary_key=table.key,
        write_disposition="replace",
    )


def _is_current(client: SqlClientBase[Any], table: Table) -> bool:
    columns = ", ".join(map(client.capabilities.escape_identifier, table.schema.names))
    name = client.make_qualified_table_name(table.name)
    sql = f"SELECT {columns} FROM {name}"  # noqa: S608  quoted names only
    try:
        loaded = client.execute_sql(sql)
    except DatabaseUndefinedRelation:
        return False
    shipped = [tuple(row.values()) for row in read_code_table(table).to_pylist()]
    return sorted(map(repr, map(tuple, loaded or ()))) == sorted(map(repr, shipped))
