"""A body sent, an answer received: within bounds of time and size."""

from __future__ import annotations

import io
from contextlib import contextmanager
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
    InTimeHTTPConnection,
    InTimeHTTPSConnection,
    attempt,
    seconds_left,
)
from esms_source.api.held import MAX_ANSWER_BYTES, ReceivedBytes
from esms_source.exceptions import MalformedAnswerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

    from esms_source.api.held import Share
    from esms_source.config import Settings

CHUNK_BYTES: Final = 256 * 1024

ENCODINGS: Final = ("gzip", "deflate")
"""Content-Encodings that are asked for, and read."""


class Received(NamedTuple):
    """An answer as it was received."""

    status: int
    headers: Mapping[str, str]
    content: bytearray


class Transport:
    """Send bodies to one URL; safe to share between threads.

    Args:
        url: Where to; proxies and certificates are those of the environment.
        settings: The time-outs, and how many connections are kept.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._path = urlsplit(url).path
        self._timeout = Timeout(
            connect=settings.connect_timeout, read=settings.read_timeout
        )
        self._seconds = settings.connect_timeout + 2 * settings.read_timeout
        self._headers = {
            "Accept-Encoding": ", ".join(ENCODINGS),
            "Content-Type": "application/json",
            "User-Agent": "esms-source",
        }
        self._received = ReceivedBytes()
        self._pool = _open_pool(url, settings.max_in_flight)

    @contextmanager
    def post(self, content: bytes, on_sent: Callable[[], None]) -> Iterator[Received]:
        """Send a body and receive the answer, whose room is free after the block.

        Args:
            content: The body.
            on_sent: Called once it has left.

        Raises:
            TransportError: No complete answer came in time.
            MalformedAnswerError: The answer is too large, or packed in an odd way.
        """
        with self._received.share() as share:
            try:
                with attempt(self._seconds):
                    received = self._post(content, on_sent, share)
            except (HTTPError, OSError) as exc:
                # Only the kind of error: its text may quote what was sent.
                raise TransportError(_describe(exc)) from None
            yield received

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _post(
        self, content: bytes, on_sent: Callable[[], None], share: Share
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
            received = _receive(response, share)
            return Received(response.status, response.headers, received)


def _receive(response: BaseHTTPResponse, share: Share) -> bytearray:
    status = response.status
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", *ENCODINGS}:
        text = f"an answer in Content-Encoding {encoding[:20]}"
        raise MalformedAnswerError(ascii(text)[1:-1], http_status=status)
    content = bytearray()
    while chunk := response.read1(CHUNK_BYTES, decode_content=True):
        seconds_left()
        share.grow(len(chunk))
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            text = f"an answer above {MAX_ANSWER_BYTES >> 20} MiB"
            raise MalformedAnswerError(text, http_status=status)
    return content


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
    pool.ConnectionCls = InTimeHTTPConnection if is_plain else InTimeHTTPSConnection
    return pool


def _describe(exc: Exception) -> str:
    if isinstance(exc, NewConnectionError):
        return "connection failed"
    if isinstance(exc, ConnectTimeoutError):
        return "time-out while connecting"
    if isinstance(exc, (ReadTimeoutError, TimeoutError)):
        return "time-out while waiting for the answer"
    if isinstance(exc, SSLError):
        return "the server's certificate was not accepted"
    return f"connection broken ({type(exc).__name__})"
