"""The work list of a run: what is due, then what is new, in slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from esms_source.databases import ReadError, cause_of, explain
from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.ledger import WORK, due_condition
from esms_source.planning.candidates import Skipped, count_skipped
from esms_source.planning.database import Database
from esms_source.planning.given_rows import row_candidates
from esms_source.planning.scratch import Scratch
from esms_source.planning.warehouse import open_client, table_candidates
from esms_source.planning.work_list import OaPlan, Plan, work_in
from esms_source.runtime import ScratchFolder
from esms_source.sql import moment_literal, quote_name, text_list
from esms_source.tables import LOADS, REF_IDS, SETTLED, STATES, is_carried

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import dlt

    from esms_source.config import Settings
    from esms_source.planning.candidates import Candidates
    from esms_source.planning.given_rows import RefIds

UNREADABLE_LEDGER: Final = (
    "the ledger can't be read",
    "check the destination and its grants",
)
UNREADABLE_TABLE: Final = (
    "the warehouse table can't be read",
    "correct [sources.esms.ref_ids]",
)


@dataclass(frozen=True)
class Choice:
    """What a run is limited to; nothing that it leaves out is forgotten.

    Attributes:
        oa_ids: Only these OAs; all when empty.
        only: Only these RefIds, in any form that ``ref_ids`` takes.
        repoll: Ask RefIds of the ledger in these states again, due or not,
            and nothing else.
        since: With repoll, from this ``sent_at`` on.
        until: With repoll, before this ``sent_at``.
        max_ref_ids: At most so many, oldest first.
    """

    oa_ids: Sequence[str] = ()
    only: RefIds | None = None
    repoll: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    max_ref_ids: int | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name in ("oa_ids", "repoll"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name}: not a list", "give a list of strings")
        unknown = sorted(set(self.repoll) - set(STATES))
        if unknown:
            fact = f"repoll: there is no state {unknown[0]!r}"
            raise ConfigError(fact, f"use {', '.join(STATES)}")
        if (self.since or self.until) and not self.repoll:
            raise ConfigError("since and until go with repoll", "name the states")
        if self.max_ref_ids is not None and self.max_ref_ids < 0:
            raise ConfigError("max_ref_ids: below 0", "give a number of RefIds")


def make_plan(
    pipeline: dlt.Pipeline,
    settings: Settings,
    choice: Choice,
    as_of: datetime,
    ref_ids: RefIds | None = None,
) -> Plan:
    """Find out what is to be asked; no connection is open afterwards.

    Args:
        pipeline: Its destination holds the ledger.
        settings: Where the RefIds are.
        choice: What the run is limited to.
        as_of: When the run began, in UTC.
        ref_ids: Rows to read in place of the warehouse table.

    Raises:
        ConfigError: A setting is missing or wrong.
        RefIdTableError: The warehouse table can't be read.
        DestinationError: The ledger can't be read.
    """
    scratch = Scratch(settings.ref_ids.sent_at_timezone)
    try:
        planner = _Planner(scratch, settings, choice, as_of)
        planner.read_ledger(pipeline)
        if not choice.repoll:
            planner.read_candidates(ref_ids)
        return planner.finish()
    finally:
        scratch.close()


class _Planner:
    """The steps from ledger and warehouse to a work list."""

    def __init__(
        self, scratch: Scratch, settings: Settings, choice: Choice, as_of: datetime
    ) -> None:
        self._scratch = scratch
        self._settings = settings
        self._choice = choice
        self._as_of = as_of
        self._skipped = Skipped()
        self._ledger: Database | None = None
        scratch.connection.register("nothing", WORK.empty_table())
        scratch.execute("CREATE TABLE plan.main.due AS FROM nothing")
        scratch.connection.unregister("nothing")
        scratch.execute(
            "CREATE TABLE plan.main.new AS"
            " SELECT oa_id, ref_id, sent_at, chosen FROM plan.main.due"
        )
        scratch.execute(
            "CREATE TABLE plan.main.ledger_keys AS"
            " SELECT oa_id, ref_id FROM plan.main.due"
        )
        scratch.execute(
            "CREATE TABLE plan.main.oas (oa_id VARCHAR, newest TIMESTAMPTZ,"
            " known BIGINT, settled BIGINT, since TIMESTAMPTZ)"
        )
        if choice.only is not None:
            found = row_candidates(settings, scratch, choice.only)
            scratch.execute(f"CREATE TABLE plan.main.requested AS {found.select(None)}")

    def read_ledger(self, pipeline: dlt.Pipeline) -> None:
        """Take over what is due, and what is known of each OA."""
        try:
            client = pipeline.sql_client()
            database = Database(client, self._scratch, client.dataset_name)
            ref_ids = database.name_of(REF_IDS.name)
            present = database.columns(ref_ids)
            if present is None:
                return
            carried = [database.quote(name) for name in present if is_carried(name)]
            known = {name.lower() for name in present}
            columns = ", ".join(
                [
                    *(
                        name
                        if name in known
                        else f"CAST(NULL AS timestamptz) AS {name}"
                        for name in WORK.names
                    ),
                    *carried,
                ]
            )
            condition = self._due(database.name_of(LOADS))
            database.copy(f"SELECT {columns} FROM {ref_ids} WHERE {condition}", "due")
            database.copy(self._oas(ref_ids), "oas")
            self._ledger = database
        except ReadError as exc:
            raise explain(exc, *UNREADABLE_LEDGER) from cause_of(exc)
        self._scratch.execute("ALTER TABLE plan.main.oas ADD COLUMN since TIMESTAMPTZ")
        self._scratch.execute(
            "UPDATE plan.main.oas SET since = newest - to_microseconds(?)",
            [int(self._settings.ref_ids.lag * 1_000_000)],
        )

    def read_candidates(self, ref_ids: RefIds | None) -> None:
        """Take over what the warehouse has and the ledger doesn't know."""
        scratch, settings = self._scratch, self._settings
        only = self._choice.only is not None
        table = settings.ref_ids
        timed = False
        scratch.execute("CREATE TABLE plan.main.candidates AS FROM plan.main.new")
        if ref_ids is not None:
            timed = self._copy_candidates(
                row_candidates(settings, scratch, ref_ids), None
            )
        elif not only or table.table or table.query:
            windows = None if only else "plan.main.oas"
            found = table_candidates(settings, scratch, open_client(settings), windows)
            timed = self._copy_candidates(found, windows)
        self._read_ledger_keys()
        if only:
            self._keep_requested()
        self._skipped = count_skipped(scratch, timed=timed and not only)
        self._take_new(chosen=only or ref_ids is not None, timed=timed and not only)

    def finish(self) -> Plan:
        """Put what is due before what is new, each oldest first."""
        scratch = self._scratch
        oa_ids = text_list(self._choice.oa_ids)
        conditions = [f"oa_id IN ({oa_ids})"] if oa_ids else []
        if self._choice.only is not None:
            conditions.append(_among("requested", "work"))
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        most = self._choice.max_ref_ids
        scratch.execute(
            f"""
            CREATE VIEW plan.main.work AS
            SELECT * FROM (
                SELECT *, false AS is_new FROM plan.main.due
                UNION ALL BY NAME
                SELECT *, true AS is_new FROM plan.main.new
            ) AS work {where} ORDER BY is_new, sent_at NULLS FIRST, ref_id, oa_id
            {"" if most is None else f"LIMIT {most}"}
            """
        )
        folder = ScratchFolder()
        work = str(work_in(folder))
        scratch.write("SELECT * EXCLUDE (is_new) FROM plan.main.work", work)
        oas = self._oa_plans(work)
        total = sum(oa.new + oa.due for oa in oas)
        return Plan(total, self._skipped, oas, self._ledger is None, folder)

    def _oa_plans(self, work: str) -> tuple[OaPlan, ...]:
        rows = self._scratch.rows(
            """
            SELECT
                oa_id, coalesce(new, 0), coalesce(asked_again, 0),
                coalesce(settled, 0),
                greatest(coalesce(known - settled, 0) - coalesce(due, 0), 0)
            FROM plan.main.oas
            FULL JOIN (
                SELECT oa_id, count(*) AS due FROM plan.main.due GROUP BY oa_id
            ) USING (oa_id)
            FULL JOIN (
                SELECT
                    oa_id, count(*) FILTER (state IS NULL) AS new,
                    count(*) FILTER (state IS NOT NULL) AS asked_again
                FROM read_parquet(?) GROUP BY oa_id
            ) USING (oa_id)
            ORDER BY oa_id
            """,
            [work],
        )
        size = self._settings.batch_size
        return tuple(
            OaPlan(oa_id, new, due, settled, waiting, -(-(new + due) // size))
            for oa_id, new, due, settled, waiting in rows
        )

    def _due(self, loads: str) -> str:
        choice = self._choice
        if not choice.repoll:
            return due_condition(self._as_of, self._settings.repoll_max, loads)
        conditions = [f"state IN ({text_list(choice.repoll)})"]
        if choice.since:
            conditions.append(f"sent_at >= {moment_literal(choice.since)}")
        if choice.until:
            conditions.append(f"sent_at < {moment_literal(choice.until)}")
        return " AND ".join(conditions)

    def _oas(self, ref_ids: str) -> str:
        """Return SQL on each OA: its newest RefId read in order, and counts."""
        in_order = f"chosen IS NOT TRUE AND sent_at <= {moment_literal(self._as_of)}"
        return (
            f"SELECT oa_id, max(CASE WHEN {in_order} THEN sent_at END) AS newest,"
            " count(*) AS known, sum(CASE WHEN state IN"
            f" ({text_list(SETTLED)}) THEN 1 ELSE 0 END) AS settled"
            f" FROM {ref_ids} GROUP BY oa_id"
        )

    def _read_ledger_keys(self) -> None:
        """Take over which of the RefIds at hand the ledger has."""
        ledger = self._ledger
        if ledger is None:
            return
        sql = f"SELECT oa_id, ref_id FROM {ledger.name_of(REF_IDS.name)}"
        if ledger.is_remote:
            # Few keys are looked up; where there are many, all are copied faster.
            at_hand = self._at_hand(ledger.in_list + 1)
            if len(at_hand) <= ledger.in_list:
                sql += f" WHERE ref_id IN ({ledger.text_list(at_hand or [''])})"
        try:
            ledger.show(sql, "ledger_keys")
        except ReadError as exc:
            raise explain(exc, *UNREADABLE_LEDGER) from cause_of(exc)

    def _at_hand(self, limit: int) -> list[str]:
        sql = "SELECT ref_id FROM plan.main.candidates"
        if self._choice.only is not None:
            sql += " UNION SELECT ref_id FROM plan.main.requested"
        return [row[0] for row in self._scratch.rows(f"{sql} LIMIT {limit}")]

    def _copy_candidates(self, found: Candidates, windows: str | None) -> bool:
        """Copy the candidates; tell whether its rows must have a sent_at."""
        sql = found.select(self._settings.oa_id, windows)
        if self._choice.only is not None:
            sql = f"SELECT * FROM ({sql}) AS work WHERE {_among('requested', 'work')}"
        try:
            self._scratch.execute(
                f"CREATE OR REPLACE TABLE plan.main.candidates AS {sql}"
            )
        except ReadError as exc:
            raise explain(exc, *UNREADABLE_TABLE, RefIdTableError) from exc
        return found.columns.sent_at is not None

    def _keep_requested(self) -> None:
        """Add chosen RefIds that neither warehouse nor ledger has."""
        oa_id = self._settings.oa_id
        default = text_list([oa_id]) if oa_id else "NULL"
        self._scratch.execute(
            f"""
            CREATE OR REPLACE TABLE plan.main.candidates AS
            FROM plan.main.candidates
            UNION ALL BY NAME
            SELECT * REPLACE (coalesce(oa_id, {default}) AS oa_id)
            FROM plan.main.requested AS work
            WHERE NOT {_among("candidates", "work")}
            AND NOT {_among("ledger_keys", "work")}
            """
        )

    def _take_new(self, *, chosen: bool, timed: bool) -> None:
        """Keep what can be asked and isn't known, each RefId of an OA once."""
        scratch = self._scratch
        ledger, candidates = (
            scratch.types("plan.main.due"),
            scratch.types("plan.main.candidates"),
        )
        carried = [
            f"TRY_CAST({name} AS {ledger[column]}) AS {name}"
            if column in ledger
            else name
            for column in candidates
            if column not in ("oa_id", "ref_id", "sent_at", "chosen")
            for name in [quote_name(column)]
        ]
        columns = ", ".join(["oa_id", "ref_id", "sent_at", *carried])
        distinct = order = ""
        if self._has_duplicates():
            distinct = "DISTINCT ON (oa_id, ref_id)"
            order = "ORDER BY oa_id, ref_id, sent_at"
        scratch.execute("DROP TABLE plan.main.new")
        scratch.execute(
            f"""
            CREATE VIEW plan.main.new AS
            SELECT {distinct} {columns}, {chosen} AS chosen
            FROM plan.main.candidates
            ANTI JOIN plan.main.ledger_keys USING (oa_id, ref_id)
            WHERE ref_id <> '' AND oa_id IS NOT NULL
            AND (sent_at IS NOT NULL OR NOT {timed})
            {order}
            """
        )

    def _has_duplicates(self) -> bool:
        """Tell whether a RefId may come twice: to look is cheap, to sort is not."""
        sql = "GROUP BY hash(oa_id, ref_id) HAVING count(*) > 1 LIMIT 1"
        return bool(self._scratch.rows(f"SELECT 1 FROM plan.main.candidates {sql}"))


def _null(column: str) -> str:
    """Return SQL for a time that a ledger of version 0.1 doesn't have."""
    return f"CAST(NULL AS TIMESTAMP WITH TIME ZONE) AS {column}"


def _among(chosen: str, row: str) -> str:
    """Return SQL that tells whether a row is among others, by OA where they name it."""
    return (
        f"EXISTS (FROM plan.main.{chosen} AS chosen WHERE chosen.ref_id = {row}.ref_id"
        f" AND coalesce(chosen.oa_id = {row}.oa_id, true))"
    )
