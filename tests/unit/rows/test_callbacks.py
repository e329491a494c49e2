from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esms_source.api.fields import COLUMN_OF
from esms_source.api.lenient_reader import read_odd
from esms_source.api.request import Request
from esms_source.privacy import Privacy
from esms_source.rows.callbacks import read_callbacks
from esms_source.simulator import sample_row
from esms_source.tables import CALLBACKS, without_load_id

OA = "1090257973118325189"
NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
NUMBERS = {
    "SendStatus": "send_status",
    "SendSuccess": "send_success",
    "SendFailed": "send_failed",
    "TotalReceiver": "total_receiver",
    "TotalSent": "total_sent",
    "TypeId": "type_id",
    "Telcoid": "telco_id",
}
TEXTS = {
    "PhoneNumber": "phone_number",
    "RequestId": "request_id",
    "CallbackUrl": "callback_url",
    "Partnerids": "partner_ids",
    "ZnsTempId": "zns_temp_id",
}


def sample(ref_id, **fields):
    """Return a delivered row as the client reads it: floats are decimals."""
    return sample_row(ref_id, **({"TotalPrice": Decimal("330.0")} | fields))


@dataclass
class Read:
    """What the rows of some answers came to."""

    callbacks: pa.Table
    requests: list[Request]

    @property
    def rejected(self):
        return [rejected for r in self.requests for rejected in r.rejected]


@pytest.fixture
def answer(make_settings):
    """Make a request with an answer."""

    def one(rows, ref_ids=("a",), keep_final=(), oa_id=OA, **settings):
        states = ["final" if ref_id in keep_final else None for ref_id in ref_ids]
        work = pa.table(
            {"ref_id": list(ref_ids), "state": pa.array(states, pa.string())}
        )
        request = Request(oa_id, work, polled_at=NOW)
        privacy = Privacy(make_settings(**settings))
        read_odd(request, rows, privacy)
        return request

    return one


@pytest.fixture
def read(answer, make_settings):
    """Read the rows of one answer."""

    def one(rows, ref_ids=("a",), keep_final=(), **settings):
        request = answer(rows, ref_ids, keep_final, **settings)
        privacy = Privacy(make_settings(**settings))
        callbacks = read_callbacks([request], privacy)
        assert callbacks.schema == without_load_id(CALLBACKS)
        callbacks.validate(full=True)
        return Read(callbacks, [request])

    return one


@pytest.fixture
def cells(read):
    """Read one row of RefId ``a``, with fields put over a sample."""

    def one(_settings=None, **fields):
        result = read([sample("a", **fields)], **(_settings or {}))
        (row,) = result.callbacks.to_pylist()
        return row

    return one


def outcomes(result):
    return [request.states.to_pylist() for request in result.requests]


def extra(row):
    return json.loads(row["extra"]) if row["extra"] else {}


def test_a_plain_row_is_typed_column_by_column(cells):
    """The documented sample comes out as section 5 promises."""
    assert cells() == {
        "oa_id": OA,
        "ref_id": "a",
        "row_no": 1,
        "delivery": "delivered",
        "phone_number": "0909090909",
        "send_status": 5,
        "send_success": 1,
        "send_failed": 0,
        "total_price": Decimal("330.0000"),
        "total_receiver": 1,
        "total_sent": 1,
        "request_id": None,
        "type_id": 25,
        "telco_id": 1,
        "callback_url": "https://crm.example.vn/zns/callback",
        "partner_ids": "7984e9b198c40e9957d6",
        "zns_temp_id": "228386",
        "error_info": None,
        "error_code": None,
        "error_message": None,
        "error_detail": None,
        "error_data": None,
        "error_at": None,
        "extra": None,
        "polled_at": NOW,
        "answered_by": "callback",
    }


def test_no_rows_make_empty_tables(read):
    """An answer without rows has tables too."""
    result = read([])
    assert (len(result.callbacks), len(result.rejected)) == (0, 0)
    assert outcomes(result) == [["missing"]]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("25", 25),
        (" 25 ", 25),
        ("-1", -1),
        ("+1", 1),
        (Decimal("25.0"), 25),
        ("25.000", 25),
        (Decimal("1E+3"), 1000),
        (2**63 - 1, 2**63 - 1),
        (str(-(2**63)), -(2**63)),
    ],
)
@pytest.mark.parametrize("field", NUMBERS)
def test_numbers_come_as_numbers_or_as_text(field, value, number, cells):
    """Both are read: the documentation says text, the sample shows numbers."""
    row = cells(**{field: value})
    assert row[NUMBERS[field]] == number
    assert field not in extra(row)


