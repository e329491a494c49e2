"""One batch of RefIds to one typed answer: HTTP, codes, and no leaked secret."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from esms_source.exceptions import (
    CredentialsError,
    MalformedAnswerError,
    OaRefusedError,
    RateLimitedError,
    RetryableApiError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esms_source.config import Settings

PATH: Final = "/ZaloCallback/GetCallback"
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024
CODE_FIELDS: Final = ("Code", "CodeResult", "CodeResponse")
MESSAGE_FIELDS: Final = ("Message", "ErrorMessage")

SUCCESS: Final = 100
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
        rows: ``Data_callback`` as it came, one item per row.
        http_status: HTTP status.
        code: The API's code, always 100.
        message: The API's message.
        latency: Seconds from sending to the last byte.
        decoding: Seconds that reading the JSON took.
    """

    rows: list[Any]
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
        self._timeout = (settings.connect_timeout, settings.read_timeout)
        self._session = requests.Session()
        # A proxy may see an encrypted tunnel, never a body in plain http.
        self._session.trust_env = urlsplit(self._url).scheme == "https"
        self._session.auth = _leave_headers_alone
        adapter = HTTPAdapter(pool_maxsize=settings.max_in_flight)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def ask(
        self, oa_id: str, ref_ids: Sequence[str], on_sent: Callable[[], None]
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
        status, headers, content = self._post(json.dumps(payload).encode(), on_sent)
        arrived = time.monotonic()
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimitedError(
                "HTTP 429",
                retry_after=_seconds(headers.get("Retry-After")),
                http_status=status,
            )
        envelope, code = _read_envelope(content, status)
        message = _read_message(envelope)
        if code != SUCCESS:
            raise _refusal(code, message, status, oa_id)
        _require_ok(status)
        rows = envelope.get("Data_callback")
        if rows is None:
            rows = []
        if not isinstance(rows, list):
            text = "Data_callback is not a list"
            raise MalformedAnswerError(text, code=code, http_status=status)
        decoding = time.monotonic() - arrived
        return Answer(rows, status, code, message, arrived - started, decoding)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _post(
        self, content: bytes, on_sent: Callable[[], None]
    ) -> tuple[int, Any, bytes]:
        try:
            with self._session.post(
                self._url,
                data=_Body(content, on_sent),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                return response.status_code, response.headers, self._read(response)
        except (requests.RequestException, HTTPError, OSError) as exc:
            # Only the kind of error: its text may quote what was sent.
            raise TransportError(_describe(exc)) from None

    def _read(self, response: requests.Response) -> bytes:
        deadline = time.monotonic() + self._timeout[1]
        content = bytearray()
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                text = f"an answer above {MAX_ANSWER_BYTES >> 20} MiB"
                raise MalformedAnswerError(text, http_status=response.status_code)
            if time.monotonic() > deadline:
                text = "time-out while the answer was coming"
                raise TransportError(text, http_status=response.status_code)
        return bytes(content)


def _leave_headers_alone(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from adding credentials of a .netrc file."""
    return request


def _describe(exc: Exception) -> str:
    if isinstance(exc, requests.ConnectTimeout):
        return "time-out while connecting"
    if isinstance(exc, requests.Timeout):
        return "time-out while waiting for the answer"
    if isinstance(exc, requests.exceptions.SSLError):
        return "the server's certificate was not accepted"
    if isinstance(exc, requests.ConnectionError):
        return "connection failed"
    return f"connection broken ({type(exc).__name__})"


def _read_envelope(content: bytes, status: int) -> tuple[dict[str, Any], int]:
    """Read the JSON object and its code, whatever the HTTP status."""
    try:
        envelope = json.loads(content, parse_float=Decimal)
    except (ValueError, RecursionError) as exc:
        _require_ok(status)
        text = "the answer is empty" if not content.strip() else "not JSON, or cut off"
        raise MalformedAnswerError(text, http_status=status) from exc
    code = _read_code(envelope) if isinstance(envelope, dict) else None
    if code is None:
        _require_ok(status)
        raise MalformedAnswerError("an answer without a code", http_status=status)
    return envelope, code


def _require_ok(status: int) -> None:
    if status != HTTPStatus.OK:
        raise TransportError(f"HTTP {status}", http_status=status)


def _read_code(envelope: dict[str, Any]) -> int | None:
    """Read the code, as number or text, from the first field that has one."""
    for field in CODE_FIELDS:
        value = envelope.get(field)
        if value is not None and not isinstance(value, bool):
            try:
                return int(str(value).strip())
            except ValueError:
                return None
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
    said = f"Code {code}" + (f" ({message})" if message else "")
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
        return max(float(retry_after), 0.0)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
    return max((at - datetime.now(timezone.utc)).total_seconds(), 0.0)
