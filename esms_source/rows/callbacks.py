"""Answers to rows of ``callbacks``, and what they make of each RefId."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.api.error_info import ParsedError, parse_error_info
from esms_source.api.fast_reader import to_table
from esms_source.api.fields import TYPE_OF
from esms_source.tables import (
    BIGINT,
    BOOL,
    CALLBACKS,
    TEXT,
    TIMESTAMP,
    without_load_id,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from esms_source.api.request import Request
    from esms_source.privacy import Privacy

REJECTED: Final = 4
DONE: Final = 5
"""SendStatus of a message that was refused, and of one whose sending has ended.

Source: the callback-url page of eSMS's API docs.
"""


def read_callbacks(requests: Sequence[Request], privacy: Privacy) -> pa.Table:
    """Return the rows of ``callbacks`` that some answered requests bring.

    Fills in each request's ``states`` and ``missing``.

    Args:
        requests: With a usable answer each.
        privacy: What the columns hide.

    Returns:
        The table's columns without ``load_id``.
    """
    # Which answer each row belongs to, and which of all RefIds that were asked.
    rows = to_table([request.columns or {} for request in requests]).combine_chunks()
    number = numbers_of(len(r.columns["place"]) for r in requests if r.columns)
    sizes = [len(request.work) for request in requests]
    starts = list(accumulate(sizes, initial=0))[:-1]
    position = pc.add(rows["place"], pa.array(starts, BIGINT).take(number))

    columns = _columns(rows, requests, number, position)
    columns["phone_number"] = privacy.hide_phones(columns["phone_number"])
    columns["callback_url"] = privacy.cut_queries(columns["callback_url"])
    said = pa.array([request.is_final for request in requests], BOOL).take(number)
    final = pc.coalesce(said, _is_final(columns))
    columns["delivery"] = _delivery(columns, final)
    states = _states(sum(sizes), position, position.filter(pc.invert(final)))
    missing = _count_by_group(pc.equal(states, "missing"), sizes)
    for request, start, count in zip(requests, starts, missing, strict=True):
        request.states = states.slice(start, len(request.work))
        request.missing = count
    schema = without_load_id(CALLBACKS)
    callbacks = pa.table([columns[name] for name in schema.names], schema=schema)
    was_final = _was_final(requests)
    if pc.any(was_final).as_py():
        # Rows that are final give way to final ones only.
        became_final = pc.equal(states.take(position), "final")
        was_open = pc.invert(was_final.take(position))
        callbacks = callbacks.filter(pc.or_(became_final, was_open))
    return callbacks


def _columns(
    rows: pa.Table, requests: Sequence[Request], number: pa.Array, position: pa.Array
) -> dict[str, pa.Array]:
    ref_ids = [ref_id for request in requests for ref_id in request.ref_ids]
    oa_ids = [request.oa_id for request in requests]
    polled_at = [request.polled_at for request in requests]
    columns = {name: rows[name] for name in rows.column_names}
    columns["ref_id"] = pa.array(ref_ids, TEXT).take(position)
    columns["oa_id"] = pa.array(oa_ids, TEXT).take(number)
    columns["polled_at"] = pa.array(polled_at, TIMESTAMP).take(number)
    endpoints = [request.endpoint for request in requests]
    columns["answered_by"] = pa.array(endpoints, TEXT).take(number)
    return columns | _error_columns(columns["error_info"])


def numbers_of(sizes: Iterable[int]) -> pa.Array:
    """Return for each item of groups of these sizes the number of its group."""
    numbers: list[int] = []
    for number, size in enumerate(sizes):
        numbers += [number] * size
    return pa.array(numbers, BIGINT)


def _states(asked: int, position: pa.Array, still_open: pa.Array) -> pa.Array:
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


def _was_final(requests: Sequence[Request]) -> pa.ChunkedArray:
    """Tell of each RefId that was asked whether its rows so far are final."""
    states = [chunk for r in requests for chunk in r.work["state"].chunks]
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
    parsed = [parse_error_info(text) for text in encoded.to_pylist()]
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