@pytest.mark.parametrize(
    "value",
    [
        "many",
        "",
        "  ",
        Decimal("1.5"),
        "1.5",
        True,
        False,
        [],
        [1],
        {"n": 1},
        10**30,
        "1" * 5000,
        2**63,
        float("nan"),
        float("inf"),
        "NaN",
        "Infinity",
        Decimal("1E+999999"),
        "1e999999999",
    ],
    ids=lambda value: ascii(value)[:12],
)
@pytest.mark.parametrize("field", ["SendStatus", "Telcoid"])
def test_a_number_that_does_not_fit_is_null_and_kept(field, value, cells):
    """Nothing that came is lost: it is in extra under the API's name."""
    row = cells(**{field: value})
    assert row[NUMBERS[field]] is None
    assert field in extra(row)


@pytest.mark.parametrize("field", ["SendStatus", "TotalPrice"])
def test_a_misfit_of_one_row_leaves_the_others_alone(field, read):
    """A column is read value by value when one value does not fit."""
    rows = [sample("a"), sample("b", **{field: "??"}), sample("c")]
    table = read(rows, ("a", "b", "c")).callbacks
    column = {"SendStatus": "send_status", "TotalPrice": "total_price"}[field]
    assert [cell is None for cell in table[column].to_pylist()] == [False, True, False]
    assert [cell is None for cell in table["extra"].to_pylist()] == [True, False, True]


@pytest.mark.parametrize(
    ("value", "price"),
    [
        (Decimal("330.0"), "330.0000"),
        ("2104.0000", "2104.0000"),
        (330, "330.0000"),
        ("0.0001", "0.0001"),
        (Decimal("99999999999999.9999"), "99999999999999.9999"),
        ("0.1", "0.1000"),
        (Decimal("0.10000000"), "0.1000"),
        (Decimal("3.3E+2"), "330.0000"),
        ("-5", "-5.0000"),
    ],
)
def test_prices_are_exact(value, price, cells):
    """No price goes through a binary fraction."""
    row = cells(TotalPrice=value)
    assert row["total_price"] == Decimal(price)
    assert "TotalPrice" not in extra(row)


@pytest.mark.parametrize(
    "value",
    [
        "free",
        "",
        True,
        [],
        {},
        10**30,
        Decimal(100000000000000),
        Decimal("99999999999999.99995"),
        "NaN",
        "Infinity",
        float("nan"),
        Decimal("1E+999999"),
        "1,000",
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_a_price_that_does_not_fit_is_null_and_kept(value, cells):
    """It is kept as it came."""
    row = cells(TotalPrice=value)
    assert row["total_price"] is None
    kept = extra(row)["TotalPrice"]
    if isinstance(value, Decimal):
        assert Decimal(str(kept)) == value


@pytest.mark.parametrize(
    ("value", "price"),
    [
        (Decimal("200.30000000000001"), "200.3000"),
        (Decimal("0.00001"), "0.0000"),
        ("0.33335", "0.3334"),
        (Decimal("-0.00005"), "-0.0001"),
    ],
    ids=ascii,
)
def test_a_price_of_more_digits_is_rounded_and_kept(value, price, cells):
    """The column holds what it can, ``extra`` what came."""
    row = cells(TotalPrice=value)
    assert row["total_price"] == Decimal(price)
    assert Decimal(str(extra(row)["TotalPrice"])) == Decimal(value)


def test_zeros_behind_a_price_are_no_misfit(cells):
    """Nothing is lost by leaving them out."""
    row = cells(TotalPrice=Decimal("330.100000"))
    assert (row["total_price"], row["extra"]) == (Decimal("330.1000"), None)


def test_values_that_do_not_fit_are_counted(answer):
    """Each of them once; a field that isn't known is none."""
    row = {"SMSID": "a", "SendStatus": "1_000", "TotalPrice": "0.00001", "New": 1}
    assert answer([row, {"SMSID": "a", "TypeId": "٣"}]).misfits == 3


@given(price=st.decimals(-(10**13), 10**13, places=4))
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_price_of_four_places_survives(price, cells):
    """As a number and as text."""
    assert cells(TotalPrice=price)["total_price"] == price
    assert cells(TotalPrice=str(price))["total_price"] == price


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), (84, "84"), ("", ""), (Decimal("1.50"), "1.50")]
)
def test_texts_come_as_text_or_as_numbers(field, value, text, cells):
    """An id may arrive without quotes."""
    assert cells(**{field: value})[TEXTS[field]] == text


