"""Batches to answers: at the rate, in threads, with retries."""

from __future__ import annotations

import time
from collections import deque
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import tenacity

from esms_source.api.remedies import DEAD_ENDS, remedy_for
from esms_source.exceptions import (
    ApiError,
    CredentialsError,
    OaRefusedError,
    OutageError,
    RateLimitedError,
    RetryableApiError,
    StoppedError,
    without_frames,
)
from esms_source.polling.rate_limit import MOST_WAIT
from esms_source.polling.workers import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pyarrow as pa

    from esms_source.api.request import Outcome, Request
    from esms_source.config import Settings
    from esms_source.polling.backoff import Backoff
    from esms_source.polling.doors import Door
    from esms_source.polling.rate_limit import Slot
    from esms_source.runtime import Clock, Progress, Stop

GROUP_BYTES: Final = 4 * 1024 * 1024
"""What their answers take at most, but for the last one."""

MOST_UNREAD: Final = 80
"""Requests that may have ended before anybody takes them: 4 seconds of the API."""

AHEAD_SHARE: Final = 0.25
"""Most of a slice that may be asked while the rest of it is loaded."""

OUTAGE_AFTER: Final = 60
"""So many requests in a row without a usable answer, and the run ends."""

DEAD_END_AFTER: Final = 3
"""So many attempts in a row that lead nowhere before any success, and the run ends."""


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
        settings: How often and how many at once.
        door: Which endpoint is asked.
        clock: The run's clock.
        stop: Ends the run when it is told to.
        progress: Told what is under way.
        backoff: How long to wait before asking again.
    """

    def __init__(
        self,
        settings: Settings,
        door: Door,
        clock: Clock,
        stop: Stop,
        progress: Progress,
        backoff: Backoff,
    ) -> None:
        self.progress = progress
        self._settings = settings
        self._door = door
        self._client, self._limiter = door.client, door.limiter
        self._clock = clock
        self._stop = stop
        self._backoff = backoff
        self._refused: dict[str, OaRefusedError] = {}
        self._exhausted_in_a_row = 0
        # None once the API answered: what it refuses then is a fault that passes.
        self._dead_ends: int | None = 0
        self._pool: WorkerPool[Request] | None = None
        self._todo: deque[Request] = deque()

    def close(self) -> None:
        """End what is under way, and let connections and budget go."""
        self._dismiss()
        self._limiter.close()
        self._client.close()

    def poll(self, work: Iterable[pa.Table]) -> Iterator[list[Request]]:
        """Ask all of some work; return the requests that end, in groups.

        Asking begins at once and goes on ahead of whoever takes the groups. When the
        run is told to stop, what is under way still ends. One work after another.
        """
        self._pool = WorkerPool(self._settings.max_in_flight, MOST_UNREAD)
        # All of them here: memory that each thread took a part of is slow to come back.
        self._todo = todo = deque(self._door.cut(work))
        self._pool.start(partial(self._work, todo, self._pool))
        return self._groups(self._pool)

    def unasked(self) -> list[Request]:
        """Return the requests that were not sent, once all others have ended."""
        for request in self._todo:
            request.started_at = request.polled_at = self._clock.now()
            request.error, request.outcome = ApiError("not asked"), "refused"
        return list(self._todo)

    def _groups(self, pool: WorkerPool[Request]) -> Iterator[list[Request]]:
        group: list[Request] = []
        held = 0
        try:
            for request in pool.results():
                group.append(request)
                held += request.held_bytes
                if len(group) >= self._door.group or held >= GROUP_BYTES:
                    yield group
                    # Whoever comes back for more has made rows of them.
                    self._client.release(group)
                    group, held = [], 0
            if group:
                yield group
        finally:
            self._client.release(group)
            self._dismiss()

    def _dismiss(self) -> None:
        if self._pool and not self._pool.has_ended:
            # Nobody takes what comes: threads must not wait out their retries.
            self._stop(StoppedError("loading failed while the API was being asked"))
            for request in self._pool.dismiss():
                self._client.release([request])

    def _work(self, todo: deque[Request], pool: WorkerPool[Request]) -> None:
        while not pool.dismissed:
            # Leave first, then the oldest batch: requests go out in order.
            with pool.in_line():
                slot = self._leave()
            if slot is None:
                return
            request = self._next(todo, pool)
            if request is None:
                self._limiter.release(slot)
                pool.finish()
                return
            self._ask_in_parts(request, slot, pool)

    def _leave(self) -> Slot | None:
        """Wait until the next request may leave; None when the run is to stop."""
        self._client.wait_for_loading()
        slot = self._limiter.acquire()
        # The limiter looks for a stop only where it has to wait.
        if slot and self._stop:
            self._limiter.release(slot)
            return None
        return slot

    def _next(self, todo: deque[Request], pool: WorkerPool[Request]) -> Request | None:
        while todo:
            try:
                request = todo.popleft()
            except IndexError:
                # Another thread took the last one.
                break
            if request.oa_id not in self._refused:
                return request
            request.started_at = request.polled_at = self._clock.now()
            request.error = self._refused[request.oa_id]
            request.outcome = "refused"
            self._end(request, pool)
        return None

    def _ask_in_parts(
        self, request: Request, slot: Slot | None, pool: WorkerPool[Request]
    ) -> None:
        """Ask a request, and when it stays without answer each half of it."""
        parts = [request]
        while parts:
            part = parts.pop()
            self._ask(part, slot, whole=part is request)
            slot = None
            if part.outcome == "split":
                parts.extend(reversed(part.parts()))
            self._end(part, pool)

    def _end(self, request: Request, pool: WorkerPool[Request]) -> None:
        if request.outcome != "split":
            self.progress.done(len(request.work))
        pool.put(request)

    def _ask(self, request: Request, slot: Slot | None, *, whole: bool) -> None:
        """Send one request until it has a usable answer or no attempt is left."""
        request.started_at = self._clock.now()
        began, spent = time.monotonic(), 0.0
        try:
            for attempt in self._retrying(whole=whole):
                with attempt:
                    slot = slot or self._leave()
                    if slot is None:
                        break
                    try:
                        self._attempt(request, slot)
                    finally:
                        slot = None
                        spent += request.latency
        except ApiError as exc:
            request.error = without_frames(exc)
        if request.columns is None and request.error is None:
            request.error = ApiError("the run was stopped before an answer came")
        request.polled_at = self._clock.now()
        request.waited = max(time.monotonic() - began - spent, 0.0)
        request.outcome = self._judge(request)

    def _retrying(self, *, whole: bool) -> tenacity.Retrying:
        base = self._backoff.whole if whole else self._backoff.part
        growing = tenacity.wait_exponential(multiplier=base, max=self._backoff.most)
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

    def _attempt(self, request: Request, slot: Slot) -> None:
        request.attempts += 1
        began = time.monotonic()
        self.progress.sending()
        try:
            self._client.ask(request, lambda: self._limiter.sent(slot))
        except RateLimitedError as exc:
            self._limiter.sent(slot)
            self._limiter.refused(slot, exc.retry_after)
            if self._door.pauses:
                self._door.pauses.pause(exc.retry_after)
            self._require_soon(exc)
            raise
        except RetryableApiError as exc:
            self._require_a_way(exc)
            raise
        finally:
            self._limiter.sent(slot)
            self.progress.ended()
            request.latency = time.monotonic() - began
        self._dead_ends = None
        self._limiter.accepted()

    def _require_soon(self, error: RateLimitedError) -> None:
        """End the run where the API wants to be left alone for long."""
        if error.retry_after > MOST_WAIT:
            back = self._clock.now() + timedelta(seconds=error.retry_after)
            text = f"the API asks for a wait of {error.retry_after:.0f} s ({error})"
            outage = OutageError(
                f"{text}; run again after {back:%Y-%m-%d %H:%M:%S} UTC",
                http_status=error.http_status,
            )
            outage.retry_after = error.retry_after
            raise outage

    def _require_a_way(self, error: RetryableApiError) -> None:
        """End the run where requests go to the wrong place, or are kept out."""
        if self._dead_ends is None:
            return
        is_dead_end = error.code is None and error.http_status in DEAD_ENDS
        self._dead_ends = self._dead_ends + 1 if is_dead_end else 0
        if self._dead_ends >= DEAD_END_AFTER:
            raise OutageError(
                f"the API can't be asked: {error}; {remedy_for(error)}",
                http_status=error.http_status,
            )

    def _judge(self, request: Request) -> Outcome:
        """Say how a request ended, and what follows for the run."""
        error = request.error
        if error is None:
            self._exhausted_in_a_row = 0
            # QueryZnsStatus may know it under another type.
            is_unknown = len(request.sms_types) > 1 and not request.rows
            return "split" if is_unknown else "answered"
        if isinstance(error, OaRefusedError):
            # QueryZnsStatus is asked for a message, not for an OA.
            if not request.sms_types:
                self._refused[request.oa_id] = error
            return "refused"
        if isinstance(error, CredentialsError):
            request.retry_immediately = True
            self._stop(error)
            return "refused"
        if isinstance(error, OutageError):
            self._stop(error)
        if self._stop:
            request.retry_immediately = True
            return "failed"
        self._exhausted_in_a_row += 1
        if self._exhausted_in_a_row >= OUTAGE_AFTER:
            text = f"the API gave no usable answer to {OUTAGE_AFTER} requests in a row"
            self._stop(OutageError(f"{text}, at last: {error}; run again later"))
        # The API answers others: it is this RefId's own fault.
        request.alone = len(request.work) == 1 and self._dead_ends is None
        return "failed" if len(request.work) == 1 else "split"
