"""Carried columns: in the ledger's type, or as text beside it; no value is changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from esms_source.sql import quote_name
from esms_source.tables import VARIANT

WIDER: Final = {
    "TINYINT": "BIGINT",
    "SMALLINT": "BIGINT",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
}
KEPT: Final = ("VARCHAR", "BOOLEAN", "BIGINT", "DOUBLE", "DATE")
TIMESTAMPTZ: Final = "TIMESTAMP WITH TIME ZONE"
TEMPORAL: Final = ("DATE", TIMESTAMPTZ)
NESTED: Final = re.compile(r"STRUCT\(|MAP\(|UNION\(|.*\]$")
DECIMAL: Final = re.compile(r"DECIMAL\((\d+), ?(\d+)\)")


@dataclass(frozen=True)
class Carried:
    """The SQL of a carried column.

    Attributes:
        name: Its name in the ledger.
        value: The value, null where the column doesn't take it.
        variant: The text of what it doesn't take, None where it takes all.
    """

    name: str
    value: str
    variant: str | None

    def sql(self) -> str:
        """Return what follows other columns of a SELECT."""
        sql = f", {self.value} AS {quote_name(self.name)}"
        if self.variant:
            sql += f", {self.variant} AS {quote_name(self.name + VARIANT)}"
        return sql


def carry(
    name: str, column: str, kind: str, known: str | None, *, as_text: bool
) -> Carried:
    """Return how a column is carried.

    Args:
        name: Its name in the ledger.
        column: Its name in the warehouse.
        kind: Its type there, as DuckDB calls it.
        known: Its type in the ledger, None where that doesn't have it.
        as_text: Whether the warehouse's values have been copied as texts.
    """
    source = quote_name(column)
    value = f"TRY_CAST({source} AS {kind})" if as_text and kind != "VARCHAR" else source
    target = known or _kept(kind)
    text = _text(source if as_text else value, kind)
    if target == "VARCHAR":
        return Carried(name, _text(value, kind), None)
    plain, conditions = value, []
    if kind.startswith("TIMESTAMP_"):
        # DuckDB 1.4 casts a time of another precision to no other kind of time.
        plain = f"TRY_CAST({value} AS TIMESTAMP)"
        conditions.append(f"TRY_CAST({plain} AS {kind}) = {value}")
        kind = "TIMESTAMP"
    cast = plain if kind == target else f"TRY_CAST({plain} AS {target})"
    if kind not in (target, *_narrower(target)):
        conditions.append(f"TRY_CAST({cast} AS {kind}) = {plain}")
    if as_text:
        conditions.append(f"{cast} IS NOT NULL")
    digits = DECIMAL.fullmatch(kind)
    if as_text and digits:
        rounded = rf"'\.\d{{{digits[2]}}}\d*[1-9]'"
        conditions.append(f"NOT regexp_matches({source}, {rounded})")
    if target in TEMPORAL:
        zone = "+00" if target == TIMESTAMPTZ else ""
        time = " 00:00:00" if zone else ""
        conditions.append(
            f"{cast} BETWEEN CAST('0001-01-02{time}{zone}' AS {target})"
            f" AND CAST('9999-12-30{time}{zone}' AS {target})"
        )
    if not conditions:
        return Carried(name, cast, None)
    fits = f"coalesce({' AND '.join(conditions)}, false)"
    return Carried(
        name,
        f"CASE WHEN {fits} THEN {cast} END",
        f"CASE WHEN NOT {fits} THEN {text} END",
    )


def _kept(kind: str) -> str:
    """Return the type in which values of a type are carried at first."""
    kind = WIDER.get(kind, kind)
    if kind in KEPT or DECIMAL.fullmatch(kind):
        return kind
    return TIMESTAMPTZ if kind.startswith("TIMESTAMP") else "VARCHAR"


def _narrower(target: str) -> list[str]:
    """Return the types of which another one takes every value."""
    whole = ["TINYINT", "SMALLINT", "INTEGER"]
    return {"BIGINT": whole, "DOUBLE": ["FLOAT", *whole]}.get(target, [])


def _text(value: str, kind: str) -> str:
    r"""Return the SQL of a value's text; what is nested is JSON, NUL written out."""
    if NESTED.match(kind):
        return f"CAST(to_json({value}) AS VARCHAR)"
    text = value if kind == "VARCHAR" else f"CAST({value} AS VARCHAR)"
    written = rf"replace({text}, chr(0), '\u0000')"
    return f"CASE WHEN contains({text}, chr(0)) THEN {written} ELSE {text} END"