@pytest.mark.parametrize("field", ["RequestId", "Partnerids", "ZnsTempId"])
@pytest.mark.parametrize("value", [True, [], ["a", "b"], {"x": 1}], ids=ascii)
def test_a_text_that_is_none_is_null_and_kept(field, value, cells):
    """A list where a text is promised goes to extra as JSON."""
    row = cells(**{field: value})
    assert row[TEXTS[field]] is None
    assert extra(row)[field] == value


def test_unknown_fields_are_kept(cells):
    """Fields not known here go to extra under the API's name."""
    row = cells(NewField={"a": [1, None]}, Vietnamese="Đã gửi", Empty=None)
    kept = extra(row)
    assert kept["NewField"] == {"a": [1, None]}
    assert kept["Vietnamese"] == "Đã gửi"


def test_decimals_in_extra_keep_every_digit(cells):
    """JSON readers would round them."""
    row = cells(Fee=Decimal("0.1234567890123456789"))
    assert "0.1234567890123456789" in row["extra"]


def test_a_field_that_is_absent_is_null(read):
    """A row of nothing but its SMSID is a row."""
    (row,) = read([{"SMSID": "a"}]).callbacks.to_pylist()
    assert row["delivery"] == "pending"
    filled = {name for name, cell in row.items() if cell is not None}
    ours = {"oa_id", "ref_id", "row_no", "delivery", "polled_at", "answered_by"}
    assert filled == ours


def test_another_oa_in_the_row_is_kept(cells):
    """The column holds the OA that was asked for."""
    row = cells(OAId="999")
    assert row["oa_id"] == OA
    assert extra(row) == {"OAId": "999"}


@pytest.mark.parametrize("oa_id", [OA, int(OA), f" {OA} ", None], ids=ascii)
def test_the_same_oa_in_the_row_is_nothing_to_keep(oa_id, cells):
    """Written as number or with blanks, it is the same."""
    assert cells(OAId=oa_id)["extra"] is None


# Placing.


@pytest.mark.parametrize("spelled", ["ABC-1", " abc-1 ", "Abc-1", "abc-1\n"])
def test_a_row_is_placed_without_regard_to_case(spelled, read):
    """The warehouse's spelling stands in the table, the API's in extra."""
    (row,) = read([sample(spelled)], ("abc-1",)).callbacks.to_pylist()
    assert row["ref_id"] == "abc-1"
    assert extra(row)["SMSID"].strip().lower() == "abc-1"


def test_a_row_is_placed_to_the_letter_first(read):
    """Two RefIds that differ in case only keep their own rows."""
    result = read([sample("ABC"), sample("abc")], ("abc", "ABC"))
    assert result.callbacks["ref_id"].to_pylist() == ["ABC", "abc"]
    assert not len(result.rejected)


def test_a_numeric_smsid_finds_its_ref_id(read):
    """An SMSID may come as a number."""
    (row,) = read([sample("x", SMSID=29028845)], ("29028845",)).callbacks.to_pylist()
    assert row["ref_id"] == "29028845"


