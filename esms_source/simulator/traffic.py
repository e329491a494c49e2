"""What the server saw: every arrival, and what became of it."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WINDOW_SECONDS = 1.0
"""The window of the documented limit: so many requests per second."""

Asked = tuple[str, str]
"""A RefId as the API knows it: (oa_id, ref_id)."""


class Arrivals:
    """The record of one simulator; every method may be called from any thread.

    Args:
        rate: Most arrivals in any one-second window; None or 0 for no limit.
        record_ref_ids: Keep counts per RefId too.
    """

    def __init__(self, rate: float | None, *, record_ref_ids: bool) -> None:
        self._rate = rate
        self._record_ref_ids = record_ref_ids
        self._lock = threading.Lock()
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything but the requests that are under way."""
        with self._lock:
            self._times: list[float] = []
            self._faults: Counter[str] = Counter()
            self._asks: Counter[Asked] = Counter()
            self._answers: Counter[Asked] = Counter()
            self._totals: Counter[str] = Counter()
            self._oa_ids: set[str] = set()
            self._most_in_flight = self._in_flight

    def arrive(self, at: float) -> tuple[int, bool]:
        """Note an arrival (monotonic seconds).

        Returns:
            Its number, from 1, and whether it is above the rate. Refused arrivals
            fill the window like any other.
        """
        with self._lock:
            # Heads that come in pieces may be complete out of order.
            insort(self._times, at)
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)
            window = bisect_right(self._times, at) - bisect_right(
                self._times, at - WINDOW_SECONDS
            )
            refused = bool(self._rate) and window > (self._rate or 0)
            self._totals["refusals"] += refused
            return len(self._times), refused

    def leave(self) -> None:
        """Note that a request is no longer under way."""
        with self._lock:
            self._in_flight -= 1

    def note_fault(self, name: str) -> None:
        """Note that a request was answered with a fault."""
        with self._lock:
            self._faults[name] += 1

    def note_redirect_followed(self) -> None:
        """Note that a client went where a redirect pointed to."""
        with self._lock:
            self._totals["redirects_followed"] += 1

    def note_asked(self, oa_id: str, ref_ids: Iterable[str]) -> None:
        """Note the RefIds of a request as they came, repeats included."""
        self._note("ref_ids_asked", self._asks, oa_id, ref_ids)
        with self._lock:
            self._oa_ids.add(oa_id)

    def note_answered(self, oa_id: str, ref_ids: Iterable[str]) -> None:
        """Note the RefIds that a usable answer was made for."""
        self._note("ref_ids_answered", self._answers, oa_id, ref_ids)

    def _note(
        self, total: str, per_id: Counter[Asked], oa_id: str, ref_ids: Iterable[str]
    ) -> None:
        ids = list(ref_ids)
        with self._lock:
            self._totals[total] += len(ids)
            if self._record_ref_ids:
                per_id.update((oa_id, ref_id) for ref_id in ids)

    @property
    def oa_ids(self) -> set[str]:
        """The OAs that were asked for."""
        with self._lock:
            return self._oa_ids.copy()

    @property
    def times(self) -> list[float]:
        """All arrivals in monotonic seconds, in order."""
        with self._lock:
            return self._times.copy()

    @property
    def requests(self) -> int:
        """Number of arrivals, refused ones included."""
        with self._lock:
            return len(self._times)

    @property
    def refusals(self) -> int:
        """Number of arrivals above the rate."""
        with self._lock:
            return self._totals["refusals"]

    @property
    def faults(self) -> dict[str, int]:
        """Number of requests per fault; refusals are not among them."""
        with self._lock:
            return dict(self._faults)

    @property
    def asks(self) -> Counter[Asked]:
        """How often each (oa_id, ref_id) was asked, in whatever request."""
        with self._lock:
            return self._asks.copy()

    @property
    def answers(self) -> Counter[Asked]:
        """How often each (oa_id, ref_id) was part of a usable answer."""
        with self._lock:
            return self._answers.copy()

    @property
    def most_in_one_second(self) -> int:
        """Most arrivals in any window [t, t + 1)."""
        times = self.times
        return max(
            (
                bisect_left(times, start + WINDOW_SECONDS) - index
                for index, start in enumerate(times)
            ),
            default=0,
        )

    def rate_used(self, rate: float) -> float | None:
        """Return the mean rate from first to last arrival as a share of ``rate``."""
        times = self.times
        seconds = times[-1] - times[0] if times else 0.0
        return (len(times) - 1) / seconds / rate if seconds else None

    def stats(self) -> dict[str, object]:
        """Return all figures, ready for JSON; no RefId is among them."""
        times = self.times
        with self._lock:
            totals, answers = self._totals.copy(), self._answers.copy()
            figures: dict[str, object] = {
                "faults": dict(self._faults),
                "most_in_flight": self._most_in_flight,
            }
        if self._record_ref_ids:
            figures["distinct_ref_ids_answered"] = len(answers)
            figures["most_answers_for_one_ref_id"] = max(answers.values(), default=0)
        return {
            "requests": len(times),
            "refusals": totals["refusals"],
            "redirects_followed": totals["redirects_followed"],
            "ref_ids_asked": totals["ref_ids_asked"],
            "ref_ids_answered": totals["ref_ids_answered"],
            "most_in_one_second": self.most_in_one_second,
            "seconds": times[-1] - times[0] if times else 0.0,
            "rate": self._rate or None,
            "rate_used": self.rate_used(self._rate) if self._rate else None,
            **figures,
        }
