"""What a run did, in numbers."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Tally:
    """Counts of RefIds, rows and requests, and where the time went.

    Attributes:
        asked: RefIds asked, each once.
        answered: Those with at least one row.
        missing: Those answered without a row.
        failed: Those without a usable answer.
        rows: Callback rows that came.
        rejected: Rows that couldn't be placed.
        requests: Requests that ended, splits too.
        attempts: How often a request was sent.
        problems: Why RefIds failed, with how many.
        seconds: Time per stage: plan, ask (of which decode and build), load.
    """

    asked: int = 0
    answered: int = 0
    missing: int = 0
    failed: int = 0
    rows: int = 0
    rejected: int = 0
    requests: int = 0
    attempts: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.spend(stage, time.monotonic() - began)

    def spend(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
