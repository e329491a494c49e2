from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esms_source.api.error_info import (
    MAX_BROKEN,
    MAX_PARSED,
    NOTHING,
    ParsedError,
    parse_error_info,
)
from esms_source.storable import storable, storable_text

DATA = Path(__file__).parents[2] / "data" / "error_info.jsonl"
SPECIFICATION = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]

LONG = 200_000
HOSTILE = (
    "{",
    "[",
    '"',
    '{"',
    '{"a"',
    '{"a":',
    '{"a":1}',
    '{"error":',
    '{"error":1,',
    '{"error"   ',
    '{"message":"',
    '"error":     ',
    '["x",',
    '[{"error":1},',
    "\\",
    "%7B",
    "%22%2522",
    "%22ế%41",
    "_",
    " ",
    "9",
    "\x00",
    "\ud800",
)
UNREADABLE = {
    "lists too deep": "[" * 100_000,
    "objects too deep": '{"a":' * 50_000,
    "data too deep": '{"error":-1,"message":"x","data":'
    + "[" * 100_000
    + "]" * 100_000
    + "}",
    "a number too long": '{"error":-1,"message":"x","data":' + "9" * 5_000 + "}",
    "an error too long": '{"error":' + str(10**4_000) + "0" * 1_000 + "}",
    "a code too long": str(10**4_000) + "0" * 1_000,
    "NaN": "NaN",
    "NUL": "\x00",
    "half an emoji": "\ud83d",
}

any_text = st.text(st.characters())
pieces = st.sampled_from(
    [
        *HOSTILE,
        '"error":',
        '"message":"',
        "-124",
        "}",
        "]",
        ",",
        '\\"',
        "\\u12",
        "%257B",
    ]
)
json_like = st.lists(pieces | any_text, max_size=20).map("".join)
plain_text = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Nd"], exclude_characters='{}[]"%_'
    )
)
utf8_text = st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | utf8_text,
    lambda inner: st.lists(inner) | st.dictionaries(utf8_text, inner),
    max_leaves=5,
)
codes = st.integers(-(2**63), 2**63 - 1)


def expected(case: dict[str, Any]) -> ParsedError:
    at = case.get("at")
    return ParsedError(
        case.get("code"),
        case.get("message"),
        case.get("detail"),
        case.get("data"),
        at and datetime.fromisoformat(at),
    )


@pytest.mark.parametrize("case", SPECIFICATION, ids=lambda case: case["note"])
def test_text_of_the_specification_is_read(case):
    """Each line of the specification is read as it says."""
    assert parse_error_info(case["text"]) == expected(case)


def test_specification_notes_are_unique():
    """No form is specified twice."""
    notes = [case["note"] for case in SPECIFICATION]

    assert len(notes) == len(set(notes))


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable_text_is_kept_whole(text):
    """What no parser can read stands in message or detail, as databases can hold it."""
    parsed = parse_error_info(text)

    assert storable_text(text) in {parsed.message, parsed.detail}


@pytest.mark.parametrize("key", ["data too deep", "a number too long"])
def test_code_beside_unreadable_data_is_read(key):
    """Code and message are read even though their object can't be."""
    assert parse_error_info(UNREADABLE[key])[:2] == (-1, "x")


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_no_time(piece):
    """A long text made to trick the parser is read well within a second."""
    text = (piece * LONG)[:LONG]

    started = time.process_time()
    parse_error_info(text)

    assert time.process_time() - started < 0.5


def test_search_for_readable_json_ends():
    """After many broken starts no more are tried, and the text is kept."""
    text = '{"a" ' * MAX_BROKEN + '{"error":-124,"message":"x"}'

    assert parse_error_info(text) == NOTHING._replace(detail=text)


@given(any_text | json_like)
def test_no_text_raises(text):
    """Any text gives a result that UTF-8 can hold, and each time the same."""
    parsed = parse_error_info(text)

    assert parsed == parse_error_info(text)
    for part in parsed[1:4]:
        assert part is None or part.encode().decode() == part


@given(plain_text.filter(str.strip))
def test_text_without_json_is_the_message(text):
    """Text that holds no JSON is the message, to the letter."""
    assert parse_error_info(text) == NOTHING._replace(message=storable_text(text))


