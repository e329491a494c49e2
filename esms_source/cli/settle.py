"""RefIds that are never asked again, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa

from esms_source.cli.editing import editing
from esms_source.databases import (
    Patience,
    execute,
)
from esms_source.keeping import is_lake, pages_of, reading
from esms_source.load.checks import check_tables
from esms_source.load.loader import Loader
from esms_source.load.locks import dataset_lock
from esms_source.load.recovery import recover
from esms_source.planning.planner import Choice, make_plan
from esms_source.runtime import Clock, Counts
from esms_source.source import source_of
from esms_source.sql import text_list, text_literal
from esms_source.tables import REF_IDS, SETTLED, STATES, TEXT, without_load_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import dlt

    from esms_source.config import Settings
    from esms_source.planning.given_rows import RefIds

BY_HAND: Final = "settled by hand"
EXPIRED: Final = {"state": "expired", "next_poll_at": None, "last_error": BY_HAND}
UNSETTLED: Final = tuple(state for state in STATES if state not in SETTLED)
AT_ONCE: Final = 1_000
"""RefIds of one statement."""

Pair = tuple[str, str]
"""An OA and a RefId."""


def settle(
    pipeline: dlt.Pipeline, settings: Settings, ref_ids: RefIds
) -> tuple[int, Sequence[str]]:
    """Let RefIds become expired, whether the ledger has them yet or not.

    Args:
        pipeline: Its destination holds the ledger.
        settings: Where the warehouse is, and the default OA.
        ref_ids: Which ones; what is settled already stays as it is.

    Returns:
        How many were settled, and what the user has to know of the others.
    """
    patience, as_of = Patience(), Clock().started_at
    with editing(pipeline, settings) as own:
        loader = Loader(own, patience, settings, source_of, Counts())
        recover(own, loader)
        patience(own.sync_destination)
        check_tables(own)
        known = make_plan(own, settings, Choice(only=ref_ids, repoll=UNSETTLED), as_of)
        named = make_plan(own, settings, Choice(only=ref_ids), as_of)
        try:
            pairs = [pair for page in known.pages() for pair in _pairs(page)]
            fresh = [
                pair
                for page in named.pages()
                for pair in _pairs(page.filter(page["attempts"].is_null()))
            ]
        finally:
            known.close()
            named.close()
        rows = [_rows(fresh, as_of)] if fresh else []
        if pairs and is_lake(own):
            rows.append(_expired(own, pairs))
        elif pairs:
            with dataset_lock(own, patience):
                _expire(own, pairs)
        if rows:
            loader.extract(source_of({REF_IDS.name: _concat(rows)}))
            loader.load()
    return len(pairs) + len(fresh), named.skipped.remedies()


def _concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Return all rows; a column that some lack is null there."""
    return pa.concat_tables(tables, promote_options="default")


def _pairs(page: pa.Table) -> Iterator[Pair]:
    return zip(page["oa_id"].to_pylist(), page["ref_id"].to_pylist(), strict=True)


def _expired(pipeline: dlt.Pipeline, pairs: Sequence[Pair]) -> pa.Table:
    """Return rows of a lake's ledger as they are once they have become expired."""
    with reading(pipeline, REF_IDS) as client:
        ledger = client.make_qualified_table_name(REF_IDS.name)
        rows: list[pa.Table] = []
        for condition in _conditions(pairs):
            # The event that was asked last counts.
            sql = (
                "SELECT * EXCLUDE (load_id) REPLACE (last_polled_at"
                " + INTERVAL 1 MICROSECOND AS last_polled_at)"
                f" FROM {ledger} WHERE {condition}"
            )
            rows += pages_of(client, sql)
    table = _concat(rows)
    for name, value in EXPIRED.items():
        column = pa.repeat(pa.scalar(value, TEXT), len(table))
        field = table.schema.field(name)
        place = table.schema.get_field_index(name)
        table = table.set_column(place, field, column.cast(field.type))
    return table


def _expire(pipeline: dlt.Pipeline, pairs: Sequence[Pair]) -> None:
    """Let rows of the ledger become expired."""
    with pipeline.sql_client() as client:
        ledger = client.make_qualified_table_name(REF_IDS.name)
        for condition in _conditions(pairs):
            execute(
                client,
                f"UPDATE {ledger} SET state = 'expired', next_poll_at = NULL,"
                f" last_error = {text_literal(BY_HAND)} WHERE {condition}",
            )


def _conditions(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield SQL conditions that name rows of the ledger, a number at a time."""
    for oa_id in sorted({oa_id for oa_id, _ in pairs}):
        ref_ids = [ref_id for oa, ref_id in pairs if oa == oa_id]
        for start in range(0, len(ref_ids), AT_ONCE):
            named = text_list(ref_ids[start : start + AT_ONCE])
            yield f"oa_id = {text_literal(oa_id)} AND ref_id IN ({named})"


def _rows(pairs: Sequence[Pair], now: datetime) -> pa.Table:
    """Return rows of the ledger for RefIds that were never asked for: 0 attempts."""
    rows = [
        {
            "oa_id": oa_id,
            "ref_id": ref_id,
            "state": "expired",
            "attempts": 0,
            "first_polled_at": now,
            "last_polled_at": now,
            "last_error": BY_HAND,
            "chosen": True,
        }
        for oa_id, ref_id in pairs
    ]
    return pa.Table.from_pylist(rows, schema=without_load_id(REF_IDS))
