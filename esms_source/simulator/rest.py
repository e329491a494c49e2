"""eSMS's other endpoints: the result of one message, names, what was sent."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from esms_source.simulator.api_rows import FAILURES, encode
from esms_source.simulator.chance import Dice, deck
from esms_source.simulator.faults import FAULTS, Reply, Scene, parse_faults
from esms_source.simulator.handler import Case, credentials_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esms_source.simulator.behaviour import Behaviour
    from esms_source.simulator.traffic import Arrivals

QUERY = "QueryZnsStatus"
LIST_OAS = "ZNS/GetListZOA"
GET_TEMPLATE = "GetTemplate"
GET_SENT = "GetSmsSentData_V2"
PATHS = {
    f"/MainService.svc/json/{name}{slash}": name
    for name in (QUERY, LIST_OAS, GET_TEMPLATE, GET_SENT)
    for slash in ("", "/")
}
"""Where they are. Source: their pages in eSMS's API docs."""

MOST_ROWS = 500
"""Rows of a page of what was sent. Source: the GetSmsSentData_V2 page of the docs."""

TEMPLATES = {str(200_000 + number): f"Mẫu tin {number}" for number in range(40)} | {
    "228386": "Xác nhận đơn hàng"
}
"""The templates that the simulator's callbacks name."""

VIETNAM = timezone(timedelta(hours=7))
_CODES = deck({code: weight for (code, _), weight in FAILURES.items()})