def test_several_rows_of_a_ref_id_are_several_callbacks(read):
    """One RefId may have several callbacks; all are kept."""
    rows = [sample("a", SendStatus=5), sample("a", SendStatus=2)]
    result = read(rows)
    assert len(result.callbacks) == 2
    assert outcomes(result) == [["pending"]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "not an object"),
        ("text", "not an object"),
        (7, "not an object"),
        ([], "not an object"),
        ([{"SMSID": "a"}], "not an object"),
        ({}, "no SMSID"),
        ({"SMSID": None}, "no SMSID"),
        ({"SMSID": ""}, "no SMSID"),
        ({"SMSID": "  "}, "no SMSID"),
        ({"SMSID": True}, "no SMSID"),
        ({"SMSID": ["a"]}, "no SMSID"),
        ({"SMSID": {"a": 1}}, "no SMSID"),
        ({"SMSID": "b"}, "SMSID not asked for"),
        ({"SMSID": 5}, "SMSID not asked for"),
        ({"SMSID": "aa"}, "SMSID not asked for"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_a_row_without_a_place_is_rejected_with_its_reason(row, reason, read):
    """Not an object, no SMSID, or one that was not asked for: section 5."""
    result = read([row, sample("a")])
    (rejected,) = result.rejected
    assert rejected.reason == reason
    assert rejected.row_no == 1
    assert json.loads(rejected.row) == row
    assert len(result.callbacks) == 1


def test_a_row_that_fits_several_ref_ids_is_rejected(read):
    """Guessing which one is meant would put a callback to the wrong message."""
    result = read([sample("Abc")], ("abc", "ABC"))
    (rejected,) = result.rejected
    assert "several" in rejected.reason


def test_answers_are_read_side_by_side(answer, make_settings):
    """Rows of many requests in one table, each under its own request."""
    requests = [
        answer([sample("a")], ("a",)),
        answer([sample("a"), {"SMSID": "zz"}], ("a", "b"), (), "other"),
        answer([], ("c",)),
    ]
    callbacks = read_callbacks(requests, Privacy(make_settings()))
    assert callbacks["oa_id"].to_pylist() == [OA, "other"]
    assert [len(request.rejected) for request in requests] == [0, 1, 0]
    result = Read(callbacks, requests)
    assert outcomes(result) == [["final"], ["final", "missing"], ["missing"]]
    assert [request.missing for request in requests] == [0, 1, 1]


# What is final, and the delivery.

TABLE = [
    # SendStatus, SendSuccess, SendFailed, delivery
    (4, 0, 0, "failed"),
    (4, None, None, "failed"),
    (4, 0, 3, "failed"),
    (4, 1, 0, "delivered"),
    (4, 1, 1, "partial"),
    (5, 1, 0, "delivered"),
    (5, 3, 0, "delivered"),
    (5, 1, 2, "partial"),
    (5, 0, 1, "failed"),
    (5, None, 1, "failed"),
    (5, 1, None, "delivered"),
    (5, 0, 0, "pending"),
    (5, None, None, "pending"),
    (5, "x", "y", "pending"),
    (2, 1, 0, "pending"),
    (2, 0, 0, "pending"),
    (1, 0, 1, "pending"),
    (3, 1, 0, "pending"),
    (0, 1, 1, "pending"),
    (99, 1, 0, "pending"),
    (None, 1, 0, "pending"),
    ("five", 1, 0, "pending"),
    ("5", "1", "0", "delivered"),
    ("4", "0", "0", "failed"),
    (5, 2**62, 2**62, "partial"),
    (5, 2**63 - 1, 2**63 - 1, "partial"),
]


@pytest.mark.parametrize(("status", "success", "failed", "delivery"), TABLE, ids=ascii)
def test_what_is_final_and_what_its_delivery_is(
    status, success, failed, delivery, read
):
    """Final is 4, or 5 with somebody reached or not reached: section 5."""
    row = sample("a", SendStatus=status, SendSuccess=success, SendFailed=failed)
    result = read([row])
    assert result.callbacks["delivery"].to_pylist() == [delivery]
    assert outcomes(result) == [["pending" if delivery == "pending" else "final"]]


def test_a_ref_id_is_final_when_all_its_rows_are(read):
    """One row that may still change keeps the RefId pending."""
    rows = [
        sample("a"),
        sample("a"),
        sample("b"),
        sample("b", SendStatus=2),
        sample("c", SendStatus=2),
        sample("c"),
    ]
    result = read(rows, ("a", "b", "c", "d"))
    assert outcomes(result) == [["final", "pending", "pending", "missing"]]


def test_a_final_answer_is_not_replaced_by_a_non_final_one(read):
    """Rows of a RefId that is final already are left out unless all are final."""
    rows = [sample("a", SendStatus=2), sample("b", SendStatus=2), sample("c")]
    result = read(rows, ("a", "b", "c"), keep_final=("a", "c"))
    assert result.callbacks["ref_id"].to_pylist() == ["b", "c"]
    assert outcomes(result) == [["pending", "pending", "final"]]


# People's data.


def test_a_phone_is_hashed_with_the_key(cells):
    """HMAC-SHA-256 with phone_hash_key, so that nobody can try all phones."""
    row = cells({"phone_number": "hash", "phone_hash_key": "pepper"})
    expected = hmac.new(b"pepper", b"0909090909", hashlib.sha256).hexdigest()
    assert row["phone_number"] == expected


@pytest.mark.parametrize("policy", ["hash", "drop"])
@pytest.mark.parametrize(
    "fields",
    [
        {"PhoneNumber": "0909090909"},
        {"PhoneNumber": ["0909090909"]},
        {"PhoneNumber": {"n": "0909090909"}},
        {"Phone": "0909090909"},
        {"phone_number": "0909090909"},
        {"Receiver": {"PhoneNumber": "0909090909", "x": [{"phone": 909090909}]}},
        {"PHONES": ["0909090909", "0909090909"]},
    ],
    ids=ascii,
)
def test_no_phone_gets_past_hash_or_drop(policy, fields, read):
    """For the column and for extra."""
    settings = {"phone_number": policy, "phone_hash_key": "pepper"}
    row = {"SMSID": "a", **fields}
    result = read([row, {**row, "SMSID": "zz"}, [row]], **settings)
    text = str(result.callbacks.to_pylist()) + str(result.rejected)
    assert "909090909" not in text


def test_a_dropped_phone_leaves_null(cells):
    """With drop the column is empty."""
    assert cells({"phone_number": "drop"})["phone_number"] is None


def test_hashing_keeps_what_belongs_together(read):
    """The same phone has the same hash, as number or text, in column and extra."""
    rows = [
        sample("a", PhoneNumber="84909090909", OtherPhone="84909090909"),
        sample("b", PhoneNumber=84909090909),
    ]
    settings = {"phone_number": "hash", "phone_hash_key": "pepper"}
    first, second = read(rows, ("a", "b"), **settings).callbacks.to_pylist()
    assert first["phone_number"] == second["phone_number"]
    assert extra(first)["OtherPhone"] == first["phone_number"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://x.vn/cb?token=t0ken", "https://x.vn/cb"),
        ("https://x.vn/cb#token=t0ken", "https://x.vn/cb"),
        ("https://x.vn/cb?a=1\n&token=t0ken", "https://x.vn/cb"),
        ("https://x.vn/cb", "https://x.vn/cb"),
        ("", ""),
        (None, None),
    ],
)
def test_the_query_of_the_callback_url_is_cut(url, kept, cells):
    """Tokens stand there."""
    row = cells(CallbackUrl=url)
    assert row["callback_url"] == kept
    assert "t0ken" not in str(row)


