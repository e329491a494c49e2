"""One clock per run: wall time at its start, monotonic from there."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone


class Clock:
    """Tell UTC times that never step back, whatever is done to the wall clock."""

    def __init__(self) -> None:
        self.started_at = datetime.now(timezone.utc)
        self._started = time.monotonic()

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return self.started_at + timedelta(seconds=time.monotonic() - self._started)
