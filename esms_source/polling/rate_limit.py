"""When the next request may leave: a window over the moments really sent."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Protocol

MARGIN: Final = 0.028
"""Part of a second by which the window is longer than the API's second.

It absorbs how unevenly requests travel: what leaves 1.028 s apart still
arrives at least a second apart when travel time varies by less than 28 ms.
"""

SPACING: Final = 0.95
"""Least distance of two requests, as part of an even spread.

Even spacing keeps the server's work even; below 1 a late request is caught up.
"""

SLOW_DOWN: Final = 0.7
"""Factor on the pace after a refusal, from section 6.3 of the contract."""

MOST_WAIT: Final = 300.0
"""Seconds of silence after a refusal, at most, whatever Retry-After says."""

HOLD: Final = 0.95
"""Where the fast climb ends, as part of the pace that was refused."""

HOLD_AGAIN: Final = 0.8
"""The same after a refusal that follows the last one soon: aim lower."""

SETTLE_SECONDS: Final = 10.0
"""Refusals closer than this say that the pace is still far too high."""

CALM_SECONDS: Final = 30.0
"""So long without a refusal, and the API may have room again: climb fast."""

CLIMB_FAST: Final = 1.02
CLIMB_SLOW: Final = 1.0002
"""Factors on the pace for each request that was accepted."""

UNSENT_POLL_SECONDS: Final = 0.002
"""How soon to look again while all requests of the window are still leaving."""


class Pausing(Protocol):
    """Monotonic seconds and an interruptible wait."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""

    def wait(self, seconds: float) -> bool:
        """Wait, and return True as soon as the run is to stop."""


@dataclass(eq=False)
class Slot:
    """Leave to send one request.

    Attributes:
        granted_at: When leave was given, in monotonic seconds.
        sent_at: When the request had left, or None while it hasn't.
        previous: When leave was given before.
    """

    granted_at: float
    sent_at: float | None = None
    previous: float = float("-inf")


@dataclass
class Window:
    """The requests that still count, of all who ask with one key in this process.

    Attributes:
        lock: Held while the window is looked at or changed.
        slots: The requests, oldest first.
        last_granted_at: When the last leave was given, in monotonic seconds.
        quiet_until: When the silence after a refusal ends.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    slots: deque[Slot] = field(default_factory=deque)
    last_granted_at: float = float("-inf")
    quiet_until: float = float("-inf")


class RateLimiter:
    """Give leave for at most ``rate`` requests in any second, at the server.

    A slot counts from the moment its request has really left until a bit more
    than a second later, so that slow threads and handshakes can't bunch
    requests together. After a refusal the pace falls and climbs back.

    Args:
        rate: Requests a second, at least 1.
        clock: Monotonic time, and the wait that a stop interrupts.
        least_silence: Seconds of silence after a refusal, at least.
        window: What counts already; a window of its own without one.
    """

    def __init__(
        self,
        rate: float,
        clock: Pausing,
        least_silence: float = 1.0,
        window: Window | None = None,
    ) -> None:
        self.rate = rate
        self.pace = rate
        self._clock = clock
        self._least_silence = least_silence
        self._turn = threading.Lock()
        self._window = window or Window()
        self._unsent: set[Slot] = set()
        self._slowed_at = float("-inf")
        self._hold = rate

    def close(self) -> None:
        """End asking: what was given leave and hasn't left counts from now on.

        The window may outlive it, and a slot without an end would keep it closed.
        """
        with self._window.lock:
            for slot in self._unsent:
                slot.sent_at = self._clock.monotonic()
            self._unsent.clear()

    def acquire(self) -> Slot | None:
        """Wait for leave to send; None when the run is to stop."""
        # One thread waits for time, the others for their turn: no herd wakes.
        with self._turn:
            while True:
                with self._window.lock:
                    now = self._clock.monotonic()
                    wait = self._wait_from(now)
                    if wait <= 0:
                        return self._grant(now)
                if self._clock.wait(wait):
                    return None

    def sent(self, slot: Slot) -> None:
        """Note that the request of a slot has left; the first note counts."""
        with self._window.lock:
            if slot.sent_at is None:
                slot.sent_at = self._clock.monotonic()
                self._unsent.discard(slot)

    def release(self, slot: Slot) -> None:
        """Give back a slot that wasn't used."""
        with self._window.lock:
            self._window.slots.remove(slot)
            self._unsent.discard(slot)
            if self._window.last_granted_at == slot.granted_at:
                self._window.last_granted_at = slot.previous

    def refused(self, slot: Slot, retry_after: float) -> None:
        """Fall silent, then go on slower: the API refused the slot's request.

        Refusals of requests granted before the pace last fell don't slow it again.
        """
        with self._window.lock:
            now = self._clock.monotonic()
            wait = min(max(retry_after, self._least_silence), MOST_WAIT)
            self._window.quiet_until = max(self._window.quiet_until, now + wait)
            if slot.granted_at > self._slowed_at:
                again = now - self._slowed_at < SETTLE_SECONDS
                self._hold = self.pace * (HOLD_AGAIN if again else HOLD)
                self.pace = max(self.pace * SLOW_DOWN, 1.0)
                self._slowed_at = now

    def pause(self, seconds: float) -> None:
        """Fall silent: the API refused somebody else who may count as one with us."""
        with self._window.lock:
            until = self._clock.monotonic() + min(max(seconds, 1.0), MOST_WAIT)
            self._window.quiet_until = max(self._window.quiet_until, until)

    def accepted(self) -> None:
        """Climb back: fast to just below where it was refused, then slowly."""
        with self._window.lock:
            calm = self._clock.monotonic() - self._slowed_at > CALM_SECONDS
            climb = CLIMB_FAST if self.pace < self._hold or calm else CLIMB_SLOW
            self.pace = min(self.rate, self.pace * climb)

    def _grant(self, now: float) -> Slot:
        slot = Slot(now, previous=self._window.last_granted_at)
        self._window.slots.append(slot)
        self._unsent.add(slot)
        self._window.last_granted_at = now
        return slot

    def _wait_from(self, now: float) -> float:
        """Return the seconds until the next request may leave."""
        spacing = (SPACING if self.pace >= self.rate else 1.0) / self.pace
        ready_at = max(self._window.quiet_until, self._window.last_granted_at + spacing)
        window = 1 + MARGIN
        while (
            self._window.slots
            and (self._window.slots[0].sent_at or now) + window <= now
        ):
            self._window.slots.popleft()
        if len(self._window.slots) >= int(self.rate):
            ready_at = max(ready_at, self._window_opens_at(now, window))
        return ready_at - now

    def _window_opens_at(self, now: float, window: float) -> float:
        ends = [slot.sent_at + window for slot in self._window.slots if slot.sent_at]
        over = len(self._window.slots) - int(self.rate)
        if len(ends) <= over:
            return now + UNSENT_POLL_SECONDS
        return sorted(ends)[over]
