"""One batch of RefIds to one typed answer: HTTP, codes, and no leaked secret."""

from __future__ import annotations

import io
import json
import math
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import msgspec
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

from esms_source.api.fast_reader import SUCCESS, PlainRows, read_plain
from esms_source.api.fields import MAX_EXPONENT
from esms_source.api.lenient_reader import read_int
from esms_source.exceptions import (
    CredentialsError,
    MalformedAnswerError,
    OaRefusedError,
    RateLimitedError,
    RetryableApiError,
    TransportError,
)
from esms_source.redaction import mask
from esms_source.storable import storable

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

    from esms_source.config import Settings

PATH: Final = "/ZaloCallback/GetCallback"
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024
CODE_FIELDS: Final = ("Code", "CodeResult", "CodeResponse")
MESSAGE_FIELDS: Final = ("Message", "ErrorMessage")

RATE_EXCEEDED: Final = 160

CREDENTIALS_REMEDIES: Final = {
    101: "check api_key and secret_key",
    102: "ask eSMS for a price list for this account",
    140: "ask eSMS to allow the address of this host",
    143: "ask eSMS to activate or unlock the account",
}
"""Codes after which nothing can be asked, with what to do.

Source: eSMS's table of error codes.
"""

OA_REMEDIES: Final = {
    204: "check the OA's id",
    789: "have the template configured for this OA at eSMS",
    791: "check the OA's id",
    799: "check the OA's id, and that the OA is active and in the account",
}
"""Codes that refuse one OA, with what to do.

Source: eSMS's table of error codes.
"""


@dataclass(frozen=True)
class Answer:
    """What the API said to one request.

    Attributes:
        rows: ``Data_callback`` as it came, one item per row; or read already.
        http_status: HTTP status.
        code: The API's code, always 100.
        message: The API's message.
        latency: Seconds from sending to the last byte.
        decoding: Seconds that reading it took.
    """

    rows: list[Any] | PlainRows
    http_status: int
    code: int
    message: str | None
    latency: float
    decoding: float


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


class Client:
    """Ask GetCallback, one request a call; safe to share between threads.

    Args:
        settings: Where and as whom to ask, and the time-outs.
    """

    def __init__(self, settings: Settings) -> None:
        key, secret = settings.require_credentials()
        self._credentials = {"ApiKey": key, "SecretKey": secret}
        self._url = settings.base_url.rstrip("/") + PATH
        self._timeout = Timeout(
            connect=settings.connect_timeout, read=settings.read_timeout
        )
        self._read_timeout = settings.read_timeout
        self._session = requests.Session()
        # A proxy may see an encrypted tunnel, never a body in plain http.
        self._session.trust_env = urlsplit(self._url).scheme == "https"
        self._headers = {
            "Accept-Encoding": "gzip, deflate",
            "Content-Type": "application/json",
            "User-Agent": "esms-source",
        }
        # Threads that read side by side would only fight over the interpreter.
        self._reading = threading.Lock()
        self._pool = _open_pool(self._session, self._url, settings.max_in_flight)

    def ask(
        self, oa_id: str, ref_ids: list[str], on_sent: Callable[[], None]
    ) -> Answer:
        """Send one request and read its answer.

        Args:
            oa_id: The OA that sent the messages.
            ref_ids: At most 200, none twice.
            on_sent: Called once the request has left.

        Raises:
            RateLimitedError: HTTP 429 or Code 160.
            RetryableApiError: No usable answer; the request may be sent again.
            CredentialsError: The key, the account or this host is refused.
            OaRefusedError: The OA is refused.
        """
        payload = {**self._credentials, "ListRefid": ref_ids, "OAId": oa_id}
        started = time.monotonic()
        status, headers, content = self._post(msgspec.json.encode(payload), on_sent)
        arrived = time.monotonic()
        retry_after = _seconds(headers.get("Retry-After"))
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimitedError(
                "HTTP 429", retry_after=retry_after, http_status=status
            )
        try:
            with self._reading:
                began = time.monotonic()
                message, rows = self._read(content, status, oa_id, ref_ids)
                decoding = time.monotonic() - began
        except RateLimitedError as exc:
            exc.retry_after = retry_after
            raise
        return Answer(rows, status, SUCCESS, message, arrived - started, decoding)

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _post(
        self, content: bytes, on_sent: Callable[[], None]
    ) -> tuple[int, Any, bytes]:
        try:
            with self._pool.urlopen(
                "POST",
                urlsplit(self._url).path,
                body=_Body(content, on_sent),
                headers=self._headers | {"Content-Length": str(len(content))},
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            ) as response:
                return response.status, response.headers, self._receive(response)
        except (HTTPError, OSError) as exc:
            # Only the kind of error: its text may quote what was sent.
            raise TransportError(_describe(exc)) from None

    def _read(
        self, content: bytes, status: int, oa_id: str, ref_ids: list[str]
    ) -> tuple[str | None, list[Any] | PlainRows]:
        """Read the message and the rows of an answer, or say what is wrong with it."""
        plain = read_plain(content, oa_id, ref_ids) if status == HTTPStatus.OK else None
        if plain is not None:
            return self._redact(plain.message), plain.rows
        envelope, code = _read_envelope(content, status)
        message = self._redact(_read_message(envelope))
        if code != SUCCESS:
            raise _refusal(code, message, status, oa_id)
        _require_ok(status)
        rows = envelope.get("Data_callback")
        if not isinstance(rows, (list, type(None))):
            text = "Data_callback is not a list"
            raise MalformedAnswerError(text, code=code, http_status=status)
        return message, rows or []

    def _redact(self, message: str | None) -> str | None:
        """Cut the key and the secret out of what the API says."""
        for secret in self._credentials.values():
            message = message and message.replace(secret, "***")
        return message

    def _receive(self, response: BaseHTTPResponse) -> bytes:
        deadline = time.monotonic() + self._read_timeout
        content = bytearray()
        while chunk := response.read1(CHUNK_BYTES, decode_content=True):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                text = f"an answer above {MAX_ANSWER_BYTES >> 20} MiB"
                raise MalformedAnswerError(text, http_status=response.status)
            if time.monotonic() > deadline:
                text = "time-out while the answer was coming"
                raise TransportError(text, http_status=response.status)
        return bytes(content)


