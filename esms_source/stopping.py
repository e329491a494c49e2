"""How a run is told to stop: by a signal, a refusal or an outage."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from esms_source.exceptions import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esms_source.exceptions import EsmsError


class Stop:
    """Monotonic time whose waits end when the run is told to stop.

    Attributes:
        reason: Why the run stops, once it does.
    """

    def __init__(self) -> None:
        self.reason: EsmsError | None = None
        self._event = threading.Event()

    def __call__(self, reason: EsmsError) -> None:
        """Tell the run to stop; the first reason counts."""
        if self.reason is None:
            self.reason = reason
        self._event.set()

    def __bool__(self) -> bool:
        """Tell whether the run is to stop."""
        return self._event.is_set()

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait, and return True as soon as the run is to stop."""
        return self._event.wait(seconds)

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until the run is to stop."""
        self._event.wait(seconds)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Let SIGINT and SIGTERM end a run in order."""
    stop = Stop()

    def end(number: int, _: object) -> None:
        name = signal.Signals(number).name
        stop(StoppedError(f"stopped by {name}; what was answered is loaded"))

    kept = {
        number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
