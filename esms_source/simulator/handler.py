"""From a request to its reply, without sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from esms_source.simulator.faults import FAULTS, Reply, Scene, parse_faults
from esms_source.simulator.scenarios import Fates

if TYPE_CHECKING:
    from esms_source.simulator.behaviour import Behaviour
    from esms_source.simulator.traffic import Arrivals

MAX_REF_IDS = 200
"""RefIds answered per request; more are cut off without a word.

Source: the GetCallback page of eSMS's API docs.
"""


@dataclass(frozen=True)
class Asked:
    """What stands in a body; a field that is absent or no text is blank.

    ``ref_ids`` is None where ListRefid is not a list.
    """

    api_key: str
    secret_key: str
    oa_id: str
    ref_ids: tuple[str, ...] | None


@dataclass(frozen=True)
class Case:
    """A request, its number from 1, and the fault that is due, if any."""

    number: int
    request: Any
    fault: str | None


class Desk:
    """Decides what a request gets.

    Args:
        behaviour: How to decide.
        arrivals: Where to note it.
        elsewhere: Where redirects point to.
    """

    def __init__(
        self, behaviour: Behaviour, arrivals: Arrivals, elsewhere: str
    ) -> None:
        self._behaviour = behaviour
        self._arrivals = arrivals
        self._elsewhere = elsewhere
        self._plan = parse_faults(behaviour.faults)
        self._fates = Fates(
            behaviour.seed, plain=behaviour.plain, scripted=behaviour.scripted
        )

    def open(self, number: int, body: bytes, *, refused: bool) -> Case:
        """Read a request and decide which fault it gets."""
        request = _read_asked(body)
        oa_id = request.oa_id if request else ""
        ref_ids = (request and request.ref_ids) or ()
        self._arrivals.note_asked(oa_id, ref_ids)
        if refused:
            return Case(number, request, self._behaviour.refuse_with)
        hook = self._behaviour.on_request
        fault = hook(number, oa_id, ref_ids) if hook else None
        fault = fault or self._plan.pick(self._behaviour.seed, number, ref_ids)
        if fault:
            self._arrivals.note_fault(fault)
        return Case(number, request, fault)

    def reply(self, case: Case) -> Reply:
        """Make the reply; what a usable answer holds counts as answered."""
        if case.fault is None:
            return Reply(self._answer(case, counts=True))
        fault = FAULTS[case.fault]
        scene = Scene(
            lambda: self._answer(case, counts=not fault.spoils), self._elsewhere
        )
        return fault.reply(scene)

    def _answer(self, case: Case, *, counts: bool) -> bytes:
        request = case.request
        if request is None:
            return json.dumps({"error": "Invalid request"}).encode()
        problem = self._problem(request)
        if problem:
            return _refusal(case.number, *problem)
        ref_ids = tuple(dict.fromkeys((request.ref_ids or ())[:MAX_REF_IDS]))
        if counts:
            self._arrivals.note_answered(request.oa_id, ref_ids)
        return self._fates.answer(request.oa_id, ref_ids, counts=counts)

    def _problem(self, request: Asked) -> tuple[str, str] | None:
        """Return the code and message of what is wrong with a request."""
        given = request.api_key, request.secret_key
        if problem := credentials_problem(self._behaviour, *given):
            return problem
        if not request.oa_id:
            return "791", "Missing OA ID or Template ID"
        if request.oa_id in self._behaviour.refused_oas:
            return "204", "OAID is not exist"
        if request.ref_ids is None:
            return "110", "The requested data is incorrect"
        return None


def credentials_problem(
    behaviour: Behaviour, api_key: object, secret_key: object
) -> tuple[str, str] | None:
    """Return the code and message of credentials that are refused."""
    expected = (api_key, behaviour.api_key), (secret_key, behaviour.secret_key)
    if all(given and key in (None, given) for given, key in expected):
        return None
    return "101", "Authorize Failed"


def _read_asked(body: bytes) -> Asked | None:
    try:
        fields = json.loads(body)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    ref_ids = fields.get("ListRefid")
    return Asked(
        _text(fields, "ApiKey"),
        _text(fields, "SecretKey"),
        _text(fields, "OAId"),
        tuple(map(str, ref_ids)) if isinstance(ref_ids, list) else None,
    )


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _refusal(number: int, code: str, message: str) -> bytes:
    """Write a refusal in one of the shapes that the API's endpoints use."""
    shapes: tuple[dict[str, object], ...] = (
        {"Code": code, "Message": message, "Data_callback": None},
        {"CodeResult": code, "CountRegenerate": 0, "ErrorMessage": message},
        {"CodeResponse": int(code)},
    )
    return json.dumps(shapes[number % len(shapes)]).encode()