def _open_pool(
    session: requests.Session, url: str, connections: int
) -> HTTPConnectionPool:
    """Open the connections of a session, with the proxy and certificates it finds.

    Session through the session itself would cost twice the CPU time per request.
    """
    found = session.merge_environment_settings(url, {}, None, None, None)
    adapter = HTTPAdapter(pool_maxsize=connections)
    request = requests.Request("POST", url).prepare()
    pool = adapter.get_connection_with_tls_context(
        request, found["verify"], found["proxies"], found["cert"]
    )
    adapter.cert_verify(  # type: ignore[no-untyped-call]
        pool, url, found["verify"], found["cert"]
    )
    return cast("HTTPConnectionPool", pool)


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


def _read_envelope(content: bytes, status: int) -> tuple[dict[str, Any], int]:
    """Read the JSON object and its code, whatever the HTTP status."""
    try:
        envelope = storable(
            json.loads(
                content,
                parse_float=_to_decimal,
                parse_int=_to_int,
                parse_constant=str,
            )
        )
    except (ValueError, RecursionError) as exc:
        _require_ok(status)
        text = "the answer is empty" if not content.strip() else "not JSON, or cut off"
        raise MalformedAnswerError(text, http_status=status) from exc
    code = _read_code(envelope) if isinstance(envelope, dict) else None
    if code is None:
        _require_ok(status)
        raise MalformedAnswerError("an answer without a code", http_status=status)
    return envelope, code


def _to_decimal(digits: str) -> Decimal | str:
    """Read a number exactly; one of absurd size stays a text."""
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return digits
    return number if abs(number.adjusted()) <= MAX_EXPONENT else digits


def _to_int(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # Python reads no longer ones
        return digits


def _require_ok(status: int) -> None:
    if status != HTTPStatus.OK:
        raise TransportError(f"HTTP {status}", http_status=status)


def _read_code(envelope: dict[str, Any]) -> int | None:
    """Read the code, as number or text, from the first field that has one."""
    for field in CODE_FIELDS:
        code = read_int(envelope.get(field))
        if code is not None:
            return code
    return None


def _read_message(envelope: dict[str, Any]) -> str | None:
    for field in MESSAGE_FIELDS:
        value = envelope.get(field)
        if value is not None:
            return str(value)
    return None


def _refusal(
    code: int, message: str | None, status: int, oa_id: str
) -> RateLimitedError | RetryableApiError | CredentialsError | OaRefusedError:
    said = f"Code {code}" + (f" ({mask(message)})" if message else "")
    if code == RATE_EXCEEDED:
        return RateLimitedError(said, retry_after=0, code=code, http_status=status)
    if code in CREDENTIALS_REMEDIES:
        text = f"the API refused the request with {said}: {CREDENTIALS_REMEDIES[code]}"
        return CredentialsError(text, code=code, http_status=status)
    if code in OA_REMEDIES:
        text = f"the API refused OA {oa_id} with {said}: {OA_REMEDIES[code]}"
        return OaRefusedError(text, code=code, http_status=status)
    return RetryableApiError(said, code=code, http_status=status)


def _seconds(retry_after: str | None) -> float:
    """Read a Retry-After header: seconds or a date; 0 when it says nothing."""
    if not retry_after:
        return 0.0
    try:
        seconds = float(retry_after)
        return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
        at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        return max((at - datetime.now(timezone.utc)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return 0.0
