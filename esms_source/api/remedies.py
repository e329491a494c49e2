"""What a refusal means for a run, and what to do: by code, status or kind of error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from esms_source.exceptions import (
    ApiError,
    CredentialsError,
    MalformedAnswerError,
    OaRefusedError,
    RateLimitedError,
    RetryableApiError,
)
from esms_source.redaction import mask

RATE_EXCEEDED: Final = 160
NOT_FOUND_YET: Final = 105

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

_OTHER_REMEDIES: Final = {
    99: "ask eSMS's support what Code 99 means for this account",
    NOT_FOUND_YET: "wait: eSMS doesn't know a message that was only just sent",
    RATE_EXCEEDED: "lower requests_per_second, or wait for who else asks with this key",
}

_PROXY: Final = "check base_url, the host's address in eSMS's allow-list, and the proxy"

DEAD_ENDS: Final = {
    **dict.fromkeys(range(300, 400), "check base_url: redirects are not followed"),
    HTTPStatus.UNAUTHORIZED: _PROXY,
    HTTPStatus.FORBIDDEN: _PROXY,
    HTTPStatus.NOT_FOUND: "check base_url: there is no GetCallback",
    HTTPStatus.METHOD_NOT_ALLOWED: "check base_url: there is no GetCallback",
}
"""HTTP statuses, of answers without a code, that asking again won't change."""


def refusal(code: int, message: str | None, status: int, oa_id: str) -> ApiError:
    """Return the error that a code other than 100 amounts to."""
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


def remedy_for(error: ApiError) -> str:
    """Return what to do about a request that got no usable answer."""
    if isinstance(error, RateLimitedError):
        return _OTHER_REMEDIES[RATE_EXCEEDED]
    if error.code is not None:
        unknown = f"ask eSMS's support what Code {error.code} means"
        return _OTHER_REMEDIES.get(error.code, unknown)
    if error.http_status in DEAD_ENDS:
        return DEAD_ENDS[error.http_status]
    if isinstance(error, MalformedAnswerError):
        return "check that base_url is eSMS's API, and no proxy answers in its place"
    if error.http_status is not None:
        return "the API has trouble: try again later"
    return "check base_url, the network, the proxy and its certificates"
