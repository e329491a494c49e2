"""The candidates: read from the warehouse or what is given, counted, made unique."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from esms_source.databases import ReadError, cause_of, explain
from esms_source.exceptions import RefIdTableError
from esms_source.planning.candidates import Columns
from esms_source.planning.given_rows import row_candidates
from esms_source.planning.known import EPOCH, Ledger
from esms_source.planning.skipped import Skipped, example
from esms_source.planning.warehouse import table_candidates
from esms_source.sql import moment_literal, quote_name, text_literal
from esms_source.tables import VARIANT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esms_source.config import Settings
    from esms_source.planning.candidates import Candidates
    from esms_source.planning.given_rows import RefIds
    from esms_source.planning.scratch import Scratch

UNREADABLE: Final = (
    "the warehouse table can't be read",
    "correct [sources.esms.ref_ids]",
)

KEYS_PER_MB: Final = 10_000
"""Keys that are compared at once, per MB of planning's memory."""

DOUBLES_PER_MB: Final = 1_000
"""The same of keys that came twice, whose rows are compared."""

YEAR: Final = timedelta(days=366)

CLOCKS: Final = timedelta(minutes=10)
"""By what the warehouse's clock may be ahead of ours."""

OWN: Final = ("oa_id", "ref_id", "sent_at", "esms_key")
"""Columns of the candidates that aren't carried."""

IN_WINDOWS: Final = """
    LEFT JOIN plan.main.oas AS esms_oas ON esms_oas.oa_id = timed.oa_id
    WHERE esms_oas.since IS NULL OR timed.sent_at IS NULL
        OR timed.sent_at >= esms_oas.since"""

AT_HAND: Final = "SELECT ref_id FROM plan.main.candidates WHERE esms_key IS NOT NULL"


