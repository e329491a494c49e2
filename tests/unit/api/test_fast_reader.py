from __future__ import annotations

import json
from decimal import Decimal
from hashlib import md5

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esms_source.api.fast_reader import read_plain, to_table
from esms_source.api.fields import COLUMN_OF, TYPED
from esms_source.api.lenient_reader import read_odd
from esms_source.api.request import Request
from esms_source.privacy import Privacy
from esms_source.simulator import sample_row

OA = "1090257973118325189"
PLAIN = sample_row("a", OAId=OA)


def body(*rows, **fields):
    envelope = {"Code": 100, "Message": "Success", "Data_callback": rows}
    return json.dumps(envelope | fields, ensure_ascii=False).encode()


def read(content, ref_ids=("a", "b")):
    plain = read_plain(content, OA, ref_ids)
    return plain and (plain[0], to_table([plain[1]]))


@pytest.fixture
def value_by_value(make_settings):
    """Read a body as an odd one: its message, its rows."""
    privacy = Privacy(make_settings(keep_callback_query=True))

    def one(content, ref_ids=("a", "b")):
        envelope = json.loads(content, parse_float=Decimal)
        assert int(envelope["Code"]) == 100
        request = Request(OA, pa.table({"ref_id": list(ref_ids)}))
        read_odd(request, envelope["Data_callback"], privacy)
        assert not request.rejected
        assert request.columns
        return envelope.get("Message"), to_table([request.columns])

    return one


def test_the_documented_answer_is_plain(value_by_value):
    """Its rows are typed as they would be one by one."""
    rows = [PLAIN, PLAIN | {"SMSID": "b", "TotalPrice": 330.10, "ErrorInfo": "Đã gửi"}]
    plain = read(body(*rows))
    assert plain
    assert plain[1].schema == TYPED
    assert len(plain[1]) == 2
    assert plain == value_by_value(body(*rows))


@pytest.mark.parametrize(
    "fields",
    [
        {"SendStatus": "5", "TotalPrice": "330.0000", "Telcoid": "1"},
        dict.fromkeys(("SendStatus", "TotalPrice", "PhoneNumber", "OAId")),
        {"TotalPrice": 330, "ErrorInfo": '{"error":-124,"message":"\\u0110"}x'},
    ],
    ids=ascii,
)
def test_text_for_numbers_nulls_and_escapes_are_plain(fields, value_by_value):
    """They come every day."""
    content = json.dumps(
        {"Code": "100", "Data_callback": [PLAIN | fields]}, indent=1
    ).encode()
    plain = read(content)
    assert plain
    assert plain == value_by_value(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"<html>",
        body(PLAIN)[:-1],
        body(PLAIN) + b"{}",
        body(PLAIN).replace(b"Success", b"\xff"),
        body(PLAIN, Code=101),
        body(PLAIN, Code=True),
        body(PLAIN, Message=5),
        body(PLAIN, More=None),
        body(),
        body(None),
        body([]),
        body(PLAIN | {"SMSID": "c"}),
        body(PLAIN | {"SMSID": "A"}),
        body(PLAIN | {"SMSID": None}),
        body({}),
        body(PLAIN | {"OAId": "other"}),
        body(PLAIN | {"New": 1}),
        body(PLAIN | {"SendStatus": 5.5}),
        body(PLAIN | {"SendStatus": True}),
        body(PLAIN | {"SendStatus": "-5"}),
        body(PLAIN | {"SendStatus": "\u0665"}),
        body(PLAIN | {"SendStatus": str(2**63)}),
        body(PLAIN).replace(b'"SendStatus": 5', b'"SendStatus": 5.0'),
        body(PLAIN).replace(b'"SendStatus": 5', b'"SendStatus": 1E-425'),
        body(PLAIN | {"SendStatus": 1}).replace(b": 1", b": 5123456789012345.1234"),
        body(PLAIN | {"SendStatus": "null"}),
        body(PLAIN | {"TotalPrice": "NULL"}),
        body(PLAIN | {"SendStatus": 2**63}),
        body(PLAIN | {"TotalPrice": 0.00001}),
        body(PLAIN | {"TotalPrice": 10**17}),
        body(PLAIN | {"ZnsTempId": 228386}),
        body(PLAIN | {"ErrorInfo": {"error": -118}}),
        body(PLAIN).replace(b"Success", rb"\u0000"),
        body(PLAIN).replace(b'"Telcoid"', b'"TypeId": 24, "Telcoid"'),
        body(PLAIN).replace(b'"Message"', b'"Code": 101, "Message"'),
        body(PLAIN).replace(b'"Message"', b'"Data_callback": [], "Message"'),
        body({name: PLAIN[name] for name in PLAIN if name != "TypeId"}).replace(
            b'"Telcoid"', b'"Telcoid": 7, "Telcoid"'
        ),
        body(PLAIN).replace(b"Success", rb"\ud800"),
        b'{"Data_callback":' + b"[" * 100_000,
    ],
    ids=lambda content: md5(content).hexdigest()[:8],  # noqa: S324  no secret
)
def test_whatever_is_odd_is_left_to_others(content):
    """Nothing is guessed, and nothing raises."""
    assert read(content) is None


VALUE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False).map(float)
    | st.decimals(-(10**13), 10**13, places=4).map(str)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    | st.sampled_from(["5", " 5", "+5", "5.0", "1e3", "1_0", "", "null", [], {}])
)
ROW = st.fixed_dictionaries(
    {"SMSID": st.sampled_from("ab")},
    optional={
        **dict.fromkeys((*COLUMN_OF, "ErrorInfo"), st.none() | VALUE),
        "OAId": st.sampled_from([OA, None]),
    },
).map(lambda row: PLAIN | row)


@given(rows=st.lists(ROW, min_size=1, max_size=3))
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_plain_answer_is_what_it_is_value_by_value(rows, value_by_value):
    """Whatever is taken as plain would be read the same as odd."""
    content = body(*rows)
    plain = read(content)
    if plain is not None:
        assert plain == value_by_value(content)
