"""The ledger where dlt reaches it by SQLAlchemy: types that its drivers don't tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from esms_source.databases.alchemy import kinds_of
from esms_source.tables import BIGINT, BOOL, REF_IDS, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlt.destinations.sql_client import SqlClientBase

MOMENT: Final = "TIMESTAMP WITH TIME ZONE"
TYPES: Final = {TIMESTAMP: MOMENT, BIGINT: "BIGINT", BOOL: "BOOLEAN"}

COUNTED: Final = {
    "newest": MOMENT,
    "known": "BIGINT",
    "settled": "BIGINT",
    "forgotten": "BIGINT",
}
"""What planning reckons of the ledger for each OA."""


def ledger_types(client: SqlClientBase[Any]) -> dict[str, str]:
    """Return the DuckDB types of what planning reads of a ledger, by name.

    Args:
        client: dlt's, connected.
    """
    from sqlalchemy import exc  # noqa: PLC0415  an extra
    from sqlalchemy.dialects import mysql  # noqa: PLC0415

    from esms_source.planning.foreign_values import duckdb_type  # noqa: PLC0415

    try:
        columns = kinds_of(client, REF_IDS.name)
    except exc.NoSuchTableError:
        columns = {}
    carried = {
        name: "BOOLEAN" if isinstance(kind, mysql.TINYINT) else duckdb_type(kind)
        for name, kind in columns.items()
    }
    fixed = {
        column.name: TYPES.get(column.type, "VARCHAR") for column in REF_IDS.columns
    }
    return carried | fixed


def types_of(names: Sequence[str], ledger: Mapping[str, str]) -> dict[str, str]:
    """Return the types of what a query selects: rows of the ledger, or counts."""
    known = ledger if "ref_id" in names else {**ledger, **COUNTED}
    return {name: known.get(name, "VARCHAR") for name in names}


def as_texts(types: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Return rows as texts of which DuckDB reads the same values."""
    from esms_source.planning.foreign_values import (  # noqa: PLC0415  needs an extra
        as_text,
        moment_as_text,
    )

    def written(value: object, kind: str) -> str | None:
        if kind != MOMENT:
            return as_text(value)
        text = moment_as_text(value)
        # SQLite has times as texts, without their zone.
        return f"{text}+00:00" if isinstance(value, str) else text

    columns = zip(*rows, strict=True)
    texts = [
        pa.array([written(value, kind) for value in column], pa.string())
        for kind, column in zip(types.values(), columns, strict=True)
    ]
    return pa.table(texts, names=list(types))
