"""Batches to answers: at the rate, in threads, with retries."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import tenacity

from esms_source.exceptions import (
    ApiError,
    CredentialsError,
    OaRefusedError,
    OutageError,
    RateLimitedError,
    RetryableApiError,
    StoppedError,
)
from esms_source.polling.batches import batches
from esms_source.polling.shared_rate_limit import SharedRateLimiter, open_limiter
from esms_source.polling.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    import pyarrow as pa

    from esms_source.api.client import Answer, Client
    from esms_source.config import Settings
    from esms_source.polling.batches import Batch
    from esms_source.polling.rate_limit import Slot
    from esms_source.runtime import Clock, Progress, Stop

GROUP_REQUESTS: Final = 50
"""Requests that are turned into tables at once."""

MOST_UNREAD: Final = 80
"""Requests that may have ended before anybody takes them: 4 seconds of the API."""

AHEAD_SHARE: Final = 0.25
"""Most of a slice that may be asked while the rest of it is loaded."""

BACKOFF_SECONDS: Final = 0.5
"""Wait before the second attempt of a batch; it doubles from there."""

SPLIT_BACKOFF_SECONDS: Final = 0.1
"""The same for a part of a batch: waiting didn't help the whole one."""

BACKOFF_MAX_SECONDS: Final = 30.0

OUTAGE_AFTER: Final = 60
"""So many requests in a row without a usable answer, and the run ends."""


@dataclass
class Request:
    """One batch that was asked, with all its attempts.

    Attributes:
        batch: What was asked for.
        started_at: When the first attempt began.
        polled_at: When the last one ended.
        attempts: How often the request was sent.
        waited: Seconds spent waiting for the rate or between attempts.
        latency: Seconds of the last attempt.
        answer: The usable answer, if there was one.
        error: Why there was none.
        outcome: answered, failed, refused or split.
        retry_immediately: Whether its RefIds may be asked again without a wait.
    """

    batch: Batch
    started_at: datetime
    polled_at: datetime
    attempts: int = 0
    waited: float = 0.0
    latency: float = 0.0
    answer: Answer | None = None
    error: ApiError | None = None
    outcome: str = "answered"
    retry_immediately: bool = False


def most_ahead(settings: Settings) -> int:
    """Return how many RefIds may be asked while those before them are loaded.

    They and what is loaded make one slice, so that a crash costs no more. None where
    a slice is so small that this would be much of it.
    """
    requests = settings.max_in_flight + MOST_UNREAD
    ahead = requests * settings.batch_size
    return ahead if ahead <= settings.slice_ref_ids * AHEAD_SHARE else 0


