"""Rows that may be asked: how RefId, OA and time are read out of a user's columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esms_source.sql import quote_name, text_literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esms_source.planning.scratch import Scratch

BLANKS: Final = " \t\r\n\v\f\u00a0\u200b\u3000\ufeff"
DAY_FIRST: Final = ("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y")
"""How dates are written in Vietnam, tried where ISO 8601 doesn't fit."""

FRACTIONAL: Final = ("FLOAT", "DOUBLE", "DECIMAL")
CARRIED_AS_THEY_ARE: Final = (
    "VARCHAR",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "DATE",
)


@dataclass(frozen=True)
class Columns:
    """The warehouse's own names of the columns that are read."""

    ref_id: str
    oa_id: str | None
    sent_at: str | None
    carried: Mapping[str, str]

    @property
    def all(self) -> list[str]:
        """Return every column once."""
        names = (self.ref_id, self.oa_id, self.sent_at, *self.carried.values())
        return list(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True)
class Candidates:
    """Rows with RefIds, ready to be selected from in the scratch database.

    Attributes:
        relation: What stands behind FROM.
        columns: Which columns to take.
        types: Their types in DuckDB, by name.
    """

    relation: str
    columns: Columns
    types: Mapping[str, str]

    def select(self, default_oa_id: str | None, windows: str | None = None) -> str:
        """Return SQL that selects oa_id, ref_id, sent_at and what is carried.

        Args:
            default_oa_id: For rows that name no OA.
            windows: A relation (oa_id, since); rows sent before their OA's
                ``since`` are left out.
        """
        columns = self.columns
        oa_id = self._oa_id(default_oa_id)
        sent_at = self._moment(columns.sent_at) if columns.sent_at else None
        carried = [
            f"{self._carried(name)} AS {quote_name(alias)}"
            for alias, name in columns.carried.items()
        ]
        selected = [
            f"{oa_id} AS oa_id",
            f"{self._ref_id()} AS ref_id",
            f"{sent_at or 'NULL::TIMESTAMPTZ'} AS sent_at",
            *carried,
        ]
        sql = f"SELECT {', '.join(selected)} FROM (FROM {self.relation}) AS candidates"
        if windows and sent_at:
            sql += (
                f" LEFT JOIN (SELECT oa_id AS esms_oa_id, since AS esms_since"
                f" FROM {windows}) AS esms_window ON esms_oa_id = {oa_id}"
                f" WHERE esms_since IS NULL OR {sent_at} >= esms_since"
                f" OR {sent_at} IS NULL"
            )
        return sql

    def _oa_id(self, default: str | None) -> str:
        """Return the SQL of a row's OA, null where it has none."""
        fallback = text_literal(default) if default else "NULL::VARCHAR"
        if not self.columns.oa_id:
            return fallback
        return f"coalesce(nullif({self._text(self.columns.oa_id)}, ''), {fallback})"

    def _ref_id(self) -> str:
        """Return the SQL of a row's RefId; stripping is dear, and most are plain."""
        name = self.columns.ref_id
        column, stripped = quote_name(name), self._text(name)
        if self.types[name] != "VARCHAR":
            return stripped
        plain = f"regexp_full_match({column}, '[!-~]+')"
        return f"CASE WHEN {plain} THEN {column} ELSE {stripped} END"

    def _text(self, name: str) -> str:
        column = quote_name(name)
        text = f"CAST({column} AS VARCHAR)"
        if self.types[name].startswith(FRACTIONAL):
            whole = f"CAST(TRY_CAST({column} AS HUGEINT) AS VARCHAR)"
            text = f"CASE WHEN {column} = trunc({column}) THEN {whole} ELSE {text} END"
        return f"trim(coalesce({text}, ''), {text_literal(BLANKS)})"

    def _moment(self, name: str) -> str:
        is_text = self.types[name] == "VARCHAR"
        column = self._text(name) if is_text else quote_name(name)
        moment = f"TRY_CAST({column} AS TIMESTAMPTZ)"
        if is_text:
            formats = ", ".join(text_literal(form) for form in DAY_FIRST)
            day_first = f"TRY_CAST(try_strptime({column}, [{formats}]) AS TIMESTAMPTZ)"
            moment = f"coalesce({moment}, {day_first})"
        return f"CASE WHEN isfinite({moment}) THEN {moment} END"

    def _carried(self, name: str) -> str:
        column, kind = quote_name(name), self.types[name]
        if kind.startswith("TIMESTAMP"):
            return f"CAST({column} AS TIMESTAMPTZ)"
        if kind.startswith(CARRIED_AS_THEY_ARE) and not kind.endswith("]"):
            return column
        return f"CAST({column} AS VARCHAR)"


@dataclass(frozen=True)
class Skipped:
    """Rows of the warehouse that were read and can't be asked."""

    no_ref_id: int = 0
    no_oa_id: int = 0
    no_sent_at: int = 0

    @property
    def total(self) -> int:
        """Return how many there were."""
        return self.no_ref_id + self.no_oa_id + self.no_sent_at

    def remedies(self) -> list[str]:
        """Return a line for each kind that there is, with what to do."""
        kinds = (
            (self.no_ref_id, "no RefId", "fill ref_ids.ref_id_column"),
            (self.no_oa_id, "no OA", "set oa_id or fill ref_ids.oa_id_column"),
            (self.no_sent_at, "no sent_at", "fill ref_ids.sent_at_column"),
        )
        return [
            f"{count} {'row has' if count == 1 else 'rows have'} {what}"
            f" and {'is' if count == 1 else 'are'} not asked; {remedy}"
            for count, what, remedy in kinds
            if count
        ]


def count_skipped(scratch: Scratch, *, timed: bool) -> Skipped:
    """Count what can't be asked of the rows in ``plan.main.candidates``.

    Args:
        scratch: Where they are.
        timed: Whether they must have a ``sent_at``.
    """
    row = scratch.rows(
        "SELECT count(*) FILTER (ref_id = ''),"
        " count(*) FILTER (ref_id <> '' AND oa_id IS NULL),"
        " count(*) FILTER (ref_id <> '' AND oa_id IS NOT NULL"
        " AND sent_at IS NULL AND ?) FROM plan.main.candidates",
        [timed],
    )[0]
    return Skipped(*row)


def match(name: str | None, present: list[str]) -> str | None:
    """Find a column to the letter, else in another letter case."""
    if name is None or name in present:
        return name
    matches = [column for column in present if column.lower() == name.lower()]
    return matches[0] if len(matches) == 1 else None
