"""Answers to rows of ``callbacks``, and what they make of each RefId."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.api.error_info import ParsedError, parse_error_info
from esms_source.api.fast_reader import PlainRows, to_table
from esms_source.api.fields import TYPE_OF
from esms_source.api.lenient_reader import Rejected, read_odd
from esms_source.privacy import Privacy
from esms_source.storable import storable
from esms_source.tables import (
    BIGINT,
    CALLBACKS,
    REJECTED_ROWS,
    TEXT,
    TIMESTAMP,
    without_load_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from esms_source.config import Settings

REJECTED: Final = 4
DONE: Final = 5
"""SendStatus of a message that was refused, and of one whose sending has ended.

Source: the callback-url page of eSMS's API docs.
"""


@dataclass(frozen=True)
class RawAnswer:
    """The rows that came for one request.

    Attributes:
        request_no: The request's number in its load.
        oa_id: The OA that was asked for.
        ref_ids: The RefIds that were asked for.
        states: Their states in the ledger so far, as text; null for new ones.
        rows: ``Data_callback`` as it came, or read already.
        polled_at: When it came.
    """

    request_no: int
    oa_id: str
    ref_ids: Sequence[str]
    states: pa.ChunkedArray
    rows: Sequence[Any] | PlainRows
    polled_at: datetime


@dataclass
class ReadRows:
    """What the rows of some answers say.

    Attributes:
        callbacks: Rows of the table ``callbacks``, without ``load_id``.
        rejected: Rows of the table ``rejected_rows``, without ``load_id``.
        rejected_by_request: How many rows of each answer were rejected.
        missing_by_request: How many RefIds of each answer have no row.
        outcomes: By answer, for each RefId as it was asked: final, pending or
            missing.
    """

    callbacks: pa.Table
    rejected: pa.Table
    rejected_by_request: list[int]
    missing_by_request: list[int]
    outcomes: list[pa.Array]


class RowReader:
    """Read the rows of answers, under the settings on people's data."""

    def __init__(self, settings: Settings) -> None:
        self._privacy = Privacy(settings)

    def read(self, answers: Sequence[RawAnswer]) -> ReadRows:
        """Place and type all rows of some answers."""
        # Which answer each row belongs to, and which of all RefIds that were asked.
        rows, number, rejected = self._typed(answers)
        sizes = [len(answer.ref_ids) for answer in answers]
        starts = list(accumulate(sizes, initial=0))[:-1]
        position = pc.add(rows["place"], pa.array(starts, BIGINT).take(number))

        columns = self._columns(rows, answers, number, position)
        final = _is_final(columns)
        columns["delivery"] = _delivery(columns, final)
        outcome = _outcome(sum(sizes), position, position.filter(pc.invert(final)))
        schema = without_load_id(CALLBACKS)
        callbacks = pa.table([columns[name] for name in schema.names], schema=schema)
        was_final = _was_final(answers)
        if pc.any(was_final).as_py():
            # Rows that are final give way to final ones only.
            became_final = pc.equal(outcome.take(position), "final")
            was_open = pc.invert(was_final.take(position))
            callbacks = callbacks.filter(pc.or_(became_final, was_open))
        return ReadRows(
            callbacks,
            _rejected_table(answers, rejected),
            [len(others) for others in rejected],
            _count_by_group(pc.equal(outcome, "missing"), sizes),
            [outcome.slice(*part) for part in zip(starts, sizes, strict=True)],
        )

    def _typed(
        self, answers: Sequence[RawAnswer]
    ) -> tuple[pa.Table, pa.Array, list[list[Rejected]]]:
        """Return rows as ``TYPED``, whose answer each is, and the rejected ones."""
        plain: dict[int, PlainRows] = {}
        odd: dict[int, pa.Table] = {}
        rejected: list[list[Rejected]] = [[] for _ in answers]
        for no, answer in enumerate(answers):
            if isinstance(answer.rows, PlainRows):
                plain[no] = answer.rows
            else:
                odd[no], rejected[no] = read_odd(
                    answer.rows, answer.oa_id, answer.ref_ids, self._privacy
                )
        rows = pa.concat_tables([to_table(list(plain.values())), *odd.values()])
        sizes = map(len, [*plain.values(), *odd.values()])
        number = pa.array([*plain, *odd], BIGINT).take(numbers_of(sizes))
        return rows.combine_chunks(), number, rejected

    def _columns(
        self,
        rows: pa.Table,
        answers: Sequence[RawAnswer],
        number: pa.Array,
        position: pa.Array,
    ) -> dict[str, pa.Array]:
        ref_ids = [ref_id for answer in answers for ref_id in answer.ref_ids]
        oa_ids = [answer.oa_id for answer in answers]
        polled_at = [answer.polled_at for answer in answers]
        columns = {name: rows[name] for name in rows.column_names}
        columns["ref_id"] = pa.array(ref_ids, TEXT).take(position)
        columns["oa_id"] = pa.array(oa_ids, TEXT).take(number)
        columns["polled_at"] = pa.array(polled_at, TIMESTAMP).take(number)
        columns["phone_number"] = self._privacy.hide_phones(columns["phone_number"])
        columns["callback_url"] = self._privacy.cut_queries(columns["callback_url"])
        return columns | _error_columns(columns["error_info"])


