"""The envelope of an answer: any JSON, its code and its message."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any, Final

from esms_source.api.fields import MAX_EXPONENT
from esms_source.api.lenient_reader import read_int
from esms_source.exceptions import MalformedAnswerError, TransportError
from esms_source.storable import MAX_DEPTH, members, storable

CODE_FIELDS: Final = ("Code", "CodeResult", "CodeResponse")
MESSAGE_FIELDS: Final = ("Message", "ErrorMessage")

MAX_ROWS: Final = 20_000
"""Rows that an answer to 200 RefIds may have."""

MAX_VALUES: Final = 25 * MAX_ROWS
"""JSON values that it may have: a row is documented with 16."""

COUNTED_FROM_BYTES: Final = 1024 * 1024
"""Smaller answers can't hold so many that it matters."""

MAX_SAID: Final = 1_000
"""Characters of a message that go into an error's text."""

BLOCK_BYTES: Final = 64 * 1024
_STRING: Final = re.compile(rb'"[^"]*"?')
_BRACKETS: Final = re.compile(r'["\\\[\]{}]')


def read_envelope(content: bytearray, status: int) -> tuple[dict[str, Any], int]:
    """Read the JSON object of an answer and its code, whatever the HTTP status.

    Texts in it are storable; what is nested too deep is JSON text.

    Raises:
        TransportError: The status is not 200, and no code says more.
        MalformedAnswerError: It isn't JSON, or has no code.
    """
    envelope = _parse(content)
    if envelope is None:
        require_ok(status)
        text = "the answer is empty" if not content.strip() else "not JSON, or cut off"
        raise MalformedAnswerError(text, http_status=status)
    code = _read_code(envelope) if isinstance(envelope, dict) else None
    if code is None:
        require_ok(status)
        raise MalformedAnswerError("an answer without a code", http_status=status)
    return envelope, code


def within_bounds(content: bytearray, status: int) -> bytearray:
    """Refuse what would take too much memory once it is parsed.

    Returns:
        The answer; a large one in UTF-8, whatever it came in.

    Raises:
        MalformedAnswerError: There are too many values.
    """
    if len(content) < COUNTED_FROM_BYTES:
        return content
    if json.detect_encoding(content) not in {"utf-8", "utf-8-sig"}:
        content = bytearray(_decode(content), "utf-8", "surrogatepass")
    text = content.replace(rb"\\", b"").replace(rb"\"", b"")
    values, quotes = 0, 0
    for start in range(0, len(text), BLOCK_BYTES):
        block = text[start : start + BLOCK_BYTES]
        bare = _STRING.sub(b"", b'"' * (quotes % 2) + block)
        values += sum(map(bare.count, (b",", b"[", b"{")))
        quotes += block.count(b'"')
        if values > MAX_VALUES:
            said = f"an answer of more than {MAX_VALUES} values"
            raise MalformedAnswerError(said, http_status=status)
    return content


def clip(message: str) -> str:
    """Return what of a message goes into an error's text."""
    if len(message) <= MAX_SAID:
        return message
    return f"{message[:MAX_SAID]}… of {len(message)} characters"


def read_message(envelope: dict[str, Any]) -> str | None:
    """Read the message from the first field that has one."""
    for field in MESSAGE_FIELDS:
        value = envelope.get(field)
        if value is not None:
            return str(value)
    return None


def require_ok(status: int, code: int | None = None) -> None:
    """Refuse an HTTP status other than 200, whatever code came with it.

    Raises:
        TransportError: It is another one.
    """
    if status != HTTPStatus.OK:
        said = f"HTTP {status}" if code is None else f"HTTP {status} with Code {code}"
        raise TransportError(said, code=code, http_status=status)


def _decode(content: bytearray) -> str:
    """Return the text of an answer; bytes that are none become odd characters."""
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("utf-8-sig", "surrogateescape")


def _parse(content: bytearray) -> Any:  # noqa: ANN401  any JSON value
    """Return the value of some JSON, None where it is none.

    No error leaves here: it would carry the answer along.
    """
    with suppress(ValueError, RecursionError):
        try:
            # No name for the text, so that it is let go as soon as it is parsed.
            return storable(_decoder.decode(_decode(content)))
        except RecursionError:
            return storable(_decoder.decode(_flatten(_decode(content))))
    return None


def _flatten(text: str) -> str:
    """Turn what is nested too deep to be parsed into JSON strings."""
    parts: list[str] = []
    level = begun = done = 0
    in_string, skipped = False, -1
    for match in _BRACKETS.finditer(text):
        at, sign = match.start(), match[0]
        if at == skipped:
            continue
        if sign == "\\":
            skipped = at + 1
        elif sign == '"':
            in_string = not in_string
        elif in_string:
            continue
        elif sign in "[{":
            level += 1
            if level == MAX_DEPTH + 1:
                begun = at
        else:
            if level == MAX_DEPTH + 1:
                parts += [text[done:begun], json.dumps(text[begun : at + 1])]
                done = at + 1
            level -= 1
    return "".join([*parts, text[done:]])


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


# Not strict: a control character in a text is one odd value.
_decoder: Final = json.JSONDecoder(
    object_pairs_hook=members,
    parse_float=_to_decimal,
    parse_int=_to_int,
    parse_constant=str,
    strict=False,
)


def _read_code(envelope: dict[str, Any]) -> int | None:
    """Read the code, as number or text, from the first field that has one."""
    for field in CODE_FIELDS:
        code = read_int(envelope.get(field))
        if code is not None:
            return code
    return None
