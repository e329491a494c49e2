"""The ledger ``ref_ids``: what it knows, what is due, and how a row moves on."""

from __future__ import annotations

import hashlib
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.sql import moment_literal, text_list
from esms_source.tables import (
    BIGINT,
    BOOL,
    REF_IDS,
    SETTLED,
    TEXT,
    TIMESTAMP,
    without_load_id,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esms_source.config import Settings

WORK: Final = pa.schema(
    [
        pa.field("oa_id", TEXT),
        pa.field("ref_id", TEXT),
        pa.field("sent_at", TIMESTAMP),
        pa.field("state", TEXT),
        pa.field("attempts", BIGINT),
        pa.field("first_polled_at", TIMESTAMP),
        pa.field("chosen", BOOL),
        pa.field("first_answered_at", TIMESTAMP),
        pa.field("failed_since", TIMESTAMP),
        pa.field("final_at", TIMESTAMP),
    ]
)
"""What planning hands to polling of each RefId; carried columns follow."""

OPEN: Final = ("pending", "missing")
"""States of what was answered and isn't settled."""

FORGOTTEN: Final = "forgotten"
"""What ``last_error`` says of a person's message, whose RefId is a digest now."""

SEPARATOR: Final = 31
"""Character between an OA and a RefId in what a digest is made of."""

MICROSECONDS: Final = 1_000_000
SECOND: Final = timedelta(seconds=1)


def forgotten_key(oa_id: str, ref_id: str) -> str:
    """Return what takes the place of a RefId that must not be known any more."""
    text = f"{oa_id}{chr(SEPARATOR)}{ref_id}"
    return f"{FORGOTTEN}:{hashlib.sha256(text.encode()).hexdigest()}"


def forgotten_key_sql() -> str:
    """Return the same as DuckDB's SQL, of the columns ``oa_id`` and ``ref_id``."""
    return f"'{FORGOTTEN}:' || sha256(oa_id || chr({SEPARATOR}) || ref_id)"


def due_condition(as_of: datetime, repoll_max: float, lost: Sequence[str] = ()) -> str:
    """Return the SQL condition under which a row of the ledger is due.

    Due is what isn't settled and whose time has come; what a load left behind
    that never completed, as its callbacks may be lost; and what would have to
    wait longer than any wait, as the clock was wrong when it was written.

    Args:
        as_of: When the run began, in UTC.
        repoll_max: The longest wait, in seconds.
        lost: The loads that left rows behind and never completed.
    """
    most = (datetime.max.replace(tzinfo=timezone.utc) - as_of) // SECOND
    wait = min(int(repoll_max) + 1, most)
    latest = moment_literal(as_of + wait * SECOND)
    due = (
        f"state NOT IN ({text_list(SETTLED)})"
        f" AND (next_poll_at IS NULL OR next_poll_at <= {moment_literal(as_of)}"
        f" OR next_poll_at > {latest})"
    )
    # Mostly there are none, and DuckDB reads but the rows that are due.
    return f"({due}) OR load_id IN ({text_list(lost)})" if lost else due


def query_after(settings: Settings) -> timedelta:
    """Return how long after its first poll QueryZnsStatus is asked for a RefId."""
    return 2 * settings.repoll_after * SECOND


def advance(
    work: pa.Table,
    outcome: pa.Array,
    error: pa.Array,
    polled_at: pa.Array,
    retry_immediately: pa.Array,
    alone: pa.Array,
    settings: Settings,
) -> pa.Table:
    """Return the ledger's rows after an answer, all but ``load_id``.

    A final row stays final whatever comes later.

    Args:
        work: Rows as planning handed them out.
        outcome: What the answer makes of each: final, pending, missing, failed.
        error: Why there was no usable answer, else null.
        polled_at: When the answer came.
        retry_immediately: Whether a failed one may be asked again without a wait.
        alone: Whether a failed one failed by itself, while others were answered.
        settings: The waits.
    """
    attempts = pc.add(pc.fill_null(work["attempts"], 0), 1)
    failed = pc.equal(outcome, "failed")
    answered_at = pc.if_else(failed, None, polled_at)
    first_answered_at = pc.coalesce(work["first_answered_at"], answered_at)
    alone = pc.and_(failed, alone)
    failed_since = pc.coalesce(work["failed_since"], pc.if_else(alone, polled_at, None))
    failed_since = pc.if_else(failed, failed_since, None)
    was_final = pc.fill_null(pc.equal(work["state"], "final"), fill_value=False)
    since = _waiting_since(
        work, outcome, polled_at, pc.if_else(alone, failed_since, None)
    )
    age = pc.subtract(polled_at, since).cast(BIGINT)
    given_up = pc.greater_equal(age, int(settings.give_up_after * MICROSECONDS))
    conditions = pc.make_struct(was_final, pc.fill_null(given_up, fill_value=False))
    state = pc.case_when(conditions, "final", "expired", outcome)
    is_final = pc.equal(state, "final")
    became_final = pc.and_(is_final, pc.invert(was_final))
    moved_on = {
        "state": state,
        "attempts": attempts,
        # Where a clock was ahead, it is set right: no answer comes before it.
        "first_polled_at": pc.if_else(
            pc.fill_null(pc.less(work["first_polled_at"], polled_at), fill_value=False),
            work["first_polled_at"],
            polled_at,
        ),
        "last_polled_at": polled_at,
        "next_poll_at": next_poll_at(
            state, attempts, polled_at, retry_immediately, settings
        ),
        "last_error": error,
        "first_answered_at": first_answered_at,
        "failed_since": failed_since,
        "final_at": pc.if_else(became_final, polled_at, work["final_at"]),
    }
    carried = [field for field in work.schema if field.name not in WORK.names]
    schema = pa.schema([*without_load_id(REF_IDS), *carried])
    columns = [
        moved_on[name] if name in moved_on else work[name] for name in schema.names
    ]
    return pa.table(columns, schema=schema)


def _waiting_since(
    work: pa.Table, outcome: pa.Array, polled_at: pa.Array, failed_since: pa.Array
) -> pa.Array:
    """Return from when on ``give_up_after`` counts: null where it never does."""
    # Ledgers of version 0.1 know no first answer, but such rows had one.
    was_answered = pc.is_in(work["state"], pa.array([*OPEN, "expired"]))
    first_answered_at = pc.coalesce(
        work["first_answered_at"],
        pc.if_else(was_answered, work["first_polled_at"], None),
        polled_at,
    )
    is_open = pc.is_in(outcome, pa.array(OPEN))
    return pc.if_else(is_open, first_answered_at, failed_since)


def next_poll_at(
    state: pa.Array,
    attempts: pa.Array,
    polled_at: pa.Array,
    retry_immediately: pa.Array,
    settings: Settings,
) -> pa.Array:
    """Return when rows are asked again: null where they are settled."""
    growth = pc.power(settings.repoll_backoff, pc.subtract(attempts, 1).cast("double"))
    # Not infinite: no wait at all stays none after any number of attempts.
    growth = pc.min_element_wise(growth, sys.float_info.max)
    wait = pc.multiply(settings.repoll_after, growth)
    wait = pc.min_element_wise(wait, settings.repoll_max)
    wait = pc.if_else(retry_immediately, 0.0, wait)
    microseconds = pc.round(pc.multiply(wait, MICROSECONDS)).cast(BIGINT)
    return pc.if_else(
        pc.is_in(state, pa.array(SETTLED)),
        pa.scalar(None, TIMESTAMP),
        pc.add(polled_at, microseconds.cast(pa.duration("us"))),
    )
