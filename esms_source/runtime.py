"""What lives while a run is under way: its clock, its end, its progress, its counts."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from filelock import FileLock

from esms_source.exceptions import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esms_source.exceptions import EsmsError


logger = logging.getLogger("esms_source")


class Clock:
    """Tell UTC times that never step back, whatever is done to the wall clock."""

    def __init__(self) -> None:
        self.started_at = datetime.now(timezone.utc)
        self._started = time.monotonic()

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return self.started_at + timedelta(seconds=time.monotonic() - self._started)


class Stop:
    """Monotonic time whose waits end when the run is told to stop.

    Attributes:
        reason: Why the run stops, once it does.
    """

    def __init__(self) -> None:
        self.reason: EsmsError | None = None
        self._event = threading.Event()
        self._parts: WeakSet[Stop] = WeakSet()

    def __call__(self, reason: EsmsError) -> None:
        """Tell the run to stop; the first reason counts."""
        if self.reason is None:
            self.reason = reason
        self._event.set()
        for part in list(self._parts):
            part(reason)

    def part(self) -> Stop:
        """Return the stop of a part: it ends with the run, and may end before it."""
        part = Stop()
        self._parts.add(part)
        if self.reason:
            part(self.reason)
        return part

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
def stop_on_signals() -> Iterator[Stop]:
    """Let SIGINT and SIGTERM end a run in order."""
    stop = Stop()

    def end(number: int, _: object) -> None:
        name = signal.Signals(number).name
        stop(StoppedError(f"stopped by {name}", "what was answered is loaded"))

    kept = {
        number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


SCRATCH: Final = "esms-scratch-"
SWEEP_SECONDS: Final = 2
"""Age of a folder that may be swept: a younger one may just be about to be locked."""

_IN_USE: Final = "in-use.lock"


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder for RefIds that only its user may read, gone afterwards.

    Its process holds a lock in it, which ends with the process, however that ends:
    the next such folder that anybody makes sweeps those that nobody holds. A process
    id wouldn't tell: another container or host may share the temporary folder.
    """

    def __init__(self) -> None:
        # A run that begins just now may try the lock, and so put it there again, while
        # the folder is dropped: it drops the rest.
        super().__init__(prefix=f"{SCRATCH}{os.getpid()}-", ignore_cleanup_errors=True)
        # Whichever thread is the last one may drop the folder.
        self._lock = FileLock(Path(self.name, _IN_USE), timeout=0, thread_local=False)
        self._lock.acquire()
        _sweep(Path(self.name))

    def cleanup(self) -> None:
        """Drop the folder."""
        self._lock.release()
        super().cleanup()


def _sweep(own: Path) -> None:
    """Remove the scratch folders of processes that have been killed."""
    user = own.stat().st_uid
    for folder in own.parent.glob(f"{SCRATCH}*"):
        lock = folder / _IN_USE
        with suppress(OSError):
            found = lock.stat()
            if found.st_uid == user and time.time() - found.st_mtime > SWEEP_SECONDS:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def keep_private(folder: Path) -> None:
    """Let no other user read a folder; a group that may write to it goes on.

    dlt's working folder holds what is being loaded, and its own state.
    """
    with suppress(OSError):
        mode = folder.stat().st_mode
        folder.chmod(mode & (0o2770 if mode & 0o020 else 0o700))


@dataclass
class Progress:
    """What is under way, for whoever watches the run.

    Attributes:
        total: RefIds to ask in this run.
        asked: RefIds whose request has ended.
        in_flight: Requests under way.
        sent: Attempts that were sent.
        stage: What the run is at: planning, asking, loading or making views.
        waits_for: What the run waits for that somebody else holds, if anything.
    """

    total: int = 0
    asked: int = 0
    in_flight: int = 0
    sent: int = 0
    stage: str = "planning"
    waits_for: str | None = None
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

    def wait_for(self, what: str | None) -> None:
        """Note what is waited for, or that nothing is any more."""
        self.waits_for = what

    def done(self, ref_ids: int) -> None:
        """Count RefIds whose request has ended."""
        with self._lock:
            self.asked += ref_ids


@dataclass
class Counts:
    """Counts of RefIds, rows and requests, and where the time went.

    Attributes:
        asked: RefIds asked, each once.
        answered: Those with at least one row.
        missing: Those answered without a row.
        failed: Those without a usable answer.
        rows: Callback rows that came.
        rejected: Rows that couldn't be placed.
        misfits: Values that didn't fit their column; ``extra`` keeps them.
        requests: Requests that ended, splits too.
        attempts: How often a request was sent.
        queried: RefIds that QueryZnsStatus was asked for, as GetCallback had no row.
        found: Those that it had a row for.
        queries: How often it was asked.
        problems: Why RefIds failed, with how many.
        warnings: What else went wrong, without which the run goes on.
        seconds: Time per stage: plan, ask (of which decode and build), load.
    """

    asked: int = 0
    answered: int = 0
    missing: int = 0
    failed: int = 0
    rows: int = 0
    rejected: int = 0
    misfits: int = 0
    requests: int = 0
    attempts: int = 0
    queried: int = 0
    found: int = 0
    queries: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def warn(self, text: str) -> None:
        """Note what went wrong beside the main job; once, and in the log."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("%s", text)

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
