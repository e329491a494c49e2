"""The small tables: what codes and ids mean, from the package's ``codes/*.csv``."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import dlt
from pyarrow import csv

from esms_source.tables import ELSEWHERE, SMALL, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from dlt.extract import DltResource


@cache
def read_code_table(table: Table) -> pa.Table:
    """Read the rows of a small table.

    Raises:
        pa.ArrowInvalid: The file doesn't hold what the table declares.
    """
    path = resources.files(__name__).joinpath(f"{table.name}.csv")
    options = csv.ConvertOptions(
        column_types=table.schema, include_columns=table.schema.names
    )
    with path.open("rb") as file:
        return csv.read_csv(file, convert_options=options).cast(table.schema)


def small_tables() -> list[DltResource]:
    """Return one resource per small table, merged by its key, and empty ones."""
    return [
        *(merged(table, read_code_table(table)) for table in SMALL),
        *(merged(table, table.schema.empty_table()) for table in ELSEWHERE),
    ]


def merged(table: Table, content: pa.Table) -> DltResource:
    """Return a resource of some rows, merged into a table by its key."""

    def rows() -> Iterator[pa.Table]:
        yield content

    rows.__doc__ = table.description
    return dlt.resource(
        rows,
        name=table.name,
        columns=table.to_dlt(),
        primary_key=table.key,
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )
