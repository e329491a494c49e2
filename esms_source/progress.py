"""What is under way in a run, counted."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Progress:
    """What is under way, for whoever watches the run.

    Attributes:
        total: RefIds to ask in this run.
        asked: RefIds whose request has ended.
        in_flight: Requests under way.
        sent: Attempts that were sent.
    """

    total: int = 0
    asked: int = 0
    in_flight: int = 0
    sent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def sending(self) -> None:
        """Count an attempt that begins."""
        with self._lock:
            self.in_flight += 1
            self.sent += 1

    def ended(self) -> None:
        """Count an attempt that has ended."""
        with self._lock:
            self.in_flight -= 1

    def done(self, ref_ids: int) -> None:
        """Count RefIds whose request has ended."""
        with self._lock:
            self.asked += ref_ids
