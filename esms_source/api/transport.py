"""A body sent, an answer received: within bounds of time and size.

urllib3 bounds each read from a socket, not their sum: a server that sends a byte now
and then would hold a thread for ever. So one thread breaks connections off.
"""

from __future__ import annotations

import io
import os
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from esms_source.exceptions import MalformedAnswerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

    from esms_source.config import Settings

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024

MAX_HELD_BYTES: Final = 96 * 1024 * 1024
"""What all answers may take that are being received or wait to become rows.

One more answer of ``MAX_ANSWER_BYTES`` may come in any case, so that somebody goes on.
"""


class Reply(NamedTuple):
    """An answer as it was received."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Transport:
    """Send bodies to one URL; safe to share between threads.

    Args:
        url: Where to; proxies and certificates are those of the environment.
        settings: The time-outs, and how many connections are kept.

    Attributes:
        held: How many bytes of answers are held; whoever is done with one releases it.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self.held = HeldBytes()
        self._path = urlsplit(url).path
        self._timeout = Timeout(
            connect=settings.connect_timeout, read=settings.read_timeout
        )
        self._deadlines = Deadlines(
            settings.connect_timeout + 2 * settings.read_timeout
        )
        self._headers = {
            "Accept-Encoding": "gzip, deflate",
            "Content-Type": "application/json",
            "User-Agent": "esms-source",
        }
        self._pool = _open_pool(url, settings.max_in_flight)

    def post(self, content: bytes, on_sent: Callable[[], None]) -> Reply:
        """Send a body and receive the answer; its content counts as held.

        Args:
            content: The body.
            on_sent: Called once it has left.

        Raises:
            TransportError: No complete answer came in time.
            MalformedAnswerError: The answer is too large.
        """
        with self._deadlines.attempt() as attempt:
            try:
                return self._post(content, on_sent, attempt)
            except (HTTPError, OSError) as exc:
                # Only the kind of error: its text may quote what was sent.
                text = OUT_OF_TIME if attempt.is_broken else _describe(exc)
                raise TransportError(text) from None

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        self._deadlines.close()

    def _post(
        self, content: bytes, on_sent: Callable[[], None], attempt: Attempt
    ) -> Reply:
        with self._pool.urlopen(
            "POST",
            self._path,
            body=_Body(content, on_sent),
            headers=self._headers | {"Content-Length": str(len(content))},
            timeout=self._timeout,
            retries=False,
            redirect=False,
            preload_content=False,
        ) as response:
            received = self._receive(response, attempt)
            return Reply(response.status, response.headers, received)

    def _receive(self, response: BaseHTTPResponse, attempt: Attempt) -> bytes:
        content = bytearray()
        try:
            while chunk := response.read1(CHUNK_BYTES, decode_content=True):
                self.held.take(attempt, len(chunk))
                content += chunk
                _require_small(content, response.status)
            attempt.require_time(response.status)
        except BaseException:
            self.held.release(len(content), attempt)
            raise
        self.held.settle(attempt)
        return bytes(content)


def _require_small(content: bytearray, status: int) -> None:
    if len(content) > MAX_ANSWER_BYTES:
        text = f"an answer above {MAX_ANSWER_BYTES >> 20} MiB"
        raise MalformedAnswerError(text, http_status=status)


OUT_OF_TIME: Final = "time-out while the answer was coming"


class _Body(io.BytesIO):
    """A request body that tells when the last of it has left."""

    def __init__(self, content: bytes, on_sent: Callable[[], None]) -> None:
        super().__init__(content)
        self._on_sent = on_sent

    def read(self, size: int | None = -1) -> bytes:
        chunk = super().read(size)
        if not chunk:
            self._on_sent()
        return chunk


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


class _HTTPConnection(_Breakable, HTTPConnection):
    pass


class _HTTPSConnection(_Breakable, HTTPSConnection):
    pass


class HeldBytes:
    """Bound what all answers take together; who finds no room waits.

    Attributes:
        is_short: Whether anybody waits.
    """

    def __init__(self, most: int = MAX_HELD_BYTES) -> None:
        self.is_short = False
        self._most = most
        self._taken = 0
        self._extra: Attempt | None = None
        self._room = threading.Condition()

    def take(self, attempt: Attempt, size: int) -> None:
        """Hold more; wait for room, at most until the attempt's end.

        Raises:
            TransportError: There was no room in time.
        """
        with self._room:
            while not self._has_room(attempt, size):
                self.is_short = True
                wait = attempt.ends_at - time.monotonic()
                if wait <= 0 or not self._room.wait(wait):
                    raise TransportError("too many large answers at once")
            self._taken += size

    def settle(self, attempt: Attempt) -> None:
        """Note that an attempt takes no more."""
        with self._room:
            if self._extra is attempt:
                self._extra = None

    def release(self, size: int, attempt: Attempt | None = None) -> None:
        """Let go of so many bytes."""
        with self._room:
            self._taken -= size
            if attempt is not None and self._extra is attempt:
                self._extra = None
            self.is_short = False
            self._room.notify_all()

    def _has_room(self, attempt: Attempt, size: int) -> bool:
        if self._taken + size <= self._most or self._extra is attempt:
            return True
        # One at a time may go on, so that not all wait for each other.
        if self._extra is None and self._taken + size <= self._most + MAX_ANSWER_BYTES:
            self._extra = attempt
            return True
        return False


def _open_pool(url: str, connections: int) -> HTTPConnectionPool:
    """Open kept connections, with the proxy and certificates that requests finds.

    Asking through its session itself would cost twice the CPU time per request.
    """
    session = requests.Session()
    # A proxy may see an encrypted tunnel, never a body in plain http.
    session.trust_env = urlsplit(url).scheme == "https"
    found = session.merge_environment_settings(url, {}, None, None, None)
    adapter = HTTPAdapter(pool_maxsize=connections)
    request = requests.Request("POST", url).prepare()
    pool = cast(
        "HTTPConnectionPool",
        adapter.get_connection_with_tls_context(
            request, found["verify"], found["proxies"], found["cert"]
        ),
    )
    adapter.cert_verify(  # type: ignore[no-untyped-call]
        pool, url, found["verify"], found["cert"]
    )
    is_plain = pool.scheme == "http"
    # Of the pool itself, not of its class, which is everybody's.
    pool.ConnectionCls = _HTTPConnection if is_plain else _HTTPSConnection
    return pool


def _describe(exc: Exception) -> str:
    if isinstance(exc, NewConnectionError):
        return "connection failed"
    if isinstance(exc, ConnectTimeoutError):
        return "time-out while connecting"
    if isinstance(exc, ReadTimeoutError):
        return "time-out while waiting for the answer"
    if isinstance(exc, SSLError):
        return "the server's certificate was not accepted"
    return f"connection broken ({type(exc).__name__})"
