"""Requests that ended to rows of the four tables that polling fills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from esms_source.ledger import advance
from esms_source.rows.callbacks import RawAnswer, RowReader, numbers_of
from esms_source.tables import (
    API_REQUESTS,
    CALLBACKS,
    REF_IDS,
    REJECTED_ROWS,
    TEXT,
    TIMESTAMP,
    without_load_id,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esms_source.config import Settings
    from esms_source.polling.poller import Request
    from esms_source.runtime import Counts

Polled = dict[str, pa.Table]
"""Rows by table name; what one group of requests brings."""


class Recorder:
    """Turn the requests of one load into rows.

    Args:
        settings: How rows are read, and how long to wait.
        load_id: dlt's load package that the rows go into.
        counts: Adds up what is recorded.
    """

    def __init__(self, settings: Settings, load_id: str, counts: Counts) -> None:
        self._settings = settings
        self._reader = RowReader(settings)
        self._load_id = load_id
        self._counts = counts
        self._requests = 0

    def record(self, requests: Sequence[Request]) -> Polled:
        """Return the rows of a group of requests, by table."""
        with self._counts.timed("build"):
            first_no = self._requests + 1
            self._requests += len(requests)
            numbered = list(enumerate(requests, first_no))
            answered = [(no, r) for no, r in numbered if r.answer is not None]
            read = self._reader.read([_raw(no, request) for no, request in answered])
            numbers = [no for no, _ in answered]
            outcomes = dict(zip(numbers, read.outcomes, strict=True))
            missing = dict(zip(numbers, read.missing_by_request, strict=True))
            rejected = dict(zip(numbers, read.rejected_by_request, strict=True))
            rows = [
                _request_row(no, request, missing.get(no, 0), rejected.get(no, 0))
                for no, request in numbered
            ]
            for row, request in zip(rows, requests, strict=True):
                self._count(row, request)
            polled = {
                REF_IDS.name: self._ledger_rows(numbered, outcomes),
                CALLBACKS.name: read.callbacks,
                API_REQUESTS.name: _request_table(rows),
                REJECTED_ROWS.name: read.rejected,
            }
            return {name: self._stamp(table) for name, table in polled.items()}

    def _ledger_rows(
        self, numbered: list[tuple[int, Request]], outcomes: dict[int, pa.Array]
    ) -> pa.Table:
        """Return the ledger rows of all requests but the split ones."""
        ended = [(no, r) for no, r in numbered if r.outcome != "split"]
        if not ended:
            return without_load_id(REF_IDS).empty_table()
        outcome = [
            outcomes[no] if no in outcomes else pa.repeat("failed", len(r.batch.rows))
            for no, r in ended
        ]
        errors = [str(r.error) if r.error else None for _, r in ended]
        places = numbers_of(len(r.batch.rows) for _, r in ended)
        return advance(
            pa.concat_tables([r.batch.rows for _, r in ended]),
            pa.concat_arrays(outcome),
            pa.array(errors, TEXT).take(places),
            pa.array([r.polled_at for _, r in ended], TIMESTAMP).take(places),
            pa.array([r.retry_immediately for _, r in ended]).take(places),
            self._settings,
        )

    def _count(self, row: dict[str, Any], request: Request) -> None:
        counts = self._counts
        counts.requests += 1
        counts.attempts += row["attempts"]
        if request.answer is not None:
            counts.spend("decode", request.answer.decoding)
        if request.outcome != "split":
            for name in ("asked", "answered", "missing", "failed", "rows", "rejected"):
                setattr(counts, name, getattr(counts, name) + row[name])
            if request.error is not None:
                counts.problems[str(request.error)] += row["failed"]

    def _stamp(self, table: pa.Table) -> pa.Table:
        load_ids = pa.repeat(pa.scalar(self._load_id, TEXT), len(table))
        field = pa.field("load_id", TEXT, nullable=False)
        return table.append_column(field, load_ids)


def _raw(request_no: int, request: Request) -> RawAnswer:
    answer, batch = request.answer, request.batch
    return RawAnswer(
        request_no,
        batch.oa_id,
        batch.ref_ids,
        batch.rows["state"],
        answer.rows if answer else (),
        request.polled_at,
    )


def _request_row(
    request_no: int, request: Request, missing: int, rejected: int
) -> dict[str, Any]:
    answer, error = request.answer, request.error
    asked = len(request.batch.rows)
    return {
        "request_no": request_no,
        "oa_id": request.batch.oa_id,
        "started_at": request.started_at,
        "asked": asked,
        "answered": asked - missing if answer else 0,
        "missing": missing,
        "failed": 0 if answer else asked,
        "rows": len(answer.rows) if answer else 0,
        "rejected": rejected,
        "attempts": request.attempts,
        "waited_ms": round(request.waited * 1_000),
        "latency_ms": round(request.latency * 1_000),
        "http_status": answer.http_status if answer else error and error.http_status,
        "api_code": answer.code if answer else error and error.code,
        "api_message": answer.message if answer else str(error),
        "outcome": request.outcome,
    }


def _request_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=without_load_id(API_REQUESTS))
