"""A body sent, an answer received: within bounds of time and size."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Timeout
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from esms_source.api.deadlines import (
    OUT_OF_TIME,
    BreakableHTTPConnection,
    BreakableHTTPSConnection,
    Deadlines,
)
from esms_source.exceptions import MalformedAnswerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

    from esms_source.api.deadlines import Attempt
    from esms_source.config import Settings

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024

MAX_HELD_BYTES: Final = 96 * 1024 * 1024
"""What all answers may take that are being received or wait to become rows.

One more answer of ``MAX_ANSWER_BYTES`` may come in any case, so that somebody goes on.
"""


class Received(NamedTuple):
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

    def post(self, content: bytes, on_sent: Callable[[], None]) -> Received:
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
    ) -> Received:
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
            return Received(response.status, response.headers, received)

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
    pool.ConnectionCls = (
        BreakableHTTPConnection if is_plain else BreakableHTTPSConnection
    )
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
