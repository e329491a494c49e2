"""When a message was sent: how times are read out of any column."""

from __future__ import annotations

from typing import Final

LONE_TIME: Final = r"^(\d{1,2}:\d{2}(?::\d{2})?),?\s+(\S+)$"
"""A time of day in front of its date, as in 09:00 31/10/2026."""

DAY_FIRST: Final = r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})(?:[\s,T]+(.+))?$"
"""How dates are written in Vietnam."""

TWO_DIGITS: Final = r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{2})(?:[\s,T]+(.+))?$"
"""The same with a year of two digits, which is one of this century."""

FORMS: Final = (
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%d %b %Y %H:%M:%S",
    "%b %d %Y %I:%M%p",
)
"""Forms that are tried after ISO 8601 and day first; SA and CH are AM and PM."""

NUMBER: Final = r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?"

COMPACT: Final = r"\d{8}|\d{14}"
"""A date, or date and time, of digits alone."""

EPOCH: Final = (946_684_800, 4_102_444_800)
"""Seconds since 1970 that lie between 2000 and 2100; a thousand times so much is ms."""


def text_moment(text: str) -> str:
    """Return the SQL that reads a time out of an SQL text, null where it says none.

    Day comes before month, as in Vietnam; what names no zone is of the session's.
    """
    text = f"trim(trim({text}), '\"')"  # JSON puts texts into quotes
    plain = f"TRY_CAST({text} AS TIMESTAMPTZ)"
    other = _in_a_form(text)
    return (
        f"CASE WHEN {text} LIKE '____-__-__%' THEN coalesce({plain}, {other})"
        f" WHEN regexp_full_match({text}, '{NUMBER}') THEN {_epoch(text)}"
        f" ELSE {other} END"
    )


def _epoch(text: str) -> str:
    number, (first, last) = f"TRY_CAST({text} AS DOUBLE)", EPOCH
    return (
        f"CASE WHEN {number} BETWEEN {first} AND {last} THEN to_timestamp({number})"
        f" WHEN {number} BETWEEN {first}000 AND {last}000"
        f" THEN to_timestamp({number} / 1000)"
        f" WHEN regexp_full_match({text}, '{COMPACT}') THEN {_stripped(text)} END"
    )


def _in_a_form(text: str) -> str:
    text = rf"regexp_replace({text}, '{LONE_TIME}', '\2 \1')"
    text = rf"rtrim(regexp_replace({text}, '{DAY_FIRST}', '\3-\2-\1 \4'))"
    text = rf"rtrim(regexp_replace({text}, '{TWO_DIGITS}', '20\3-\2-\1 \4'))"
    text = rf"regexp_replace({text}, '\s+([+-]\d)', '\1')"
    text = rf"regexp_replace({text}, '\s*SA$', ' AM')"
    text = rf"regexp_replace({text}, '\s*CH$', ' PM')"
    return f"coalesce(TRY_CAST({text} AS TIMESTAMPTZ), {_stripped(text)})"


def _stripped(text: str) -> str:
    forms = ", ".join(f"'{form}'" for form in FORMS)
    return f"TRY_CAST(try_strptime({text}, [{forms}]) AS TIMESTAMPTZ)"
