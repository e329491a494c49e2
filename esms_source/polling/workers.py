"""Threads that work until nothing is left: as many as are needed."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from esms_source.exceptions import EsmsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

GROW_SECONDS: Final = 0.005
"""How long a thread that comes to help waits before it stands in line."""

READ_SECONDS: Final = 0.02
"""How long results gather where none is unread: to wake for each costs 3 % more CPU."""


class WorkerPool(Generic[T]):
    """Threads that work until there is nothing left, and what they bring back.

    There are only as many as are needed for one to stand in line.

    Args:
        size: Most threads.
        unread: Most results that lie unread before threads wait.
    """

    def __init__(self, size: int, unread: int) -> None:
        self.dismissed = False
        self._size = size
        self._queue: queue.Queue[T | BaseException | None] = queue.Queue(unread)
        self._lock = threading.Lock()
        self._alive = self._started = self._waiting = 0
        self._finished = threading.Event()
        self._work: Callable[[], None] = self.finish

    @property
    def has_ended(self) -> bool:
        """Tell whether no thread is left and all results were taken."""
        return not self._alive

    def start(self, work: Callable[[], None]) -> None:
        """Let threads work."""
        self._work = work
        with self._lock:
            self._add()

    def finish(self) -> None:
        """Note that nothing is left to begin: nobody more is needed."""
        self._size = 0
        self._finished.set()

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """Stand in line; when nobody does any more, another thread comes to help."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting and self._is_short_handed():
                    self._add()

    def _is_short_handed(self) -> bool:
        """Tell whether one more can be of use: not while results pile up."""
        return self._started < self._size and self._queue.qsize() <= self._alive

    def _add(self) -> None:
        name = f"esms-{self._started + 1}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            # The machine has no more; fewer do the work, too.
            if not self._alive:
                remedy = "raise the limit of processes (ulimit -u)"
                raise EsmsError("no thread can be started", remedy) from exc
            return
        self._alive += 1
        self._started += 1

    def _run(self) -> None:
        try:
            # Where requests leave faster than this, a thread may be back before.
            self._finished.wait(GROW_SECONDS)
            self._work()
        except BaseException as exc:  # noqa: BLE001  raised again in results()
            self._queue.put(exc)
        finally:
            self._queue.put(None)

    def put(self, result: T) -> None:
        """Bring back a result."""
        self._queue.put(result)

    def results(self) -> Iterator[T]:
        """Yield what is brought back until all threads have ended."""
        while self._alive:
            if self._queue.empty():
                time.sleep(READ_SECONDS)
            item = self._queue.get()
            if item is None:
                self._leave()
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def dismiss(self) -> Iterator[T]:
        """Let threads end after what they are at; yield what they still bring."""
        self.dismissed = True
        self.finish()
        while self._alive:
            item = self._queue.get()
            if item is None:
                self._leave()
            elif not isinstance(item, BaseException):
                yield item

    def _leave(self) -> None:
        with self._lock:
            self._alive -= 1
