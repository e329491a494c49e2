"""A request sent to an endpoint and its answer read: codes, and no leaked secret."""

from __future__ import annotations

import math
import threading
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from esms_source.api.envelope import (
    clip,
    read_envelope,
    read_message,
    require_ok,
    within_bounds,
)
from esms_source.api.fast_reader import SUCCESS
from esms_source.api.held import UnloadedBytes, weight
from esms_source.api.remedies import refusal
from esms_source.api.transport import Transport
from esms_source.exceptions import (
    ApiError,
    MalformedAnswerError,
    RateLimitedError,
    RetryableApiError,
    without_frames,
)
from esms_source.privacy import Privacy
from esms_source.redaction import first_line
from esms_source.storable import storable_text

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from esms_source.api.request import Request
    from esms_source.api.transport import Received
    from esms_source.config import Settings

T = TypeVar("T")

MOST_RETRY_AFTER: Final = 10 * 365 * 86_400.0
"""Seconds beyond which a Retry-After is no more than "not soon"."""


class Client:
    """Ask one endpoint, one request a call; safe to share between threads.

    Args:
        settings: As whom to ask, the time-outs, and what is hidden.
        url: Where the endpoint is.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        key, secret = settings.require_credentials()
        self._credentials = {"ApiKey": key, "SecretKey": secret}
        self._transport = Transport(url, settings)
        self._privacy = Privacy(settings)
        # Threads that read side by side would only fight over the interpreter.
        self._reading = threading.Lock()
        self._unloaded = UnloadedBytes()

    def wait_for_loading(self) -> None:
        """Wait while too much that was read has not become rows; see ``release``."""
        self._unloaded.wait()

    def ask(self, request: Request, on_sent: Callable[[], None]) -> None:
        """Send a request once and fill in its answer.

        Args:
            request: At most 200 RefIds.
            on_sent: Called once it has left.

        Raises:
            RateLimitedError: HTTP 429, 503 with Retry-After, or Code 160.
            RetryableApiError: No usable answer; the request may be sent again.
            CredentialsError: The key, the account or this host is refused.
            OaRefusedError: The OA is refused.
        """
        self._guarded(lambda: self._ask(request, on_sent))

    def release(self, requests: Iterable[Request]) -> None:
        """Let go of the answers of some requests, which have become rows."""
        for request in requests:
            self._unloaded.add(-request.held_bytes)
            request.held_bytes = 0
            request.columns, request.rejected = None, []

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _guarded(self, call: Callable[[], T]) -> T:
        """Do something; what it raises is an ApiError without frames of data."""
        try:
            return call()
        except ApiError as exc:
            error = exc
        except Exception as exc:  # noqa: BLE001  what nobody foresaw fails one request
            text = self._redact(f"{type(exc).__name__}: {first_line(exc)}")
            error = MalformedAnswerError(storable_text(text))
        try:
            raise without_frames(error)
        finally:
            del error

    def _fields(self, request: Request) -> dict[str, Any]:
        """Return what is sent beside the credentials."""
        raise NotImplementedError

    def _read_content(self, request: Request, content: bytearray, status: int) -> None:
        """Read an answer into its request, or say what is wrong with it."""
        raise NotImplementedError

    def _ask(self, request: Request, on_sent: Callable[[], None]) -> None:
        body = msgspec.json.encode({**self._credentials, **self._fields(request)})
        with self._transport.post(body, on_sent) as received, self._reading:
            self._unloaded.wait()
            began = time.monotonic()
            self._read(received, partial(self._read_content, request))
            request.decoding = time.monotonic() - began
            request.http_status = received.status
            request.held_bytes = weight(received.content, request.rows)
            self._unloaded.add(request.held_bytes)

    def _read(self, received: Received, read: Callable[[bytearray, int], None]) -> None:
        status = received.status
        retry_after = _seconds(received.headers.get("Retry-After"))
        is_refused = status == HTTPStatus.TOO_MANY_REQUESTS or (
            status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after
        )
        try:
            read(within_bounds(received.content, status), status)
        except RetryableApiError as exc:
            if is_refused:
                exc = RateLimitedError(f"HTTP {status}", retry_after=0, code=exc.code)
                exc.http_status = status
            if isinstance(exc, RateLimitedError):
                exc.retry_after = retry_after
            raise exc from None

    def _read_envelope(
        self,
        request: Request,
        content: bytearray,
        status: int,
        usable: Container[int] = (SUCCESS,),
    ) -> dict[str, Any]:
        """Return the envelope of an answer with a usable code."""
        envelope, code = read_envelope(content, status)
        message = read_message(envelope)
        message = message and self._redact(message)
        if code not in usable:
            raise refusal(code, message and clip(message), status, request.oa_id)
        require_ok(status, code)
        request.code, request.message = code, message
        return envelope

    def _redact(self, message: str) -> str:
        """Cut the key and the secret out of what the API says."""
        for secret in self._credentials.values():
            message = message.replace(secret, "***")
        return message


def _seconds(retry_after: Any) -> float:  # noqa: ANN401  a header or nothing
    """Read a Retry-After header: seconds or a date; 0 when it says nothing."""
    if not retry_after:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            at = parsedate_to_datetime(retry_after)
            at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
            seconds = (at - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER) if math.isfinite(seconds) else 0.0
