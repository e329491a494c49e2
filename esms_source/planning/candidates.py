"""Rows that may be asked: how RefId, OA and time are read out of a user's columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esms_source.exceptions import RefIdTableError
from esms_source.planning.carried import carry
from esms_source.planning.moments import text_moment
from esms_source.sql import quote_name, text_literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esms_source.planning.scratch import Scratch

BLANKS: Final = " \t\r\n\v\f\u00a0\u200b\u3000\ufeff"

FLOATS: Final = {"FLOAT": 2**24, "DOUBLE": 2**53}
"""Numbers with a point, and up to where each whole number has one of its own."""

TIMES: Final = ("TIMESTAMP", "DATE")


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
        types: Their types where they come from, as DuckDB calls them.
        as_text: Whether their values have been copied as texts.
    """

    relation: str
    columns: Columns
    types: Mapping[str, str]
    as_text: bool = False

    def expressions(
        self, default_oa_id: str | None, ledger: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the SQL of what is read, by its place in ``plan.sql``.

        Args:
            default_oa_id: For rows that name no OA.
            ledger: The types of the carried columns that the ledger has.
        """
        columns = self.columns
        carried = [
            carry(
                alias, name, self.types[name], ledger.get(alias), as_text=self.as_text
            )
            for alias, name in columns.carried.items()
        ]
        oa_id = f"nullif({self._id(columns.oa_id)}, '')" if columns.oa_id else None
        moment = self.moment(columns.sent_at) if columns.sent_at else None
        return {
            "relation": self.relation,
            "own_oa_id": oa_id or "CAST(NULL AS VARCHAR)",
            "default_oa_id": text_literal(default_oa_id) if default_oa_id else "NULL",
            "ref_id": self._id(columns.ref_id),
            "moment": moment or "CAST(NULL AS TIMESTAMPTZ)",
            "carried": "".join(column.sql() for column in carried),
        }

    def refuse_rounded_ids(self, scratch: Scratch) -> None:
        """Refuse ids that a number with a point can't tell from their neighbours.

        Raises:
            RefIdTableError: A column holds such ids.
        """
        for name in (self.columns.ref_id, self.columns.oa_id):
            if name is None or self.types[name] not in FLOATS:
                continue
            number = f"abs({self._typed(name)})"
            sql = (
                f"SELECT max({number}) FILTER (isfinite({number}))"
                f" FROM (FROM {self.relation}) AS warehouse"
            )
            ((largest,),) = scratch.rows(sql)
            if (largest or 0) > FLOATS[self.types[name]]:
                raise rounded_ids(name)

    def moment(self, name: str) -> str:
        """Return the SQL of a row's time, null where it can't be read."""
        if not self.types[name].startswith(TIMES):
            return text_moment(self._text(name))
        column = quote_name(name)
        moment = f"TRY_CAST({column} AS TIMESTAMPTZ)"
        if not self.as_text:
            return moment
        # PostgreSQL writes some times as DuckDB reads none. DuckDB works out what
        # stands in a branch several times for all rows: a null costs it nothing.
        odd = f"(CASE WHEN {moment} IS NULL THEN {column} END)"
        return f"coalesce({moment}, {text_moment(odd)})"

    def _id(self, name: str) -> str:
        """Return the SQL of an id, '' where there is none or it can't be stored.

        Stripping is slow, and most ids need none.
        """
        column, text = quote_name(name), self._text(name)
        stripped = (
            f"CASE WHEN contains({text}, chr(0)) THEN '' ELSE"
            f" trim(coalesce({text}, ''), {text_literal(BLANKS)}) END"
        )
        if self.types[name] != "VARCHAR":
            return stripped
        # Its bytes are its characters, the first and the last no blank: four times as
        # fast as a pattern.
        plain = (
            f"strlen({column}) = length({column}) AND {column} >= '!'"
            f" AND {column}[-1] >= '!' AND NOT contains({column}, chr(0))"
        )
        return f"CASE WHEN {plain} THEN {column} ELSE {stripped} END"

    def _typed(self, name: str) -> str:
        column = quote_name(name)
        return f"TRY_CAST({column} AS {self.types[name]})" if self.as_text else column

    def _text(self, name: str) -> str:
        """Return the SQL of a value's text; a whole number has no point."""
        column, kind = quote_name(name), self.types[name]
        if kind == "VARCHAR":
            return column
        if kind == "JSON":
            return f"(TRY_CAST({column} AS JSON) ->> '$')"
        if kind in FLOATS or kind.startswith("DECIMAL"):
            value = self._typed(name)
            whole = f"CAST(TRY_CAST({value} AS HUGEINT) AS VARCHAR)"
            text = f"CAST({value} AS VARCHAR)"
            text = f"CASE WHEN {value} = trunc({value}) THEN {whole} ELSE {text} END"
            is_number = f"isfinite({value})" if kind in FLOATS else "true"
            return f"CASE WHEN {is_number} THEN {text} END"
        return f"CAST({column} AS VARCHAR)"


def rounded_ids(name: str) -> RefIdTableError:
    """Return the error of a column whose ids were rounded before they came here."""
    fact = f"the ids of column {name!r} are numbers with a point, which are rounded"
    return RefIdTableError(fact, "cast it to text or BIGINT where it is filled")


def match(name: str | None, present: list[str]) -> str | None:
    """Find a column to the letter, else in another letter case."""
    if name is None or name in present:
        return name
    matches = [column for column in present if column.lower() == name.lower()]
    return matches[0] if len(matches) == 1 else None
