"""ErrorInfo to code, message and leftovers: a pure reading of odd texts."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from math import isfinite
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from esms_source.storable import INT64, storable, storable_text

DATE_LENGTH: Final = len("____dd/MM/yyyy HH:mm:ss")
VIETNAM: Final = "+07:00"
MAX_WRAPS: Final = 5
"""JSON strings in JSON strings that are unwrapped."""

EXACT_DIGITS: Final = 15
"""A number of so many characters survives as a float."""

MAX_BROKEN: Final = 10
"""Starts of unreadable JSON after which no more are tried, so that time is bounded."""

MAX_PARSED: Final = 64 * 1024
"""Characters of a text that are parsed; Zalo's errors have some hundred."""

_INTEGER: Final = re.compile(r"\s*([+-]?[0-9]{1,19})\s*")
# No JSON goes on with a % after its first bracket: such a text is half encoded.
_ENCODED: Final = re.compile(r"\s*[{\[]?%(?:25)?(?:7B|5B|22)", re.IGNORECASE)
_DATE: Final = re.compile(r"____(\d\d)/(\d\d)/(\d{4}) (\d\d:\d\d:\d\d)", re.ASCII)
_OBJECT_START: Final = re.compile(r'\{\s*(?:"|\Z)')
_ERROR: Final = re.compile(r'"[Ee]rror"\s*:')
_TOKEN: Final = re.compile(
    r"""
    "(?:[^"\\]|\\.)*"?   # a text, cut perhaps
    | [\[\]{},:]
    | [^\s"\[\]{},:]+    # anything else
    """,
    re.DOTALL | re.VERBOSE,
)


class ParsedError(NamedTuple):
    """What an ErrorInfo says; None where it says nothing.

    Attributes:
        code: Zalo's or eSMS's code, of 64 bits; 0 is success.
        message: The message; the whole text when it holds no JSON with an error.
        detail: The text around the JSON; the whole text when its JSON is cut short.
        data: The member ``data`` as JSON text, or an object of all members but code
            and message when there are others.
        at: The time at the text's end, in UTC.
    """

    code: int | None
    message: str | None
    detail: str | None
    data: str | None
    at: datetime | None


NOTHING: Final = ParsedError(None, None, None, None, None)


def parse_error_info(text: str | None) -> ParsedError:
    r"""Split an ErrorInfo text into code, message and leftovers.

    The API stores a partner's JSON answer with its own exception text, percent
    encoding, quotes or a time around it. Never raises and never loses text; what
    no database holds, such as half an emoji, becomes a backslash escape.
    Source: the GetCallback, callback-url and QueryZnsStatus pages of eSMS's API docs.

    Examples:
        >>> parse_error_info('{"error":-124,"message":"Bad token"}Object reference')[:3]
        (-124, 'Bad token', 'Object reference')
        >>> parse_error_info("1001").code
        1001
    """
    if text is None:
        return NOTHING
    if len(text) > MAX_PARSED:
        return _read_long(text)
    # The common form goes the short way: an object and nothing else.
    plain = text[:1] == "{" and text[-1:] == "}"
    return (plain and _read_object(text, text)) or _read(text, MAX_WRAPS, None)


def _read_long(text: str) -> ParsedError:
    """Read how a long text begins, as if it were cut there; keep all of it."""
    begin, all_of_it = _decode_percents(text[:MAX_PARSED]).strip(), storable_text(text)
    at = _to_time(text[-2 * DATE_LENGTH :].rstrip()[-DATE_LENGTH:])
    parsed = _read_object(begin, text) or _read_string(begin, text, MAX_WRAPS, at)
    if parsed is None:
        return NOTHING._replace(message=all_of_it, at=at)
    return parsed._replace(detail=all_of_it, at=at)


def _decode_percents(text: str) -> str:
    for _ in range(2):
        if _ENCODED.match(text):
            text = unquote(text, errors="surrogateescape")
    return text


def _read(text: str, wraps: int, at: datetime | None) -> ParsedError:
    text = _decode_percents(text)
    body = text.strip()
    if at is None and (at := _to_time(body[-DATE_LENGTH:])):
        body = body[:-DATE_LENGTH].rstrip()
    if not body:
        parsed = NOTHING
    elif (code := _to_code(body)) is not None:
        parsed = NOTHING._replace(code=code)
    else:
        parsed = (
            _read_object(body, text)
            or _read_string(body, text, wraps, at)
            or NOTHING._replace(message=storable_text(body if at else text))
        )
    return parsed._replace(at=at) if at else parsed


def _to_time(tail: str) -> datetime | None:
    if not (match := _DATE.fullmatch(tail)):
        return None
    day, month, year, clock = match.groups()
    try:
        local = datetime.fromisoformat(f"{year}-{month}-{day}T{clock}{VIETNAM}")
        return local.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _to_code(value: Any) -> int | None:  # noqa: ANN401  any JSON value
    if isinstance(value, str) and (match := _INTEGER.fullmatch(value)):
        value = int(match[1])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value in INT64 else None


