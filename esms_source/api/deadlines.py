"""Attempts that end in time, whatever the server sends.

urllib3 bounds each read from a socket, not their sum: a server that sends a byte now
and then would hold a thread for ever. So one thread breaks connections off.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection

from esms_source.exceptions import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator

OUT_OF_TIME: Final = "time-out while the answer was coming"


class Attempt:
    """One request under way, and the connection that it uses.

    Attributes:
        ends_at: When it is broken off, in monotonic seconds.
        is_broken: Whether that has happened.
        has_ended: Whether the answer came, or an error.
    """

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.is_broken = False
        self.has_ended = False
        self._lock = threading.Lock()
        self._handle: socket.socket | None = None

    def uses(self, connection: socket.socket) -> None:
        """Note the connection that is used from now on."""
        # A handle of our own stays when TLS or the answer takes the socket over.
        handle = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            before, self._handle = self._handle, handle
            if self.is_broken:
                self._shut_down()
        if before is not None:
            before.close()

    def require_time(self, status: int) -> None:
        """Refuse what may be cut short, as the connection was broken off.

        Raises:
            TransportError: It was.
        """
        if self.is_broken:
            raise TransportError(OUT_OF_TIME, http_status=status)

    def break_off(self) -> None:
        """End what waits for the connection, with an error."""
        with self._lock:
            if not self.has_ended:
                self.is_broken = True
                self._shut_down()

    def end(self) -> None:
        """Let another attempt have the connection."""
        with self._lock:
            self.has_ended = True
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _shut_down(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)


class Deadlines:
    """Break attempts off that take too long, whatever the server sends.

    Args:
        seconds: What an attempt may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # All may take equally long: the first one that began ends first.
        self._attempts: deque[Attempt] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Watch over the requests of this thread until the block ends."""
        attempt = Attempt(time.monotonic() + self._seconds)
        with self._changed:
            while self._attempts and self._attempts[0].has_ended:
                self._attempts.popleft()
            self._attempts.append(attempt)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="esms-deadlines", daemon=True
                )
                self._thread.start()
        _current.attempt = attempt
        try:
            yield attempt
        finally:
            attempt.end()
            _current.attempt = None

    def close(self) -> None:
        """Watch no longer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                while self._attempts and (
                    self._attempts[0].has_ended or self._attempts[0].ends_at <= now
                ):
                    self._attempts.popleft().break_off()
                # Whatever begins meanwhile ends later than so.
                wait = self._seconds
                if self._attempts:
                    wait = self._attempts[0].ends_at - now
                self._changed.wait(wait)


class _Current(threading.local):
    attempt: Attempt | None = None


_current = _Current()


class _Breakable:
    """A connection that tells the attempt of its thread which socket it uses."""

    sock: socket.socket | None

    def _new_conn(self) -> socket.socket:
        opened: socket.socket = super()._new_conn()  # type: ignore[misc]
        _tell(opened)
        return opened

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  passed on
        if self.sock is not None:
            _tell(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]


def _tell(opened: socket.socket) -> None:
    if _current.attempt is not None:
        _current.attempt.uses(opened)


class BreakableHTTPConnection(_Breakable, HTTPConnection):
    """A connection in plain http that can be broken off."""


class BreakableHTTPSConnection(_Breakable, HTTPSConnection):
    """An encrypted connection that can be broken off."""