class Poller:
    """Ask batch after batch, for as long as a run lasts.

    Args:
        settings: How fast, how often and how many at once.
        client: What sends a request.
        clock: The run's clock.
        stop: Ends the run when it is told to.
        progress: Told what is under way.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        clock: Clock,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self.progress = progress
        self._settings = settings
        self._client = client
        self._clock = clock
        self._stop = stop
        self._limiter = open_limiter(settings, stop)
        self._refused: dict[str, OaRefusedError] = {}
        self._exhausted_in_a_row = 0
        self._pool: WorkerPool[Request] | None = None

    def close(self) -> None:
        """End what is under way, and let a shared budget go."""
        self._dismiss()
        if isinstance(self._limiter, SharedRateLimiter):
            self._limiter.close()

    def poll(self, work: Iterable[pa.Table]) -> Iterator[list[Request]]:
        """Ask all of some work; return the requests that end, in groups.

        Session begins at once and goes on ahead of whoever takes the groups. When the
        run is told to stop, what is under way still ends. One work after another.
        """
        self._pool = WorkerPool(self._settings.max_in_flight, MOST_UNREAD)
        # All of them here: memory that each thread took a part of is slow to come back.
        todo = deque(batches(work, self._settings.batch_size))
        self._pool.start(partial(self._work, todo, self._pool))
        return self._groups(self._pool)

    def _groups(self, pool: WorkerPool[Request]) -> Iterator[list[Request]]:
        group: list[Request] = []
        try:
            for request in pool.results():
                group.append(request)
                if len(group) >= GROUP_REQUESTS:
                    yield group
                    group = []
            if group:
                yield group
        finally:
            self._dismiss()

    def _dismiss(self) -> None:
        if self._pool and not self._pool.has_ended:
            # Nobody takes what comes: threads must not wait out their retries.
            self._stop(StoppedError("loading failed while the API was being asked"))
            self._pool.dismiss()

    def _work(self, todo: deque[Batch], pool: WorkerPool[Request]) -> None:
        while not pool.dismissed:
            # Leave first, then the oldest batch: requests go out in order.
            with pool.in_line():
                slot = self._limiter.acquire()
            # The limiter looks for a stop only where it has to wait.
            if slot is None or self._stop:
                return
            batch = self._next(todo, pool)
            if batch is None:
                self._limiter.release(slot)
                pool.finish()
                return
            self._ask_in_parts(batch, slot, pool)

    def _next(self, todo: deque[Batch], pool: WorkerPool[Request]) -> Batch | None:
        while todo:
            try:
                batch = todo.popleft()
            except IndexError:
                # Another thread took the last one.
                break
            if batch.oa_id not in self._refused:
                return batch
            now = self._clock.now()
            request = Request(batch, now, now, error=self._refused[batch.oa_id])
            self._end(request, "refused", pool)
        return None

    def _ask_in_parts(
        self, batch: Batch, slot: Slot | None, pool: WorkerPool[Request]
    ) -> None:
        """Ask a batch, and when it stays without answer each half of it."""
        parts = [batch]
        while parts:
            part = parts.pop()
            request = self._ask(part, slot, whole=part is batch)
            slot = None
            if request.outcome == "split":
                parts.extend(reversed(part.halves()))
            self._end(request, request.outcome, pool)

    def _end(self, request: Request, outcome: str, pool: WorkerPool[Request]) -> None:
        request.outcome = outcome
        if outcome != "split":
            self.progress.done(len(request.batch.rows))
        pool.put(request)

    def _ask(self, batch: Batch, slot: Slot | None, *, whole: bool) -> Request:
        """Send one request until it has a usable answer or no attempt is left."""
        now = self._clock.now()
        request = Request(batch, now, now)
        began, spent = time.monotonic(), 0.0
        try:
            for attempt in self._retrying(whole=whole):
                with attempt:
                    slot = slot or self._limiter.acquire()
                    if slot is None or self._stop:
                        break
                    try:
                        request.answer = self._attempt(request, slot)
                    finally:
                        slot = None
                        spent += request.latency
        except ApiError as exc:
            request.error = exc
        if request.answer is None and request.error is None:
            request.error = ApiError("the run was stopped before an answer came")
        request.polled_at = self._clock.now()
        request.waited = max(time.monotonic() - began - spent, 0.0)
        request.outcome = self._judge(request)
        return request

    def _retrying(self, *, whole: bool) -> tenacity.Retrying:
        base = BACKOFF_SECONDS if whole else SPLIT_BACKOFF_SECONDS
        growing = tenacity.wait_exponential(multiplier=base, max=BACKOFF_MAX_SECONDS)
        backoff = growing + tenacity.wait_random(0, base)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            # After a refusal the limiter is silent for everybody.
            return 0.0 if isinstance(error, RateLimitedError) else backoff(state)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableApiError),
            wait=wait,
            stop=lambda state: (
                bool(self._stop) or state.attempt_number >= self._settings.max_attempts
            ),
            sleep=self._stop.sleep,
            reraise=True,
        )

    def _attempt(self, request: Request, slot: Slot) -> Answer:
        request.attempts += 1
        began = time.monotonic()
        self.progress.sending()
        try:
            answer = self._client.ask(
                request.batch.oa_id,
                request.batch.ref_ids,
                lambda: self._limiter.sent(slot),
            )
        except RateLimitedError as exc:
            self._limiter.sent(slot)
            self._limiter.refused(slot, exc.retry_after)
            raise
        finally:
            self._limiter.sent(slot)
            self.progress.ended()
            request.latency = time.monotonic() - began
        self._limiter.accepted()
        return answer

    def _judge(self, request: Request) -> str:
        """Say how a request ended, and what follows for the run."""
        error = request.error
        if error is None:
            self._exhausted_in_a_row = 0
            return "answered"
        if isinstance(error, OaRefusedError):
            self._refused[request.batch.oa_id] = error
            return "refused"
        if isinstance(error, CredentialsError):
            request.retry_immediately = True
            self._stop(error)
            return "refused"
        if self._stop:
            request.retry_immediately = True
            return "failed"
        self._exhausted_in_a_row += 1
        if self._exhausted_in_a_row >= OUTAGE_AFTER:
            text = f"the API gave no usable answer to {OUTAGE_AFTER} requests in a row"
            self._stop(OutageError(f"{text}, at last: {error}; run again later"))
        alone = len(request.batch.rows) == 1 or isinstance(error, RateLimitedError)
        return "failed" if alone else "split"