def numbers_of(sizes: Iterable[int]) -> pa.Array:
    """Return for each item of groups of these sizes the number of its group."""
    numbers: list[int] = []
    for number, size in enumerate(sizes):
        numbers += [number] * size
    return pa.array(numbers, BIGINT)


def _outcome(asked: int, position: pa.Array, still_open: pa.Array) -> pa.Array:
    """Say of each RefId what its rows make of it.

    Args:
        asked: How many RefIds were asked.
        position: Of each row, the number of its RefId.
        still_open: The same of those rows that aren't final.
    """
    all_of_them = pa.array(range(asked), BIGINT)
    has_rows = pc.is_in(all_of_them, position)
    is_open = pc.is_in(all_of_them, still_open)
    conditions = pc.make_struct(pc.invert(has_rows), is_open)
    return pc.case_when(conditions, "missing", "pending", "final")


def _was_final(answers: Sequence[RawAnswer]) -> pa.ChunkedArray:
    """Tell of each RefId that was asked whether its rows so far are final."""
    states = [chunk for answer in answers for chunk in answer.states.chunks]
    is_final = pc.equal(pa.chunked_array(states, TEXT), "final")
    return pc.fill_null(is_final, fill_value=False)


def _count_by_group(flags: pa.Array, sizes: Sequence[int]) -> list[int]:
    """Count what is true, by groups of these sizes."""
    running = pc.cumulative_sum(flags.cast(BIGINT))
    ends = pa.array([end - 1 for end in accumulate(sizes)], BIGINT)
    totals = [0, *running.take(ends).to_pylist()]
    return [end - start for start, end in pairwise(totals)]


def _error_columns(texts: pa.ChunkedArray) -> dict[str, pa.Array]:
    """Return the columns that come from ErrorInfo."""
    # Few texts fail many messages: each is parsed once.
    encoded = pc.unique(texts)
    parsed = [
        # Undone encodings may bring a NUL to light.
        [storable(part) for part in parse_error_info(text)]
        for text in encoded.to_pylist()
    ]
    which = pc.index_in(texts, encoded)
    return {
        f"error_{part}": pa.array(
            [error[place] for error in parsed], TYPE_OF[f"error_{part}"]
        ).take(which)
        for place, part in enumerate(ParsedError._fields)
    }


def _is_final(columns: dict[str, pa.Array]) -> pa.Array:
    """Tell per row whether its outcome won't change: contract, section 5."""
    status = columns["send_status"]
    # As floats: the sum of two large counts would overflow.
    counts = (count.cast("double", safe=False) for count in _counts(columns))
    known = pc.greater(pc.add(*counts), 0)
    done = pc.and_kleene(pc.equal(status, DONE), known)
    return pc.fill_null(
        pc.or_kleene(pc.equal(status, REJECTED), done), fill_value=False
    )


def _delivery(columns: dict[str, pa.Array], final: pa.Array) -> pa.Array:
    success, failed = (pc.greater(count, 0) for count in _counts(columns))
    return pc.case_when(
        pc.make_struct(pc.invert(final), pc.invert(success), pc.invert(failed)),
        "pending",
        "failed",
        "delivered",
        "partial",
    )


def _counts(columns: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    return (
        pc.fill_null(columns["send_success"], 0),
        pc.fill_null(columns["send_failed"], 0),
    )


def _rejected_table(
    answers: Sequence[RawAnswer], rejected: Sequence[Sequence[Rejected]]
) -> pa.Table:
    rows = [
        {
            "request_no": answer.request_no,
            "polled_at": answer.polled_at,
            **other._asdict(),
        }
        for answer, others in zip(answers, rejected, strict=True)
        for other in others
    ]
    return pa.Table.from_pylist(rows, without_load_id(REJECTED_ROWS))
