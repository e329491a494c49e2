"""What the ledger knows: its due rows, its OAs, and which RefIds it has."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from esms_source.databases import ReadError, cause_of, explain
from esms_source.databases.alchemy import longest_ids
from esms_source.keeping import KEYS, is_lake, show
from esms_source.ledger import FORGOTTEN, WORK, due_condition, forgotten_key_sql
from esms_source.planning.database import Database
from esms_source.sql import moment_literal, text_list, text_literal
from esms_source.tables import ANSWERED_BY_LOAD, LOADS, REF_IDS, SETTLED, is_carried

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dlt

    from esms_source.config import Settings
    from esms_source.planning.scratch import Scratch

UNREADABLE: Final = (
    "the ledger can't be read",
    "check the destination and its grants",
)
OAS: Final = (
    "oa_id VARCHAR, newest TIMESTAMPTZ, known BIGINT, settled BIGINT, forgotten BIGINT,"
    " since TIMESTAMPTZ"
)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Ledger:
    """The ledger, shown to the scratch database as far as planning needs it.

    It fills ``plan.main.ledger`` with the rows that may be asked, ``completed`` with
    the loads that are complete, ``oas`` with each OA's counts and the moment from which
    on its rows are read, and ``ledger_keys``.

    Attributes:
        is_there: Whether there is one.
        carried: Its carried columns, with their types in DuckDB.
        longest_ids: How many characters of an id it takes, where that is bounded.
        has_forgotten: Whether it has keys of forgotten RefIds, in ``forgotten``.
    """

    def __init__(self, scratch: Scratch) -> None:
        self.is_there = self.has_forgotten = False
        self.longest_ids: dict[str, int] = {}
        self.carried: dict[str, str] = {}
        self._scratch = scratch
        self._database: Database | None = None
        self._name = ""
        self._is_lake = False
        scratch.connection.register("work", WORK.empty_table())
        scratch.execute(
            "CREATE TABLE plan.main.ledger AS"
            " SELECT *, CAST(NULL AS VARCHAR) AS load_id FROM work"
        )
        scratch.connection.unregister("work")
        for table, columns in (
            ("ledger_keys", "oa_id VARCHAR, ref_id VARCHAR"),
            ("completed", "load_id VARCHAR"),
            ("oas", OAS),
        ):
            scratch.execute(f"CREATE TABLE plan.main.{table} ({columns})")

    def read(
        self,
        pipeline: dlt.Pipeline,
        settings: Settings,
        as_of: datetime,
        repolled: Sequence[str],
    ) -> None:
        """Take over what is due, and what is known of each OA.

        Args:
            pipeline: Its destination holds the ledger.
            settings: The longest wait, and ``lag``.
            as_of: When the run began, in UTC.
            repolled: Conditions of what is asked again, in place of what is due.

        Raises:
            DestinationError: The ledger can't be read.
        """
        try:
            database = self._open(pipeline)
            self._name = database.name_of(REF_IDS.name)
            present = database.columns(self._name)
            if present is None:
                return
            loads = database.name_of(LOADS)
            completed = f"SELECT load_id FROM {loads} WHERE status = 0"
            database.copy(completed, "completed")
            # Of a lake only rows of completed loads are shown.
            lost = [] if self._is_lake else self._lost(database, completed)
            condition = " AND ".join(repolled) or due_condition(
                as_of, settings.repoll_max, lost
            )
            # Nobody asks for a digest.
            known = f"coalesce(last_error, '') <> {text_literal(FORGOTTEN)}"
            self._copy_due(database, present, f"({condition}) AND {known}")
            database.copy(self._oas(as_of), "oas")
            self._copy_forgotten(database)
        except ReadError as exc:
            raise explain(exc, *UNREADABLE) from cause_of(exc)
        self._database, self.is_there = database, True
        self._scratch.execute("ALTER TABLE plan.main.oas ADD COLUMN since TIMESTAMPTZ")
        self._scratch.execute(
            "UPDATE plan.main.oas SET since = newest - to_microseconds(?)",
            [int(settings.ref_ids.lag * 1_000_000)],
        )

    def _lost(self, database: Database, completed: str) -> list[str]:
        """Return the loads that left rows behind and never completed."""
        sql = f"SELECT DISTINCT load_id FROM {self._name}"
        return [
            row[0] for row in database.rows(f"{sql} WHERE load_id NOT IN ({completed})")
        ]

    def _open(self, pipeline: dlt.Pipeline) -> Database:
        client, shown = pipeline.sql_client(), None
        schema = client.dataset_name
        self.longest_ids = longest_ids(client)
        self._is_lake = is_lake(pipeline)
        if self._is_lake:
            shown, schema = show(pipeline, self._scratch.connection)
        return Database(client, self._scratch, schema, is_ours=True, shown=shown)

    def storable_ref_id(self, ref_id: str, oa_id: str) -> str:
        """Return a RefId's SQL, '' where the destination can't store it or its OA."""
        if not self.longest_ids:
            return ref_id
        longest = self.longest_ids
        fits = f"length({ref_id}) <= {longest['ref_id']}"
        oa_fits = f"coalesce(length({oa_id}), 0) <= {longest['oa_id']}"
        return f"CASE WHEN {fits} AND {oa_fits} THEN {ref_id} ELSE '' END"

    def windows(self) -> dict[str, datetime]:
        """Return from when on rows of each OA are read."""
        rows = self._scratch.rows(
            "SELECT oa_id, epoch_us(since) FROM plan.main.oas WHERE since IS NOT NULL"
        )
        return {oa_id: EPOCH + timedelta(microseconds=at) for oa_id, at in rows}

    def read_keys(self, at_hand: str) -> None:
        """Take over which of the RefIds at hand the ledger has.

        Args:
            at_hand: A query for them.

        Raises:
            DestinationError: The ledger can't be read.
        """
        database = self._database
        if database is None:
            return
        keys = database.name_of(KEYS) if self._is_lake else self._name
        sql = f"SELECT oa_id, ref_id FROM {keys}"
        if database.is_remote:
            # Few keys are looked up; where there are many, all are copied faster.
            most = database.in_list
            rows = self._scratch.rows(f"{at_hand} LIMIT {most + 1}")
            if len(rows) <= most:
                ref_ids = [row[0] for row in rows] or [""]
                sql += f" WHERE ref_id IN ({text_list(ref_ids)})"
        try:
            database.show(sql, "ledger_keys")
        except ReadError as exc:
            raise explain(exc, *UNREADABLE) from cause_of(exc)

    def _copy_due(
        self, database: Database, present: Sequence[str], condition: str
    ) -> None:
        known = {name.lower() for name in present}
        # A ledger of version 0.1 lacks some of them.
        fixed = (*WORK.names, "load_id", ANSWERED_BY_LOAD)
        names = [name for name in fixed if name in known]
        carried = [name for name in present if is_carried(name)]
        columns = ", ".join([*names, *map(database.quote, carried)])
        database.copy(f"SELECT {columns} FROM {self._name} WHERE {condition}", "copied")
        self._scratch.execute(
            "CREATE OR REPLACE TABLE plan.main.ledger AS FROM plan.main.ledger"
            " UNION ALL BY NAME FROM plan.main.copied"
        )
        types = self._scratch.types("plan.main.copied")
        self._scratch.execute("DROP TABLE plan.main.copied")
        self.carried = {name: kind for name, kind in types.items() if is_carried(name)}

    def _copy_forgotten(self, database: Database) -> None:
        """Take over the keys of RefIds that must not be asked, where there are any."""
        ((count,),) = self._scratch.rows("SELECT sum(forgotten) FROM plan.main.oas")
        if count:
            condition = f"last_error = {text_literal(FORGOTTEN)}"
            sql = f"SELECT ref_id FROM {self._name} WHERE {condition}"
            database.copy(sql, "forgotten")
            self.has_forgotten = True

    @property
    def forgotten(self) -> str:
        """The SQL condition of candidates that must not be asked."""
        if not self.has_forgotten:
            return "false"
        return f"coalesce({forgotten_key_sql()} IN (FROM plan.main.forgotten), false)"

    def drop_forgotten(self) -> None:
        """Delete from the candidates what must not be asked."""
        if self.has_forgotten:
            self._scratch.execute(
                f"DELETE FROM plan.main.candidates WHERE {self.forgotten}"
            )

    def _oas(self, as_of: datetime) -> str:
        """Return SQL on each OA: its newest RefId read in order, and counts."""
        latest = moment_literal(as_of)
        in_order = f"(chosen IS NULL OR NOT chosen) AND sent_at <= {latest}"
        return (
            f"SELECT oa_id, max(CASE WHEN {in_order} THEN sent_at END) AS newest,"
            " count(*) AS known, sum(CASE WHEN state IN"
            f" ({text_list(SETTLED)}) THEN 1 ELSE 0 END) AS settled,"
            f" sum(CASE WHEN last_error = {text_literal(FORGOTTEN)} THEN 1 ELSE 0 END)"
            " AS forgotten"
            f" FROM {self._name} GROUP BY oa_id"
        )
