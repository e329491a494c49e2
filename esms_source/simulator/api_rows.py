"""How the API writes a row: plain, and in all the odd ways that were seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote as percent_encode

from esms_source.simulator.chance import Dice, deck

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

Row: TypeAlias = dict[str, object]

TYPES = deck({25: 60, 24: 34, 26: 4, 27: 2})
"""TypeId by weight; 26 and 27 come without telco and template."""

TELCO_IDS = deck({1: 45, 2: 25, 3: 20, 4: 4, 5: 2, 6: 1, 7: 1, 9: 1, 42: 1})
"""Telcoid by weight; 9 is undocumented but seen, 42 stands for a new one."""

SEND_STATUSES_NOT_FINAL = (2, 7, 1, 5)
"""What a held row shows; 5 comes with neither successes nor failures."""

FAILURES = {
    (-118, "Zalo account not existed"): 30,
    (
        -114,
        (
            "User is inactive, or reject the message, or using an outdated Zalo "
            "version, or other internal errors"
        ),
    ): 25,
    (-119, "Account can not receive ZNS"): 10,
    (-108, "Phone number invalid"): 6,
    (-139, "User refused this ZNS content type"): 5,
    (-141, "User refused ZNS from this OA"): 5,
    (-124, "Access token is invalid"): 4,
    (-140, "User ineligible for this ZNS type"): 3,
    (-144, "ZNS daily quota exceeded"): 3,
    (-1471, "OA exceeded monthly follow-up limit for this user"): 2,
    (-1121, "template data customer_name is break max length"): 2,
    (-133, "This template cannot be sent at night"): 2,
    (-115, "Out of quota"): 1,
    (-131, "ZNS template not approved"): 1,
    (1001, "Người dùng không online"): 2,
    (-1999, "A code of next year"): 1,
    (-31337, "Lỗi chưa có trong tài liệu"): 1,
}
"""Codes and messages of failures by weight: Zalo's, eSMS's own 1001, two unknown."""

STAMP = "____24/04/2024 16:58:01"
"""The tail that follow-up messages carry behind their JSON."""

_FAILURES = deck(FAILURES)
_DOTNET_TAIL = "Object reference not set to an instance of an object."

encode = json.JSONEncoder(separators=(",", ":")).encode
"""Write JSON as the API does, without blanks."""


def error_json(code: int, message: str) -> str:
    """Return an ErrorInfo as Zalo words it."""
    return encode({"error": code, "message": message})


def _stamped(text: str, times_encoded: int) -> str:
    """Write a JSON text as follow-up messages do: stamped, then percent-encoded."""
    if times_encoded == 0:
        return text + STAMP
    once = percent_encode(text, safe=":,") + percent_encode(STAMP, safe=":/")
    return once if times_encoded == 1 else percent_encode(once, safe="")


ERROR_FORMS: dict[Callable[[int, str], object], int] = {
    error_json: 56,
    lambda code, message: error_json(code, message) + _DOTNET_TAIL: 8,
    lambda code, message: encode(error_json(code, message)): 8,
    lambda code, message: _stamped(error_json(code, message), 2): 3,
    lambda code, message: _stamped(error_json(code, message), 1): 2,
    lambda code, message: _stamped(error_json(code, message), 0): 2,
    lambda code, message: percent_encode(error_json(code, message)): 3,
    lambda code, message: json.dumps({"error": code, "message": message, "data": {}}): (
        3
    ),
    lambda code, message: encode([{"error": str(code), "message": message}]): 1,
    lambda code, message: error_json(code, message)[:-9]: 3,
    lambda code, _message: str(code): 5,
    lambda code, _message: code: 1,
    lambda _code, message: message: 3,
    lambda _code, _message: None: 2,
    lambda _code, _message: "": 1,
}
"""Ways to write code and message into ErrorInfo, by weight; most were seen."""

_ERROR_FORMS = deck(ERROR_FORMS)

SUCCESS_FORMS: tuple[object, ...] = (
    None,
    None,
    "",
    "0",
    error_json(0, "Success"),
    encode({"error": 0, "message": "Success", "data": {"status": 1}}),
)
"""What stands in ErrorInfo when nothing failed."""

MISFITS: tuple[tuple[str, object], ...] = (
    ("SendSuccess", "n/a"),
    ("SendSuccess", True),
    ("SendFailed", 0.5),
    ("TotalPrice", "330.123456"),
    ("TotalPrice", 10**30),
    ("TotalPrice", "1.234,56"),
    ("TotalReceiver", 10**30),
    ("TotalSent", [1]),
    ("TypeId", "ZNS"),
    ("Telcoid", -(2**63) - 1),
    ("PhoneNumber", 909090909),
    ("Partnerids", ["7984e9b198c40e9957d6", None]),
    ("ErrorInfo", {"error": -118, "message": "Zalo account not existed"}),
    ("CallbackUrl", 7),
)
"""Values that do not fit their field."""

EXTRA_FIELDS: tuple[tuple[str, object], ...] = (
    ("SwitchSmsId", ""),
    ("Campaign", "Khuyến mãi 🎉"),
    ("Meta", {"retry": 1, "path": ["zalo", "sms"]}),
    ("sms_id", 29028845),
)
"""Fields that no document knows."""

_NUMBERS = (
    "SendFailed",
    "SendSuccess",
    "SendStatus",
    "TotalPrice",
    "TotalReceiver",
    "TotalSent",
    "TypeId",
    "Telcoid",
)


def sample_row(ref_id: str, **fields: object) -> Row:
    """Return a delivered row as the API writes it, with ``fields`` put over it."""
    row: Row = {
        "SMSID": ref_id,
        "SendFailed": 0,
        "SendSuccess": 1,
        "SendStatus": 5,
        "TotalPrice": 330.0,
        "TotalReceiver": 1,
        "TotalSent": 1,
        "RequestId": None,
        "TypeId": 25,
        "Telcoid": 1,
        "PhoneNumber": "0909090909",
        "CallbackUrl": "https://crm.example.vn/zns/callback",
        "Partnerids": "7984e9b198c40e9957d6",
        "ErrorInfo": None,
        "OAId": "1090257973118325189",
        "ZnsTempId": "228386",
    }
    return row | fields


def make_row(dice: Dice, ref_id: str, oa_id: str, fate: str) -> Row:
    """Return the row of one receiver, without oddities of writing."""
    price = (20_000 + dice.roll(70_001)) / 100
    row = sample_row(
        ref_id,
        OAId=oa_id,
        TotalPrice=price,
        RequestId=dice.pick((None, None, "", f"req-{dice.roll(10**6):06}")),
        TypeId=dice.pick(TYPES),
        Telcoid=dice.pick(TELCO_IDS),
        PhoneNumber=_phone(dice),
        Partnerids=f"{dice.roll(16**20):020x}",
        ErrorInfo=dice.pick(SUCCESS_FORMS),
        ZnsTempId=str(200_000 + dice.roll(40)),
    )
    if not dice.once_in(5):
        row["CallbackUrl"] = f"{row['CallbackUrl']}?token={dice.roll(16**12):012x}"
    if row["TypeId"] in (26, 27):
        _make_follower_message(dice, row)
    row |= _outcome(dice, fate)
    if fate == "misfit":
        row |= [dice.pick(MISFITS)]
    return row


def _phone(dice: Dice) -> str:
    local = f"9{dice.roll(10**8):08}"
    if dice.once_in(50):
        return str(5 * 10**18 + dice.roll(10**18))
    return f"84{local}" if dice.once_in(8) else f"0{local}"


def _make_follower_message(dice: Dice, row: Row) -> None:
    user_id = f"{3 * 10**16 + dice.roll(10**16)}"
    del row["Telcoid"], row["ZnsTempId"]
    # Seen in the API's own sample: the user id, cut to 15 characters.
    row["PhoneNumber"] = user_id[:15]
    data = {"message_id": row["Partnerids"], "user_id": user_id}
    answer = {"data": data, "error": 0, "message": "Success"}
    row["ErrorInfo"] = _stamped(encode(answer), dice.roll(3))


def _outcome(dice: Dice, fate: str) -> Row:
    """Return the fields that a fate changes in a delivered row."""
    if fate == "failed":
        code, message = dice.pick(_FAILURES)
        return {
            "SendSuccess": 0,
            "SendFailed": 1,
            "TotalPrice": 0.0,
            "TotalSent": dice.roll(2),
            "ErrorInfo": dice.pick(_ERROR_FORMS)(code, message),
        }
    if fate == "rejected":
        return {
            "SendStatus": 4,
            "SendSuccess": 0,
            "SendFailed": dice.roll(2),
            "TotalPrice": 0.0,
            "TotalSent": 0,
            "ErrorInfo": None,
        }
    if fate == "partial":
        return {"SendSuccess": 2, "SendFailed": 1, "TotalReceiver": 3, "TotalSent": 3}
    if fate == "held":
        status = dice.pick(SEND_STATUSES_NOT_FINAL)
        return {
            "SendStatus": status,
            "SendSuccess": 0,
            "TotalPrice": 0.0,
            "Partnerids": "",
            "ErrorInfo": None,
        }
    return {}


def dress(dice: Dice, row: Row, spellings: Counter[str]) -> None:
    """Write the row in one of the ways that real answers are mixed of."""
    texts = dice.pick((0, 0, 0, 0xFF, dice.roll(0x100)))
    for bit, name in enumerate(_NUMBERS):
        value = row.get(name)
        if texts >> bit & 1 and type(value) in (int, float):
            row[name] = f"{value:.4f}" if name == "TotalPrice" else str(value)
    ref_id = str(row["SMSID"])
    # With a twin in the request nobody could tell whose row it is.
    if dice.once_in(50) and ref_id.isascii() and spellings[ref_id.lower()] == 1:
        row["SMSID"] = dice.pick((str.upper, str.lower))(ref_id)
    if dice.once_in(50):
        row |= [dice.pick(EXTRA_FIELDS)]


def strays(dice: Dice) -> list[object]:
    """Return what no RefId can be given: in one answer of ten, one such row."""
    stranger = f"{dice.roll(16**32):032x}777"
    found: tuple[object, ...] = (
        sample_row(stranger),
        sample_row(stranger, SMSID=None),
        sample_row(stranger, SMSID=" "),
        {key: value for key, value in sample_row("").items() if key != "SMSID"},
        None,
        "row",
        [],
    )
    return [dice.pick(found)] if dice.once_in(10) else []