class Reading:
    """Reads candidates into ``plan.main.candidates``, and what is asked for by name.

    Args:
        scratch: Where they are read to.
        settings: Where they are.
        ledger: What is known.
        as_of: When the run began, in UTC.

    Attributes:
        skipped: What was read and isn't asked.
        is_whole: Whether the whole warehouse table was read.
    """

    def __init__(
        self, scratch: Scratch, settings: Settings, ledger: Ledger, as_of: datetime
    ) -> None:
        self.skipped = Skipped()
        self.is_whole = False
        self._scratch, self._settings = scratch, settings
        self._ledger, self._as_of = ledger, as_of
        self._requested: Candidates | None = None
        self._types: dict[str, str] = {}  # of the carried columns, once they are known
        scratch.execute(
            "CREATE TABLE plan.main.candidates (oa_id VARCHAR, ref_id VARCHAR,"
            " sent_at TIMESTAMPTZ, esms_key UBIGINT)"
        )

    @property
    def has_ledger(self) -> bool:
        """Tell whether there is a ledger."""
        return self._ledger.is_there

    def request(self, only: RefIds) -> None:
        """Read which RefIds are asked for by name."""
        found = row_candidates(self._settings, self._scratch, only, "named")
        self._requested = found
        columns = Columns(found.columns.ref_id, found.columns.oa_id, None, {})
        self._step(replace(found, columns=columns), "TABLE plan.main.requested", None)

    def read_rows(self, ref_ids: RefIds) -> None:
        """Read candidates that are given in place of the warehouse table."""
        found = row_candidates(self._settings, self._scratch, ref_ids, "given")
        self._step(found, "TABLE plan.main.candidates", self._settings.oa_id)
        self.count(found, "candidates", are_asked=True)

    def read_table(self, *, whole: bool, kind: str = "TABLE") -> Candidates:
        """Read candidates of the warehouse table.

        Args:
            whole: Whether all of them are compared, not only what is in its window.
            kind: Whether they are copied into a TABLE or shown as a VIEW.
        """
        settings = self._settings
        whole = whole or self._requested is not None or not self._ledger.is_there
        whole = whole or settings.ref_ids.sent_at_column is None
        windows = {} if whole else self._ledger.windows()
        found = table_candidates(settings, self._scratch, windows)
        chosen = "true" if self._requested is None else among("requested")
        self.is_whole = whole
        if kind == "VIEW":
            self._scratch.execute("DROP TABLE plan.main.candidates")
        self._step(
            found,
            f"{kind} plan.main.candidates",
            settings.oa_id,
            windows="" if whole else IN_WINDOWS,
            untimed=str(whole),
            chosen=chosen,
        )
        if kind == "TABLE":
            self.count(found, "candidates", are_asked=whole)
        return found

    def read_keys(self) -> None:
        """Read which of all these the ledger has."""
        named = " UNION SELECT ref_id FROM plan.main.requested"
        self._ledger.read_keys(AT_HAND + (named if self._requested else ""))

    def add_requested(self) -> None:
        """Add RefIds asked for by name that neither warehouse nor ledger has."""
        scratch, found = self._scratch, self._requested
        if found is None:
            return
        types = scratch.types("plan.main.candidates")
        self._types = {name: kind for name, kind in types.items() if name not in OWN}
        own = "work.esms_own_oa_id"
        self._step(
            found,
            "TABLE plan.main.leftovers",
            self._settings.oa_id,
            chosen=" AND ".join(
                f"NOT {among(table, own)}" for table in ("candidates", "ledger_keys")
            ),
        )
        self.count(found, "leftovers", are_asked=True)
        present = scratch.types("plan.main.candidates")
        for name, kind in scratch.types("plan.main.leftovers").items():
            if name not in present:
                column = f"{quote_name(name)} {kind}"
                scratch.execute(f"ALTER TABLE plan.main.candidates ADD COLUMN {column}")
        scratch.execute(
            "INSERT INTO plan.main.candidates BY NAME FROM plan.main.leftovers"
        )

    def keep_new(self) -> None:
        """Drop the candidates that the ledger has, in bounded memory."""
        scratch = self._scratch
        if not self._ledger.is_there:
            return
        scratch.execute("CREATE TABLE plan.main.known (row BIGINT)")
        scratch.step("known", {})
        ((last,),) = scratch.rows("SELECT coalesce(max(row), -1) FROM plan.main.known")
        size = KEYS_PER_MB * scratch.memory_mb
        for first in range(0, last + 1, size):
            scratch.step("new", {"first": first, "last": first + size - 1})
        self._ledger.drop_forgotten()

    def keep_one_of_each(self) -> None:
        """Keep the earliest candidate of each OA and RefId, in bounded memory."""
        scratch = self._scratch
        scratch.execute("CREATE TABLE plan.main.doubled (esms_key UBIGINT)")
        for step, table, per_mb in (
            ("doubled", "candidates", KEYS_PER_MB),
            ("single", "doubled", DOUBLES_PER_MB),
        ):
            ((count,),) = scratch.rows(f"SELECT count(esms_key) FROM plan.main.{table}")
            parts = -(-count // (per_mb * scratch.memory_mb))
            for part in range(parts):
                scratch.step(step, {"parts": parts, "part": part})

    def unused(self) -> str:
        """Return the columns of the candidates that don't go into the work list."""
        unused = ["esms_key"]
        for name in self._scratch.types("plan.main.candidates"):
            if name.endswith(VARIANT) and name not in self._ledger.carried:
                column = quote_name(name)
                sql = f"SELECT count({column}) FROM plan.main.candidates"
                if not self._scratch.rows(sql)[0][0]:
                    unused.append(column)
        return ", ".join(unused)

    def _step(
        self,
        found: Candidates,
        target: str,
        default_oa_id: str | None,
        **values: str,
    ) -> None:
        """Select candidates into a table or view, in the types that the others have."""
        read = found.expressions(default_oa_id, self._types | self._ledger.carried)
        given: Mapping[str, str] = {
            **read,
            "ref_id": self._ledger.storable_ref_id(read["ref_id"], read["own_oa_id"]),
            "latest": moment_literal(self._as_of + YEAR),
            "windows": "",
            "untimed": "true",
            "chosen": "true",
            **values,
        }
        try:
            self._scratch.step("candidates", given, f"CREATE OR REPLACE {target} AS")
        except ReadError as exc:
            raise explain(exc, *UNREADABLE, RefIdTableError) from cause_of(exc)

    def count(self, found: Candidates, table: str, *, are_asked: bool) -> None:
        """Count what can't be asked, with an example of each kind."""
        timed = found.columns.sent_at is not None
        kinds = kinds_of_skipped(timed=timed)
        counts = ", ".join(f"count(*) FILTER ({sql})" for sql in kinds.values())
        ((rows, newest, *found_of),) = self._scratch.rows(
            f"SELECT count(*), epoch_us(max(sent_at)), {counts} FROM plan.main.{table}"
        )
        counted = dict(zip(kinds, found_of, strict=True))
        examples = {
            kind: self._example(found, table, kind, kinds[kind])
            for kind, count in counted.items()
            if count
        }
        before = self.skipped
        at = None if newest is None else EPOCH + timedelta(microseconds=newest)
        self.skipped = replace(
            before,
            rows=before.rows + rows,
            are_asked=are_asked,
            examples=tuple({**examples, **dict(before.examples)}.items()),
            in_future=at if at and at > self._as_of + CLOCKS else before.in_future,
            **{kind: getattr(before, kind) + n for kind, n in counted.items()},
        )

    def _example(self, found: Candidates, table: str, kind: str, condition: str) -> str:
        sent_at = "CAST(sent_at AS VARCHAR)"
        name = found.columns.sent_at
        if kind == "unreadable" and name:
            latest = moment_literal(self._as_of + YEAR)
            sql = (
                f"SELECT left(CAST({quote_name(name)} AS VARCHAR), 60)"
                f" FROM (FROM {found.relation}) AS warehouse"
                f" WHERE {quote_name(name)} IS NOT NULL AND NOT coalesce("
                f"{found.moment(name)} BETWEEN TIMESTAMPTZ '2000-01-01 00:00:00+00'"
                f" AND {latest}, false) LIMIT 1"
            )
            if rows := self._scratch.rows(sql):
                return example(None, None, rows[0][0])
        sql = f"SELECT ref_id, oa_id, {sent_at} FROM plan.main.{table}"
        return example(*self._scratch.rows(f"{sql} WHERE {condition} LIMIT 1")[0])


def kinds_of_skipped(*, timed: bool) -> dict[str, str]:
    """Return the SQL condition of each kind of row that isn't asked, by its name.

    Args:
        timed: Whether rows should have a ``sent_at``.
    """
    return {
        "no_ref_id": "ref_id = ''",
        "no_oa_id": "ref_id <> '' AND oa_id IS NULL",
        "unreadable": (
            f"ref_id <> '' AND oa_id IS NOT NULL AND sent_at IS NULL AND {timed}"
        ),
    }


def among(table: str, oa_id: str = "work.oa_id") -> str:
    """Return SQL that tells whether a row of ``work`` is in another table.

    Where one of both names no OA, the RefId decides.
    """
    return (
        f"EXISTS (FROM plan.main.{table} AS other WHERE other.ref_id = work.ref_id"
        f" AND coalesce(other.oa_id = {oa_id}, true))"
    )


def with_default(oa_id: str | None) -> str:
    """Return the SQL of a requested row's OA, where the settings may name one."""
    return f"coalesce(oa_id, {text_literal(oa_id)})" if oa_id else "oa_id"