class RestDesk:
    """Decides what a request to one of the other endpoints gets.

    Args:
        behaviour: How to decide.
        arrivals: Where to note it, by endpoint.
        callbacks: What GetCallback was asked, and so which OAs there are.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        arrivals: Mapping[str, Arrivals],
        callbacks: Arrivals,
    ) -> None:
        self._behaviour = behaviour
        self._arrivals = arrivals
        self._callbacks = callbacks
        self._plan = parse_faults(behaviour.rest_faults)

    def open(self, name: str, number: int, body: bytes, *, refused: bool) -> Case:
        """Read a request and decide which fault it gets."""
        fields = _read(body)
        asked = [str(fields["SmsId"])] if "SmsId" in fields else []
        self._arrivals[name].note_asked(str(fields.get("SmsType", "")), asked)
        fault = (
            self._behaviour.refuse_with
            if refused
            else self._plan.pick(self._behaviour.seed, number, asked)
        )
        return Case(number, fields, fault)

    def reply(self, name: str, case: Case) -> Reply:
        """Make the reply."""
        if case.fault is None:
            return Reply(self._answer(name, case))
        scene = Scene(lambda: self._answer(name, case), "")
        return FAULTS[case.fault].reply(scene)

    def _answer(self, name: str, case: Case) -> bytes:
        fields = case.request
        problem = credentials_problem(
            self._behaviour, fields.get("ApiKey"), fields.get("SecretKey")
        )
        if problem:
            return _refusal(*problem)
        answers = {
            QUERY: self._result,
            LIST_OAS: self._oas,
            GET_TEMPLATE: self._templates,
            GET_SENT: self._sent,
        }
        return answers[name](fields)

    def _result(self, fields: Mapping[str, Any]) -> bytes:
        ref_id, kind = str(fields.get("SmsId", "")), str(fields.get("SmsType", ""))
        if not ref_id:
            return _refusal("851", "SmsId is required")
        scripted = self._behaviour.queried
        if ref_id in scripted:
            script = scripted[ref_id]
            found = script(ref_id, kind) if callable(script) else script
            if isinstance(found, bytes):
                return found
        else:
            found = self._found(ref_id, kind)
        if found is None:
            return _refusal("854", "No data found")
        row = {"SMSID": ref_id} | dict(found)
        dice = Dice("query form", self._behaviour.seed, ref_id)
        code = dice.pick(("100", 100))
        return encode({"CodeResult": code, "ErrorMessage": "", "Data": row}).encode()

    def _found(self, ref_id: str, kind: str) -> dict[str, object] | None:
        """Return the result of a message, None where nothing is known of it."""
        dice = Dice("query", self._behaviour.seed, ref_id)
        fate, sent_as = dice.roll(100), dice.pick(("25", "25", "24"))
        if fate < UNKNOWN_PERCENT or kind != sent_as:
            return None
        is_final, failed = fate >= UNKNOWN_PERCENT + OPEN_PERCENT, dice.once_in(8)
        reached = is_final and not failed
        error = str(dice.pick(_CODES)) if failed else "0"
        return {
            "SendStatus": 5 if is_final else 2,
            "SendSuccess": int(reached),
            "SendFailed": int(is_final and failed),
            "TotalReceiver": 1,
            "TotalSent": int(is_final),
            "TotalPrice": 330.0 if reached else 0.0,
            "ErrorInfo": error if is_final else None,
            "FinalStatus": dice.pick(("1", 1)) if is_final else "0",
            "ZaloMsgId": f"{dice.roll(16**20):020x}",
        }

    def _oas(self, _fields: Mapping[str, Any]) -> bytes:
        names = {oa_id: f"OA {oa_id[-4:]}" for oa_id in sorted(self._callbacks.oa_ids)}
        names |= self._behaviour.oa_names
        rows = [{"OAID": oa_id, "OAName": name} for oa_id, name in names.items()]
        return encode({"CodeResult": "100", "ZOAList": rows}).encode()

    def _templates(self, fields: Mapping[str, Any]) -> bytes:
        dice = Dice("templates", self._behaviour.seed, fields.get("OAId"))
        rows = [
            {
                "TempId": dice.pick((temp_id, int(temp_id))),
                "TempName": name,
                "TempContent": "<p>…</p>",
                "ZNSTempDetail": None,
            }
            for temp_id, name in TEMPLATES.items()
        ]
        return encode({"CodeResult": "100", "ZNSTemplates": rows}).encode()

    def _sent(self, fields: Mapping[str, Any]) -> bytes:
        begin, end = (_moment(fields.get(name)) for name in ("From", "To"))
        size = min(int(fields.get("PageSize", MOST_ROWS)), MOST_ROWS)
        first = (int(fields.get("Page", 1)) - 1) * size
        rows = [
            row
            for row in self._behaviour.sent
            if begin <= _sent_at(row) <= end
            and str(row.get("SmsType")) == str(fields.get("SmsType"))
        ]
        answer: dict[str, object] = {
            "CodeResult": "100",
            "CountTotal": len(rows),
            "SentData": rows[first : first + size] or None,
        }
        return encode(answer).encode()


UNKNOWN_PERCENT = 20
OPEN_PERCENT = 10
"""Of 100 messages: without a result under any type, and with one that isn't final."""


def sent_row(ref_id: str, at: datetime, **fields: object) -> dict[str, Any]:
    """Return a row of what was sent as the API writes it."""
    milliseconds = int(at.timestamp() * 1_000)
    row: dict[str, Any] = {
        "Campaign": "Gửi tin",
        "Content": "Mã xác nhận của bạn là 123456",
        "Phone": "0909090909",
        "ReferenceId": ref_id,
        "SellPrice": 330.0,
        "SendResult": 1,
        "SendStatus": 5,
        "SentTime": f"/Date({milliseconds}+0700)/",
        "SmsId": 29028845,
        "SmsType": 25,
    }
    return row | fields


def _moment(text: object) -> datetime:
    return datetime.strptime(str(text), "%Y-%m-%d %H:%M:%S").replace(tzinfo=VIETNAM)


def _sent_at(row: Mapping[str, Any]) -> datetime:
    found = re.search(r"\d+", str(row["SentTime"]))
    seconds = int(found[0]) // 1_000 if found else 0
    return datetime.fromtimestamp(seconds, VIETNAM)


def _read(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _refusal(code: str, message: str) -> bytes:
    return encode({"CodeResult": code, "ErrorMessage": message, "Data": None}).encode()
