"""Attempts that end in time, whatever the server sends.

urllib3 bounds each read from a socket, not their sum: a server that sends a byte now
and then would hold a thread without end. Here each wait is at most what is left.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HEAD_BYTES: Final = 128 * 1024
"""What may come before the body: interim answers, status line, headers."""


class _Attempt(threading.local):
    ends_at = float("inf")


_attempt = _Attempt()


@contextmanager
def attempt(seconds: float) -> Iterator[None]:
    """End all waits of this thread for a server after so many seconds."""
    _attempt.ends_at = time.monotonic() + seconds
    try:
        yield
    finally:
        _attempt.ends_at = float("inf")


def seconds_left() -> float:
    """Return how long this thread's attempt may still take.

    Raises:
        TimeoutError: No longer.
    """
    left = _attempt.ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("the attempt took too long")
    return left


class _Bounded(io.RawIOBase):
    """The reading end of a socket: each read takes at most what is left.

    Attributes:
        allowed: How many bytes may come.
    """

    def __init__(self, connection: socket.socket, raw: io.RawIOBase) -> None:
        self.allowed = float(MAX_HEAD_BYTES)
        self._connection = connection
        self._raw = raw
        self._timeout = connection.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  any writable buffer
        self._connection.settimeout(_at_most(self._timeout))
        size = self._raw.readinto(buffer)
        self.allowed -= size or 0
        if self.allowed < 0:
            raise HTTPException("headers without end")
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


def _at_most(seconds: float | None) -> float:
    left = seconds_left()
    return left if seconds is None else min(seconds, left)


class _Response(HTTPResponse):
    """An answer whose head is bounded, and that ends in time."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  passed on
        super().__init__(sock, *args, **kwargs)
        self._bounded = _Bounded(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._bounded)

    def begin(self) -> None:
        super().begin()
        self._bounded.allowed = float("inf")


class _InTime:
    """What both kinds of connections do to end in time."""

    host: str
    port: int
    sock: socket.socket | None
    timeout: float | None

    def _new_conn(self) -> socket.socket:
        # urllib3 gives each address of a host the whole time.
        addresses = 1
        with suppress(OSError):
            kind = socket.SOCK_STREAM
            addresses = len(socket.getaddrinfo(self.host, self.port, type=kind))
        self.timeout = min(_at_most(self.timeout), seconds_left() / addresses)
        opened: socket.socket = super()._new_conn()  # type: ignore[misc]
        opened.settimeout(_at_most(self.timeout))
        return opened

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]
        if self.sock is not None:
            self.sock.settimeout(_at_most(self.timeout))

    def send(self, data: Any) -> None:  # noqa: ANN401  passed on
        if self.sock is not None:
            self.sock.settimeout(_at_most(self.timeout))
        super().send(data)  # type: ignore[misc]


class InTimeHTTPConnection(_InTime, HTTPConnection):
    """A connection in plain http whose waits end in time."""

    response_class = _Response


class InTimeHTTPSConnection(_InTime, HTTPSConnection):
    """An encrypted connection whose waits end in time."""

    response_class = _Response
