"""Requests that ended to rows of the four tables that polling fills."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.ledger import advance, query_after
from esms_source.privacy import Privacy
from esms_source.rows.callbacks import numbers_of, read_callbacks
from esms_source.tables import (
    API_REQUESTS,
    CALLBACKS,
    QUERY,
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

ADDED: Final = (
    "asked",
    "answered",
    "missing",
    "failed",
    "rows",
    "rejected",
    "attempts",
    "waited_ms",
)
LAST: Final = ("latency_ms", "http_status", "api_code", "api_message", "outcome")
"""What a row of ``api_requests`` adds up of queries, and what is of the last one."""

Polled = dict[str, pa.Table]
"""Rows by table name; what one group of requests brings."""


class Recorder:
    """Turn the requests of one load into rows.

    Args:
        settings: How rows are read, and how long to wait.
        load_id: dlt's load package that the rows go into.
        counts: Adds up what is recorded.
        run_id: The run that it is for, if it is one of ``sync``.

    Attributes:
        aside: Work of RefIds that GetCallback has no row for and QueryZnsStatus is yet
            to be asked for: no row of the ledger is made of them before.
        seen: The OAs and templates that callbacks name.
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
        self.aside: list[pa.Table] = []
        self.seen: set[tuple[str, str | None]] = set()

    def record(self, requests: Sequence[Request]) -> Polled:
        """Return the rows of a group of requests, by table."""
        with self._counts.timed("build"):
            self._number(requests)
            answered = [r for r in requests if r.states_wanted]
            callbacks = read_callbacks(answered, self._privacy)
            self._see(callbacks)
            rows = [_request_row(request) for request in requests]
            for row, request in zip(rows, requests, strict=True):
                self._count(row, request)
            polled = {
                REF_IDS.name: self._ledger_rows(requests),
                CALLBACKS.name: callbacks,
                API_REQUESTS.name: self._table(API_REQUESTS, _folded(rows)),
                REJECTED_ROWS.name: self._table(
                    REJECTED_ROWS, _rejected_rows(answered)
                ),
            }
            return {name: stamp(rows, self._load_id) for name, rows in polled.items()}

    def _see(self, callbacks: pa.Table) -> None:
        """Note which OAs and templates have to be named."""
        if self._settings.rest_url:
            keys = ["oa_id", "zns_temp_id"]
            found = callbacks.select(keys).group_by(keys).aggregate([])
            self.seen.update(
                zip(*(found[key].to_pylist() for key in keys), strict=True)
            )

    def _number(self, requests: Sequence[Request]) -> None:
        """Number requests; queries of one OA that ended together count as one."""
        queries: dict[str, int] = {}
        for request in requests:
            request.number = queries.get(request.oa_id, self._requests + 1)
            self._requests = max(self._requests, request.number)
            if request.endpoint == QUERY:
                queries[request.oa_id] = request.number

    def _ledger_rows(self, requests: Sequence[Request]) -> pa.Table:
        """Return the ledger rows of all requests but the split ones."""
        ended = [r for r in requests if r.outcome != "split"]
        if not ended:
            return without_load_id(REF_IDS).empty_table()
        is_query = ended[0].endpoint == QUERY
        # What QueryZnsStatus doesn't answer is as GetCallback said.
        unanswered = "missing" if is_query else "failed"
        states = [
            pa.repeat(unanswered, len(r.work)) if r.states is None else r.states
            for r in ended
        ]
        errors = [str(r.error) if r.error and not is_query else None for r in ended]
        places = numbers_of(len(r.work) for r in ended)
        work, outcome = (
            pa.concat_tables([r.work for r in ended]),
            pa.concat_arrays(states),
        )
        polled_at = pa.array([r.polled_at for r in ended], TIMESTAMP).take(places)
        rows = advance(
            work,
            outcome,
            pa.array(errors, TEXT).take(places),
            polled_at,
            pa.array([r.retry_immediately for r in ended]).take(places),
            pa.array([r.alone for r in ended]).take(places),
            self._settings,
        )
        if is_query or not self._settings.asks_missing:
            return rows
        is_aside = _may_be_queried(rows, outcome, self._settings)
        self.aside.append(work.filter(is_aside))
        return rows.filter(pc.invert(is_aside))

    def _count(self, row: dict[str, Any], request: Request) -> None:
        counts = self._counts
        counts.spend("decode", request.decoding)
        counts.misfits += request.misfits
        if request.endpoint == QUERY:
            counts.queries += row["attempts"]
            counts.queried += row["asked"] * bool(row["attempts"])
            counts.found += row["answered"]
            if request.error and request.attempts:
                counts.warn(f"QueryZnsStatus has no usable answer: {request.error}")
            counts.rejected += row["rejected"]
            return
        counts.requests += 1
        counts.attempts += row["attempts"]
        if request.outcome != "split":
            for name in ("asked", "answered", "missing", "failed", "rows", "rejected"):
                setattr(counts, name, getattr(counts, name) + row[name])
            if request.error is not None:
                counts.problems[str(request.error)] += row["failed"]

    def _table(self, table: Table, rows: list[dict[str, Any]]) -> pa.Table:
        rows = [{**row, "run_id": self._run_id} for row in rows]
        return pa.Table.from_pylist(rows, schema=without_load_id(table))


def _may_be_queried(rows: pa.Table, outcome: pa.Array, settings: Settings) -> pa.Array:
    """Tell of ledger rows for which QueryZnsStatus is to be asked: contract, section 8.

    Args:
        rows: What GetCallback's answer makes of them.
        outcome: What it had of each.
        settings: How long after the first poll.
    """
    since = pc.subtract(rows["last_polled_at"], rows["first_polled_at"])
    is_late = pc.greater_equal(since, pa.scalar(query_after(settings), since.type))
    # A final row stays so, whoever is asked.
    is_open = pc.not_equal(rows["state"], "final")
    return pc.and_(pc.and_(pc.equal(outcome, "missing"), is_open), is_late)


def _request_row(request: Request) -> dict[str, Any]:
    asked, error = len(request.work), request.error
    is_answered = request.columns is not None
    if request.endpoint == QUERY and not (request.attempts and request.states_wanted):
        # It goes on as another request, or never began.
        asked = asked if error and request.attempts else 0
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
        "endpoint": request.endpoint,
        "ended_at": request.polled_at,
    }


def _folded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for all that have one number."""
    folded: dict[int, dict[str, Any]] = {}
    for row in rows:
        whole = folded.setdefault(row["request_no"], row)
        if whole is row:
            continue
        for name in ADDED:
            whole[name] += row[name]
        whole["started_at"] = min(whole["started_at"], row["started_at"])
        whole["ended_at"] = max(whole["ended_at"], row["ended_at"])
        if row["outcome"] != "split":
            whole |= {name: row[name] for name in LAST}
    return list(folded.values())


def _rejected_rows(requests: Sequence[Request]) -> list[dict[str, Any]]:
    places: Counter[int] = Counter()
    rows = []
    for request in requests:
        for rejected in request.rejected:
            places[request.number] += 1
            row = {
                "request_no": request.number,
                "polled_at": request.polled_at,
                **rejected._asdict(),
            }
            if request.endpoint == QUERY:
                # Each is the first of its answer.
                row["row_no"] = places[request.number]
            rows.append(row)
    return rows