def _read_object(body: str, text: str) -> ParsedError | None:
    """Read the first JSON object that has an error; None if all JSON has none."""
    end = 0
    broken: list[int] = []
    while len(broken) < MAX_BROKEN and (match := _OBJECT_START.search(body, end)):
        start = match.start()
        try:
            members, end = _decode(body, start)
            if "error" in members or "Error" in members:
                return _read_members(members, _join(body[:start], body[end:]))
        except JSONDecodeError as error:
            broken.append(start)
            # What a broken object holds must not pass for the text's code.
            if _ERROR.search(body, start, error.pos):
                return _read_cut(body, start, text)
            end = start + 1
        except (ValueError, RecursionError):  # too long a number, too deep a nest
            return _read_cut(body, start, text)
    # A text in quotes is cut itself, perhaps: see ``_read_string``.
    is_cut = broken and body[:1] != '"'
    return _read_cut(body, broken[0], text) if is_cut else None


def _read_members(members: dict[str, Any], detail: str | None) -> ParsedError:
    name = "error" if "error" in members else "Error"
    error = members.pop(name)
    message = members.pop("message" if "message" in members else "Message", None)
    code = _to_code(error)
    if code is None and message is None:
        message = error
    elif code is None and error is not None:
        members[name] = error
    if message is not None:
        message = storable_text(message) if isinstance(message, str) else _dump(message)
    data = None
    if members:
        [(name, value), *others] = members.items()
        if others or name not in {"data", "Data"}:
            data = _dump(members)
        elif value is not None:
            data = _dump(value)
    return ParsedError(code, message, detail, data, None)


def _read_string(
    body: str, text: str, wraps: int, at: datetime | None
) -> ParsedError | None:
    """Read what a JSON string holds; None if there is no string."""
    if not (wraps and body.startswith('"')):
        return None
    try:
        content, end = _decode(body)
    except JSONDecodeError:
        body = body.replace('\\"', '"')
        start = _OBJECT_START.search(body)
        return _read_cut(body, start.start() if start else len(body), text)
    inner = _read(content, wraps - 1, at)
    return inner._replace(detail=_join(inner.detail or "", body[end:]))


def _read_cut(body: str, start: int, text: str) -> ParsedError:
    """Read code and message of the object that begins somewhere and breaks off."""
    found = _scalars(body, start)
    error = found.get('"error"', found.get('"Error"', ""))
    message = found.get('"message"', found.get('"Message"', ""))
    # A number with nothing behind it may have been cut itself, as a text may.
    is_whole = error[:1] != '"' or error[1:].endswith('"')
    return ParsedError(
        _to_code(error.strip('"')) if is_whole else None,
        _unescape(message) if message[:1] == '"' else None,
        storable_text(text.strip()),
        None,
        None,
    )


def _scalars(body: str, start: int) -> dict[str, str]:
    """Return those members of an object that are no lists or objects, as they stand."""
    found: dict[str, str] = {}
    name, depth, is_value = "", 0, False
    for match in _TOKEN.finditer(body, start):
        part = match[0]
        if part in "{[":
            depth += 1
            name = ""
        elif part in "}]":
            depth -= 1
            if not depth:
                break
        elif depth > 1:
            continue
        elif part in ":,":
            is_value = part == ":"
        elif not is_value:
            name = part
        elif name and (part[0] == '"' or match.end() < len(body)):
            found.setdefault(name, part)
    return found


def _unescape(quoted: str) -> str:
    for text in (quoted, quoted + '"'):
        with suppress(JSONDecodeError):
            return storable_text(_decode(text)[0])
    return storable_text(quoted[1:])


def _join(before: str, after: str) -> str | None:
    before, after = before.strip(), after.strip()
    if before[-1:] == "[" and after[:1] == "]":  # a list of one
        before, after = before[:-1].rstrip(), after[1:].lstrip()
    return storable_text(f"{before} {after}".strip()) or None


def _dump(value: Any) -> str:  # noqa: ANN401  any JSON value
    return _encode(storable(value))


def _to_float(digits: str) -> float | str:
    """Read a number, or keep the digits where a float would lose some."""
    number = float(digits)
    is_short = len(digits) <= EXACT_DIGITS and isfinite(number)
    return number if is_short or _is_exact(digits, number) else digits


def _is_exact(digits: str, number: float) -> bool:
    try:
        return Decimal(digits) == Decimal(repr(number))
    except InvalidOperation:
        return False


_decode = JSONDecoder(
    parse_float=_to_float, parse_constant=str, strict=False
).raw_decode
# Parsed JSON has no circles; looking for them takes half of the time.
_encode = JSONEncoder(
    ensure_ascii=False, check_circular=False, separators=(",", ":")
).encode
