"""A person taken out of every table; the ledger keeps that it must not ask again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from esms_source.cli.editing import editing
from esms_source.databases import (
    Patience,
    columns_of,
    execute,
    quoted_column,
)
from esms_source.exceptions import ConfigError, DestinationError
from esms_source.keeping import is_lake
from esms_source.ledger import FORGOTTEN, forgotten_key
from esms_source.load.destination import SHARED_STAGING
from esms_source.load.locks import dataset_lock
from esms_source.planning.planner import Choice, make_plan
from esms_source.privacy import Privacy
from esms_source.runtime import Clock
from esms_source.sql import text_list, text_literal
from esms_source.tables import (
    API_REQUESTS,
    CALLBACKS,
    REF_IDS,
    REJECTED_ROWS,
    SENT_MESSAGES,
    STATES,
    TABLES,
    is_carried,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.planning.given_rows import RefIds

LEAST_DIGITS: Final = 9
"""Digits of a phone that tell it from others, whether 0 or 84 stands before them."""

AT_ONCE: Final = 500
"""RefIds of one statement."""

Pair = tuple[str, str]
"""An OA and a RefId."""


def forget(
    pipeline: dlt.Pipeline,
    settings: Settings,
    phone: str | None = None,
    ref_ids: RefIds | None = None,
) -> dict[str, int]:
    """Take a person out of all tables.

    The rows of callbacks, rejected rows and sent messages go. A row of the ledger
    stays, with a digest for its RefId and without carried columns, so that nobody asks
    for it again.

    Args:
        pipeline: Where the tables are.
        settings: How phones are hidden.
        phone: The person's, with 0, 84 or +84 in front.
        ref_ids: The person's messages.

    Returns:
        How many rows were taken out or changed, by table.

    Raises:
        ConfigError: The phone is none.
        DestinationError: The tables are files.
    """
    if is_lake(pipeline):
        fact = "a lake keeps files, in which esms deletes no rows"
        remedy = "delete them from all its tables with a tool for such files"
        raise DestinationError(fact, remedy)
    patience = Patience()
    with editing(pipeline, settings) as own:
        pairs = set() if ref_ids is None else _named(own, settings, ref_ids)
        with dataset_lock(own, patience), own.sql_client() as client:
            return _Forgetting(client, settings, phone).forget(pairs)


def _named(pipeline: dlt.Pipeline, settings: Settings, ref_ids: RefIds) -> set[Pair]:
    """Return those RefIds that the ledger has, whatever their state."""
    choice = Choice(only=ref_ids, repoll=STATES)
    plan = make_plan(pipeline, settings, choice, Clock().started_at)
    try:
        return {
            pair
            for page in plan.pages()
            for pair in zip(
                page["oa_id"].to_pylist(), page["ref_id"].to_pylist(), strict=True
            )
        }
    finally:
        plan.close()


class _Forgetting:
    """The statements, for one person."""

    def __init__(
        self, client: SqlClientBase[Any], settings: Settings, phone: str | None
    ) -> None:
        self._client = client
        digits = None if phone is None else re.sub(r"\D", "", phone)
        if digits is not None and len(digits) < LEAST_DIGITS:
            fact = f"a phone of fewer than {LEAST_DIGITS} digits"
            raise ConfigError(fact, "give all of it")
        self._tail = digits and digits[-LEAST_DIGITS:]
        self._phones: list[str] = []
        if self._tail:
            forms = [prefix + self._tail for prefix in ("0", "84", "+84", "")]
            self._phones = forms + Privacy(settings).hashes(forms)

    def forget(self, pairs: set[Pair]) -> dict[str, int]:
        """Do it; return the rows by table."""
        counts = dict.fromkeys(
            (t.name for t in (REF_IDS, CALLBACKS, REJECTED_ROWS, SENT_MESSAGES)), 0
        )
        if self._tail:
            pairs = pairs | self._of_phone()
            of_phone = f"phone_number IN ({text_list(self._phones)})"
            counts[SENT_MESSAGES.name] += self._delete(SENT_MESSAGES.name, of_phone)
            counts[REJECTED_ROWS.name] += self._delete(
                REJECTED_ROWS.name, self._mentions("row")
            )
        for oa_id, ref_ids in _by_oa(pairs):
            named = f"ref_id IN ({text_list(ref_ids)})"
            of_oa = f"oa_id = {text_literal(oa_id)} AND {named}"
            counts[CALLBACKS.name] += self._delete(CALLBACKS.name, of_oa)
            counts[SENT_MESSAGES.name] += self._delete(SENT_MESSAGES.name, named)
            for ref_id in ref_ids:
                in_row = f"{self._text('row')} LIKE {text_literal(f'%{ref_id}%')}"
                counts[REJECTED_ROWS.name] += self._delete(REJECTED_ROWS.name, in_row)
                counts[REF_IDS.name] += self._hide(oa_id, ref_id)
        if self._tail:
            counts[CALLBACKS.name] += self._blank()
        self._empty_staging()
        return counts

    def _of_phone(self) -> set[Pair]:
        """Return the RefIds of a phone: by its callbacks, or as they end in it."""
        found: set[Pair] = set()
        for table, condition in (
            (CALLBACKS.name, f"phone_number IN ({text_list(self._phones)})"),
            (REF_IDS.name, f"ref_id LIKE {text_literal(f'%{self._tail}%')}"),
        ):
            if self._has(table):
                rows = execute(
                    self._client,
                    f"SELECT DISTINCT oa_id, ref_id FROM {self._name(table)}"
                    f" WHERE {condition}",
                )
                found |= {(row[0], row[1]) for row in rows or ()}
        return found

    def _hide(self, oa_id: str, ref_id: str) -> int:
        """Replace the key of a row of the ledger, and all that was carried."""
        columns = columns_of(self._client, REF_IDS.name) or ()
        carried = filter(is_carried, columns)
        blanks = "".join(
            f", {quoted_column(self._client, name)} = NULL" for name in carried
        )
        where = f"oa_id = {text_literal(oa_id)} AND ref_id = {text_literal(ref_id)}"
        count = self._count(REF_IDS.name, where)
        key = text_literal(forgotten_key(oa_id, ref_id))
        execute(
            self._client,
            f"UPDATE {self._name(REF_IDS.name)} SET ref_id = {key}, state = 'expired',"
            f" next_poll_at = NULL, last_error = {text_literal(FORGOTTEN)}{blanks}"
            f" WHERE {where}",
        )
        return count

    def _blank(self) -> int:
        """Take a phone out of what other messages say beside their columns."""
        changed = 0
        for table, columns in (
            (CALLBACKS.name, ("extra", "error_data", "error_info", "error_detail")),
            (CALLBACKS.name, ("error_message", "request_id")),
            (API_REQUESTS.name, ("api_message",)),
            (SENT_MESSAGES.name, ("extra", "campaign")),
        ):
            for column in columns if self._has(table) else ():
                condition = self._mentions(column)
                changed += self._count(table, condition) * (table == CALLBACKS.name)
                execute(
                    self._client,
                    f"UPDATE {self._name(table)} SET {column} = NULL WHERE {condition}",
                )
        return changed

    def _empty_staging(self) -> None:
        """Empty dlt's staging tables: they hold the last load."""
        client = self._client
        shared = SHARED_STAGING % client.dataset_name
        for dataset in {client.staging_dataset_name, shared}:
            with client.with_alternative_dataset_name(dataset):
                for table in TABLES:
                    if self._has(table.name):
                        execute(client, f"DELETE FROM {self._name(table.name)}")

    def _delete(self, table: str, condition: str) -> int:
        if not self._has(table):
            return 0
        count = self._count(table, condition)
        if count:
            execute(self._client, f"DELETE FROM {self._name(table)} WHERE {condition}")
        return count

    def _count(self, table: str, condition: str) -> int:
        sql = f"SELECT count(*) FROM {self._name(table)} WHERE {condition}"
        rows = execute(self._client, sql)
        return int(rows[0][0]) if rows else 0

    def _mentions(self, column: str) -> str:
        return f"{self._text(column)} LIKE {text_literal(f'%{self._tail}%')}"

    def _text(self, name: str) -> str:
        return f"CAST({quoted_column(self._client, name)} AS VARCHAR)"

    def _has(self, table: str) -> bool:
        return columns_of(self._client, table) is not None

    def _name(self, table: str) -> str:
        return self._client.make_qualified_table_name(table)


def _by_oa(pairs: Iterable[Pair]) -> Iterable[tuple[str, Sequence[str]]]:
    ordered = sorted(pairs)
    for oa_id in dict.fromkeys(oa_id for oa_id, _ in ordered):
        ref_ids = [ref_id for oa, ref_id in ordered if oa == oa_id]
        for start in range(0, len(ref_ids), AT_ONCE):
            yield oa_id, ref_ids[start : start + AT_ONCE]
