"""A request sent to GetCallback and its answer read: codes, and no leaked secret."""

from __future__ import annotations

import math
import threading
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from esms_source.api.envelope import (
    MAX_ROWS,
    check_size,
    read_envelope,
    read_message,
    require_ok,
)
from esms_source.api.fast_reader import SUCCESS, read_plain
from esms_source.api.lenient_reader import read_odd
from esms_source.api.remedies import refusal
from esms_source.api.transport import Transport
from esms_source.exceptions import (
    ApiError,
    MalformedAnswerError,
    RateLimitedError,
)
from esms_source.privacy import Privacy
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from esms_source.api.request import Request
    from esms_source.api.transport import Received
    from esms_source.config import Settings

PATH: Final = "/ZaloCallback/GetCallback"

MOST_RETRY_AFTER: Final = 10 * 365 * 86_400.0
"""Seconds beyond which a Retry-After is no more than "not soon"."""


class Client:
    """Ask GetCallback, one request a call; safe to share between threads.

    Args:
        settings: Where and as whom to ask, the time-outs, and what is hidden.
    """

    def __init__(self, settings: Settings) -> None:
        key, secret = settings.require_credentials()
        self._credentials = {"ApiKey": key, "SecretKey": secret}
        self._transport = Transport(settings.base_url.rstrip("/") + PATH, settings)
        self._privacy = Privacy(settings)
        # Threads that read side by side would only fight over the interpreter.
        self._reading = threading.Lock()

    @property
    def is_short(self) -> bool:
        """Tell whether answers wait for others to be released."""
        return self._transport.held.is_short

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
        unforeseen = ""
        try:
            self._ask(request, on_sent)
        except ApiError:
            raise
        except Exception as exc:  # noqa: BLE001  what nobody foresaw fails one request
            unforeseen = f"{type(exc).__name__}: {first_line(exc)}"
        if unforeseen:
            # Raised here, as its cause would carry the answer along.
            raise MalformedAnswerError(str(self._redact(unforeseen)))

    def release(self, requests: Iterable[Request]) -> None:
        """Note that the answers of some requests have become rows."""
        for request in requests:
            self._transport.held.release(request.held_bytes)
            request.held_bytes = 0

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _ask(self, request: Request, on_sent: Callable[[], None]) -> None:
        payload = {
            **self._credentials,
            "ListRefid": request.ref_ids,
            "OAId": request.oa_id,
        }
        received = self._transport.post(msgspec.json.encode(payload), on_sent)
        request.held_bytes = len(received.content)
        try:
            with self._reading:
                began = time.monotonic()
                self._read(request, received)
                request.decoding = time.monotonic() - began
        except BaseException:
            self.release([request])
            raise
        request.http_status, request.code = received.status, SUCCESS

    def _read(self, request: Request, received: Received) -> None:
        """Read an answer into its request, or say what is wrong with it."""
        retry_after = _seconds(received.headers.get("Retry-After"))
        is_refused = received.status == HTTPStatus.TOO_MANY_REQUESTS or (
            received.status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after
        )
        if is_refused:
            raise RateLimitedError(
                f"HTTP {received.status}",
                retry_after=retry_after,
                http_status=received.status,
            )
        try:
            self._read_content(request, received.content, received.status)
        except RateLimitedError as exc:
            exc.retry_after = retry_after
            raise

    def _read_content(self, request: Request, content: bytes, status: int) -> None:
        check_size(content)
        if status == HTTPStatus.OK:
            plain = read_plain(content, request.oa_id, request.ref_ids)
            if plain is not None:
                message, request.columns = plain
                _require_few(len(request.columns["place"]))
                request.message = self._redact(message)
                return
        envelope, code = read_envelope(content, status)
        message = self._redact(read_message(envelope))
        if code != SUCCESS:
            raise refusal(code, message, status, request.oa_id)
        require_ok(status)
        rows = envelope.get("Data_callback")
        if not isinstance(rows, (list, type(None))):
            text = "Data_callback is not a list"
            raise MalformedAnswerError(text, code=code, http_status=status)
        _require_few(len(rows or ()))
        request.columns, request.rejected = read_odd(
            rows or [], request.oa_id, request.ref_ids, self._privacy
        )
        request.message = message

    def _redact(self, message: str | None) -> str | None:
        """Cut the key and the secret out of what the API says."""
        for secret in self._credentials.values():
            message = message and message.replace(secret, "***")
        return message


def _require_few(rows: int) -> None:
    if rows > MAX_ROWS:
        raise MalformedAnswerError(f"an answer of more than {MAX_ROWS} rows")


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