def test_the_query_is_kept_when_asked_for(cells):
    """keep_callback_query = true."""
    url = "https://x.vn/cb?token=t0ken"
    assert cells({"keep_callback_query": True}, CallbackUrl=url)["callback_url"] == url


@pytest.mark.parametrize(
    "fields",
    [
        {"CallbackUrl": ["https://x.vn/cb?token=t0ken"]},
        {"CallbackUrl": {"url": "https://x.vn/cb?token=t0ken"}},
        {"callbackurl": "https://x.vn/cb?token=t0ken"},
        {"Nested": {"CallbackUrl": "https://x.vn/cb?token=t0ken"}},
    ],
    ids=ascii,
)
def test_no_query_gets_into_extra_or_rejected_rows(fields, read):
    """What is cut in the column is cut in JSON too."""
    row = {"SMSID": "a", **fields}
    result = read([row, {**row, "SMSID": "zz"}])
    text = str(result.callbacks.to_pylist()) + str(result.rejected)
    assert "t0ken" not in text


# ErrorInfo.


def test_error_info_is_read_and_kept(cells):
    """The text as it came, and what it says."""
    text = '{"error":-124,"message":"Access token is invalid"}Object reference.'
    row = cells(ErrorInfo=text)
    assert row["error_info"] == text
    assert (row["error_code"], row["error_message"]) == (
        -124,
        "Access token is invalid",
    )
    assert row["error_detail"] == "Object reference."


@pytest.mark.parametrize(
    "value",
    [{"error": -118, "message": "none"}, -118, "-118", [{"error": -118}]],
    ids=ascii,
)
def test_error_info_may_come_unquoted(value, cells):
    """An object, a number or a list is read as its JSON text."""
    row = cells(ErrorInfo=value)
    assert row["error_code"] == -118
    assert row["error_info"] == (
        value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    )


# Any JSON.

# The client escapes what no database can store.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
SCALAR = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | TEXT
FLAT = st.lists(SCALAR, max_size=3) | st.dictionaries(TEXT, SCALAR, max_size=3)
JSON = SCALAR | FLAT | st.lists(FLAT, max_size=3)


@given(
    rows=st.lists(
        JSON
        | st.fixed_dictionaries(
            {"SMSID": st.sampled_from(["a", "A", "b", 1, None]) | JSON},
            optional=dict.fromkeys((*COLUMN_OF, "ErrorInfo", "OAId", "X"), JSON),
        ),
        max_size=4,
    ),
    policy=st.sampled_from(["plain", "hash", "drop"]),
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_json_becomes_rows(rows, policy, read):
    """No row raises, and each is placed or rejected, none twice."""
    result = read(rows, ("a", "b", "1"), phone_number=policy, phone_hash_key="pepper")
    assert len(result.callbacks) + len(result.rejected) == len(rows)
    for name in ("extra", "error_data"):
        for cell in result.callbacks[name].to_pylist():
            assert cell is None or json.loads(cell) is not None
