"""What SQLAlchemy's drivers hand over: its type in DuckDB, and its text."""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DIGITS: Final = 38
MOMENT: Final = "TIMESTAMP WITH TIME ZONE"

_KINDS: Final = {
    bool: "BOOLEAN",
    int: "BIGINT",
    float: "DOUBLE",
    datetime: "TIMESTAMP",
    date: "DATE",
}


def duckdb_type(kind: sa.types.TypeEngine[Any]) -> str:
    """Return DuckDB's name of a column's type; text stands for all others."""
    if isinstance(kind, mysql.TIMESTAMP) or getattr(kind, "timezone", False):
        return MOMENT
    if isinstance(kind, sa.Float):
        return "FLOAT" if isinstance(kind, mysql.FLOAT) else "DOUBLE"
    if isinstance(kind, sa.Numeric):
        digits, scale = kind.precision or MAX_DIGITS, kind.scale or 0
        fits = 0 <= scale <= digits <= MAX_DIGITS
        return f"DECIMAL({digits},{scale})" if fits else f"DECIMAL({MAX_DIGITS},9)"
    if isinstance(kind, sa.BigInteger) and getattr(kind, "unsigned", False):
        return "DECIMAL(20,0)"
    for base, name in (
        (sa.Boolean, "BOOLEAN"),
        (sa.Integer, "BIGINT"),
        (sa.DateTime, "TIMESTAMP"),
        (sa.Date, "DATE"),
        (sa.JSON, "JSON"),
    ):
        if isinstance(kind, base):
            return name
    return "VARCHAR"


def kind_of(seen: set[type]) -> str:
    """Return the DuckDB type of values of these Python types, text for a mixture."""
    kinds = seen - {type(None)}
    return _KINDS.get(next(iter(kinds)), "VARCHAR") if len(kinds) == 1 else "VARCHAR"


def as_text(value: object) -> str | None:
    """Return a driver's value as a text of which DuckDB reads the same value."""
    if value is None or isinstance(value, str):
        return value
    write = _WRITERS.get(type(value), str)
    return write(value)


def moment_as_text(value: object) -> str | None:
    """Return the text of a moment: where it names no zone, the session's is UTC."""
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    return as_text(value)


def _written(raw: bytes) -> str:
    """Return bytes as the text that they are, else as hexadecimal digits."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return rf"\x{raw.hex()}"


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    bool: lambda value: str(value).lower(),
    bytearray: lambda value: _written(bytes(value)),
    bytes: _written,
    datetime: lambda value: value.isoformat(sep=" "),
    Decimal: lambda value: format(value, "f"),
    float: repr,
}
