"""A request: RefIds of one OA, and what becomes of them from room to room."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from esms_source.tables import CALLBACK, QUERY

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from esms_source.exceptions import ApiError

Outcome = Literal["answered", "failed", "refused", "split"]
"""How a request ended."""


class Rejected(NamedTuple):
    """A row that couldn't be placed: its number, the reason, the row as JSON."""

    row_no: int
    reason: str
    row: str


@dataclass(eq=False)
class Request:
    """RefIds that are asked for at once, with all attempts; filled on its way.

    Attributes:
        oa_id: The OA that sent the messages.
        work: Their rows as planned, in the schema ``ledger.WORK``.
        started_at: When the first attempt began (poller).
        polled_at: When the last one ended (poller).
        attempts: How often it was sent (poller).
        waited: Seconds spent waiting for the rate or between attempts (poller).
        latency: Seconds of the last attempt (poller).
        outcome: answered, failed, refused or split (poller).
        retry_immediately: Whether its RefIds may be asked again without a wait
            (poller).
        alone: Whether it failed by itself, while others were answered (poller).
        error: Why there was no usable answer, if there was none (poller).
        http_status: HTTP status of the answer (client).
        code: The API's code (client).
        message: The API's message (client).
        columns: The answer's rows that found their RefId, by the names of the schema
            ``fields.TYPED``; None without a usable answer (readers).
        rejected: Its other rows (lenient reader).
        misfits: Values that didn't fit their column; ``extra`` keeps them (lenient
            reader).
        held_bytes: What the answer takes until it has become rows (client).
        decoding: Seconds that reading the answer took (client).
        number: The request's number in its load, from 1 (recorder).
        states: Of each RefId what the answer makes of it: final, pending or missing;
            None without a usable answer (callbacks).
        missing: How many have no row (callbacks).
        endpoint: What is asked: GetCallback, or QueryZnsStatus for one RefId.
        sms_types: SmsTypes to ask QueryZnsStatus for, in turn until it knows the RefId.
        is_final: Whether the answer itself says that it won't change; None where it
            doesn't say (client).
    """

    oa_id: str
    work: pa.Table
    started_at: datetime | None = None
    polled_at: datetime | None = None
    attempts: int = 0
    waited: float = 0.0
    latency: float = 0.0
    outcome: Outcome = "answered"
    retry_immediately: bool = False
    alone: bool = False
    error: ApiError | None = None
    http_status: int | None = None
    code: int | None = None
    message: str | None = None
    columns: dict[str, Any] | None = None
    rejected: list[Rejected] = field(default_factory=list)
    misfits: int = 0
    held_bytes: int = 0
    decoding: float = 0.0
    number: int = 0
    states: pa.Array | None = None
    missing: int = 0
    endpoint: str = CALLBACK
    sms_types: tuple[int, ...] = ()
    is_final: bool | None = None

    @cached_property
    def ref_ids(self) -> list[str]:
        """The RefIds, none twice."""
        ids: list[str] = self.work["ref_id"].to_pylist()
        return ids

    @property
    def states_wanted(self) -> bool:
        """Whether it has a usable answer that says what becomes of its RefIds."""
        return self.columns is not None and self.outcome != "split"

    @property
    def rows(self) -> int:
        """Return how many rows the answer had."""
        placed = len(self.columns["place"]) if self.columns else 0
        return placed + len(self.rejected)

    def parts(self) -> list[Request]:
        """Return the requests that go on where this one had no usable answer."""
        if self.sms_types:
            rest = self.sms_types[1:]
            return [Request(self.oa_id, self.work, endpoint=QUERY, sms_types=rest)]
        middle = len(self.work) // 2
        halves = self.work.slice(0, middle), self.work.slice(middle)
        return [Request(self.oa_id, half) for half in halves]
