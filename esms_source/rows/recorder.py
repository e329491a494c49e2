"""Requests that ended to rows of the four tables that polling fills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from esms_source.ledger import advance
from esms_source.privacy import Privacy
from esms_source.rows.callbacks import numbers_of, read_callbacks
from esms_source.tables import (
    API_REQUESTS,
    CALLBACK,
    CALLBACKS,
    REF_IDS,
    REJECTED_ROWS,
    TEXT,
    TIMESTAMP,
    stamp,
    without_load_id,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esms_source.api.request import Request
    from esms_source.config import Settings
    from esms_source.runtime import Counts
    from esms_source.tables import Table

Polled = dict[str, pa.Table]
"""Rows by table name; what one group of requests brings."""


class Recorder:
    """Turn the requests of one load into rows.

    Args:
        settings: How rows are read, and how long to wait.
        load_id: dlt's load package that the rows go into.
        counts: Adds up what is recorded.
        run_id: The run that it is for, if it is one of ``sync``.
    """

    def __init__(
        self,
        settings: Settings,
        load_id: str,
        counts: Counts,
        run_id: str | None = None,
    ) -> None:
        self._settings = settings
        self._privacy = Privacy(settings)
        self._load_id = load_id
        self._counts = counts
        self._run_id = run_id
        self._requests = 0

    def record(self, requests: Sequence[Request]) -> Polled:
        """Return the rows of a group of requests, by table."""
        with self._counts.timed("build"):
            for number, request in enumerate(requests, self._requests + 1):
                request.number = number
            self._requests += len(requests)
            answered = [r for r in requests if r.columns is not None]
            callbacks = read_callbacks(answered, self._privacy)
            rows = [_request_row(request) for request in requests]
            for row, request in zip(rows, requests, strict=True):
                self._count(row, request)
            polled = {
                REF_IDS.name: self._ledger_rows(requests),
                CALLBACKS.name: callbacks,
                API_REQUESTS.name: self._table(API_REQUESTS, rows),
                REJECTED_ROWS.name: self._table(
                    REJECTED_ROWS, _rejected_rows(answered)
                ),
            }
            return {name: stamp(rows, self._load_id) for name, rows in polled.items()}

    def _ledger_rows(self, requests: Sequence[Request]) -> pa.Table:
        """Return the ledger rows of all requests but the split ones."""
        ended = [r for r in requests if r.outcome != "split"]
        if not ended:
            return without_load_id(REF_IDS).empty_table()
        states = [
            pa.repeat("failed", len(r.work)) if r.states is None else r.states
            for r in ended
        ]
        errors = [str(r.error) if r.error else None for r in ended]
        places = numbers_of(len(r.work) for r in ended)
        return advance(
            pa.concat_tables([r.work for r in ended]),
            pa.concat_arrays(states),
            pa.array(errors, TEXT).take(places),
            pa.array([r.polled_at for r in ended], TIMESTAMP).take(places),
            pa.array([r.retry_immediately for r in ended]).take(places),
            pa.array([r.alone for r in ended]).take(places),
            self._settings,
        )

    def _count(self, row: dict[str, Any], request: Request) -> None:
        counts = self._counts
        counts.requests += 1
        counts.attempts += row["attempts"]
        counts.spend("decode", request.decoding)
        if request.outcome != "split":
            for name in ("asked", "answered", "missing", "failed", "rows", "rejected"):
                setattr(counts, name, getattr(counts, name) + row[name])
            counts.misfits += request.misfits
            if request.error is not None:
                counts.problems[str(request.error)] += row["failed"]

    def _table(self, table: Table, rows: list[dict[str, Any]]) -> pa.Table:
        rows = [{**row, "run_id": self._run_id} for row in rows]
        return pa.Table.from_pylist(rows, schema=without_load_id(table))


def _request_row(request: Request) -> dict[str, Any]:
    asked, error = len(request.work), request.error
    is_answered = request.columns is not None
    return {
        "request_no": request.number,
        "oa_id": request.oa_id,
        "started_at": request.started_at,
        "asked": asked,
        "answered": asked - request.missing if is_answered else 0,
        "missing": request.missing,
        "failed": 0 if is_answered else asked,
        "rows": request.rows,
        "rejected": len(request.rejected),
        "attempts": request.attempts,
        "waited_ms": round(request.waited * 1_000),
        "latency_ms": round(request.latency * 1_000),
        "http_status": error.http_status if error else request.http_status,
        "api_code": error.code if error else request.code,
        "api_message": str(error) if error else request.message,
        "outcome": request.outcome,
        "endpoint": CALLBACK,
        "ended_at": request.polled_at,
    }


def _rejected_rows(requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [
        {
            "request_no": request.number,
            "polled_at": request.polled_at,
            **rejected._asdict(),
        }
        for request in requests
        for rejected in request.rejected
    ]