@given(codes, utf8_text, values, plain_text, plain_text)
def test_nothing_around_or_in_an_object_is_lost(code, message, data, before, after):
    """Code, message, data and the text around them come back."""
    answer = json.dumps({"error": code, "message": message, "data": data})

    parsed = parse_error_info(f"{before} {answer} {after}")

    around = " ".join(text for text in (before.strip(), after.strip()) if text)
    assert parsed[:3] == (code, storable_text(message), storable(around) or None)
    assert (parsed.data and json.loads(parsed.data)) == storable(data)


@given(codes, utf8_text, values, st.data())
def test_cut_object_is_kept_whole(code, message, value, data):
    """JSON that breaks off anywhere is kept whole, and nothing in it is misread."""
    answer = json.dumps({"error": code, "message": message, "data": {"error": value}})
    cut = answer[: data.draw(st.integers(1, len(answer) - 1))]

    parsed = parse_error_info(cut)

    assert parsed.detail == cut.strip()
    assert parsed.code in {code, None}
    assert parsed.data is None


@given(codes, utf8_text, st.integers(0, 2), st.integers(0, 3))
def test_wrapping_changes_nothing(code, message, percents, strings):
    """Percent encoding and JSON strings around an answer are taken off."""
    text = json.dumps({"error": code, "message": message})
    for _ in range(strings):
        text = json.dumps(text)
    for _ in range(percents):
        text = quote(text)

    assert parse_error_info(text) == (code, storable_text(message), None, None, None)


@given(st.datetimes(datetime(2, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001  local
def test_time_is_vietnams(local):
    """The time behind an answer is Vietnam's, and comes back in UTC."""
    text = f"{{}}____{local:%d/%m}/{local.year:04} {local:%H:%M:%S}"

    at = parse_error_info(text).at

    vietnam = timezone(timedelta(hours=7))
    assert at == local.replace(microsecond=0, tzinfo=vietnam)
    assert at.tzinfo is timezone.utc


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('{"data":{"error":5,"message":"inner"},"error":-124,"mess', -124, None),
        ('{"data":{"error":5,"message":"inner"}', None, None),
        ('{"data":{"error":5,"message":"inner"},"message":"own', None, "own"),
        ('{"error":-124,"data":[{"error":5}],"message":"x', -124, "x"),
        ('{"error":"-124","message":"x \\u0111\\u01', -124, "x \\u0111\\u01"),
        ('{"error":"-12', None, None),
        ('{"error":-12', None, None),
        ('{"message":"say \\"error\\":5, and', None, 'say "error":5, and'),
        ('"{\\"error\\":-124,\\"data\\":{\\"error\\":5', -124, None),
        ('Lỗi {"a":1} {"data":{"error":5},"Error":-7,"Message":"y"', -7, "y"),
    ],
    ids=ascii,
)
def test_of_a_cut_text_the_outermost_object_counts(text, code, message):
    """What stands inside ``data`` is never taken for the code or the message."""
    assert parse_error_info(text) == (code, message, text, None, None)


@pytest.mark.parametrize(
    "begin",
    ['{"error":-1,"message":"m","data":', '"{\\"error\\":-1,\\"message\\":\\"m\\",'],
)
@pytest.mark.parametrize("rest", ["[1,1,", "{", "x", "[[[[", '"'], ids=ascii)
def test_a_long_text_is_read_as_if_it_were_cut(begin, rest):
    """In bounded memory, and all of it is kept."""
    text = begin + rest * MAX_PARSED
    assert parse_error_info(text) == (-1, "m", text, None, None)


def test_a_long_text_without_json_is_the_message():
    """Its time is read all the same."""
    text = "x" * MAX_PARSED + "____31/12/2025 23:00:00"
    at = datetime(2025, 12, 31, 16, tzinfo=timezone.utc)
    assert parse_error_info(text) == (None, text, None, None, at)


def test_a_long_percent_encoded_text_is_read_and_kept_as_it_came():
    """Only its beginning is decoded."""
    text = quote('{"error":-5,"message":"m","data":"') + "%41" * MAX_PARSED
    assert parse_error_info(text) == (-5, "m", text, None, None)


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_reading_takes_time_in_proportion(piece):
    """However often something odd is repeated."""
    began = time.process_time()
    parse_error_info('{"error":' + piece * 16_000)
    assert time.process_time() - began < 1
