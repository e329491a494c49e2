"""What can go wrong on the wire: faults by name, and when they strike."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from typing import TYPE_CHECKING

from esms_source.simulator.chance import Dice

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

HUGE_BYTES = 20 * 1024 * 1024
"""Size of the ``huge`` answers, above what any client should take."""

JSON_TYPE = "Content-Type: application/json; charset=utf-8"


@dataclass(frozen=True)
class Reply:
    """One HTTP answer as it goes over the wire.

    ``missing_bytes`` are promised by Content-Length and never sent; ``hang_up``
    closes the connection in place of an answer.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[str, ...] = (JSON_TYPE,)
    missing_bytes: int = 0
    hang_up: bool = False


@dataclass(frozen=True)
class Scene:
    """What a fault works on: the sound answer, made on demand, and another host."""

    answer: Callable[[], bytes]
    elsewhere: str


@dataclass(frozen=True)
class Fault:
    """A way to fail, its meaning in a few words, and the reply it gives.

    A fault that ``spoils`` leaves nothing of the answer that a client may use.
    """

    meaning: str
    reply: Callable[[Scene], Reply]
    spoils: bool = True


def json_reply(answer: object) -> Reply:
    """Return an HTTP 200 that holds ``answer`` as JSON."""
    return Reply(json.dumps(answer).encode())


def _fixed(meaning: str, reply: Reply) -> Fault:
    return Fault(meaning, lambda _scene: reply)


def _coded(meaning: str, answer: dict[str, object]) -> Fault:
    return _fixed(meaning, json_reply(answer))


def _refused(meaning: str, retry_after: str | None) -> Fault:
    headers = () if retry_after is None else (f"Retry-After: {retry_after}",)
    return _fixed(meaning, Reply(b"Too Many Requests", 429, headers))


def _refused_until_date(_scene: Scene) -> Reply:
    date = formatdate(time.time() + 2, usegmt=True)
    return Reply(b"Too Many Requests", 429, (f"Retry-After: {date}",))


def _gateway(status: int) -> Fault:
    body = f"<html><h1>{status}</h1></html>".encode()
    reply = Reply(body, status, ("Content-Type: text/html",))
    return _fixed(f"HTTP {status} with an HTML page", reply)


def _cut(scene: Scene) -> Reply:
    answer = scene.answer()
    return Reply(answer[: len(answer) * 2 // 3])


def _short(scene: Scene) -> Reply:
    answer = scene.answer()
    sent = len(answer) * 2 // 3
    return Reply(answer[:sent], missing_bytes=len(answer) - sent)


def _bom(scene: Scene) -> Reply:
    return Reply(b"\xef\xbb\xbf" + scene.answer())


def _huge(_scene: Scene) -> Reply:
    return Reply(_huge_answer())


def _huge_gzip(_scene: Scene) -> Reply:
    return Reply(_huge_gzipped(), headers=(JSON_TYPE, "Content-Encoding: gzip"))


def _huge_answer() -> bytes:
    filler = b" " * HUGE_BYTES
    return b'{"Code":100,"Message":"Success",' + filler + b'"Data_callback":[]}'


@cache
def _huge_gzipped() -> bytes:
    return gzip.compress(_huge_answer(), compresslevel=1)


def _redirect(status: int) -> Callable[[Scene], Reply]:
    def reply(scene: Scene) -> Reply:
        return Reply(status=status, headers=(f"Location: {scene.elsewhere}",))

    return reply


FAULTS: dict[str, Fault] = {
    "429": _refused("HTTP 429 with Retry-After: 1", "1"),
    "429_bare": _refused("HTTP 429 without Retry-After", None),
    "429_zero": _refused("HTTP 429 with Retry-After: 0", "0"),
    "429_date": Fault("HTTP 429, Retry-After a date", _refused_until_date),
    "500": _gateway(500),
    "502": _gateway(502),
    "503": _gateway(503),
    "504": _gateway(504),
    "html": _fixed(
        "HTTP 200 with an HTML page",
        Reply(b"<html>Maintenance</html>", headers=("Content-Type: text/html",)),
    ),
    "empty": _fixed("HTTP 200 with an empty body", Reply()),
    "cut": Fault("JSON that stops in the middle, with a true Content-Length", _cut),
    "short": Fault("connection closed before Content-Length is reached", _short),
    "drop": _fixed("connection closed without an answer", Reply(hang_up=True)),
    "slow": Fault(
        "a sound answer after slow_seconds",
        lambda scene: Reply(scene.answer()),
        spoils=False,
    ),
    "code99": _coded("Code 99", {"Code": "99", "Message": "Unknown error"}),
    "code160": _coded(
        "Code 160 in HTTP 200", {"Code": "160", "Message": "TPS limit exceeded"}
    ),
    "unknown": _coded("a Code nobody knows", {"Code": 777, "Message": None}),
    "nocode": _coded("an answer without a code", {"error": "Invalid request"}),
    "sample": _fixed(
        "the documents' sample of what was sent, which is no JSON",
        Reply(b'{"CodeResult":"100","CountTotal":1,"SentData":[{"SendStatus:5}]}'),
    ),
    "bom": Fault("a sound answer behind a byte order mark", _bom, spoils=False),
    "huge": Fault("a sound-looking answer of 20 MiB", _huge),
    "huge_gzip": Fault("20 MiB that travel as a few KiB of gzip", _huge_gzip),
    "redirect": Fault("HTTP 302 to another host", _redirect(302)),
    "redirect_307": Fault("HTTP 307 to another host", _redirect(307)),
    "refuse_key": _coded(
        "Code 101 in HTTP 200",
        {"CodeResult": "101", "CountRegenerate": 0, "ErrorMessage": "Authorize Failed"},
    ),
}
"""Every fault by name; a spec gives each a chance from 0 to 1."""

SPECIAL_FAULTS = {
    "refuse_key_after": "Code 101 from the N-th request on",
    "poison": "HTTP 500 for any request that holds this RefId (may be repeated)",
}
"""What a spec may name besides the faults, with a value that is not a chance."""


@dataclass(frozen=True)
class FaultPlan:
    """Which request gets which fault.

    ``chances`` are pairs of a fault's name and its share of all requests.
    """

    chances: tuple[tuple[str, float], ...] = ()
    poison: frozenset[str] = frozenset()
    refuse_key_after: int | None = None

    def pick(self, seed: int, number: int, ref_ids: Collection[str]) -> str | None:
        """Return the fault of the request that arrived as ``number`` (from 1)."""
        if not self.poison.isdisjoint(ref_ids):
            return "500"
        if self.refuse_key_after is not None and number >= self.refuse_key_after:
            return "refuse_key"
        if not self.chances:
            return None
        steps = 1_000_000
        shown = Dice("fault", seed, number).roll(steps) / steps
        for name, chance in self.chances:
            shown -= chance
            if shown < 0:
                return name
        return None


def parse_faults(spec: str) -> FaultPlan:
    """Read a spec such as ``500=0.1,drop=0.05,poison=REFID``.

    Raises:
        ValueError: A name is not known, a value is not what the name needs, or
            the chances add up to more than 1.
    """
    chances: dict[str, float] = {}
    poison: set[str] = set()
    refuse_key_after = None
    for item in filter(None, map(str.strip, spec.split(","))):
        name, _, value = item.partition("=")
        if name == "poison" and value:
            poison.add(value)
        elif name == "refuse_key_after" and value.isdecimal():
            refuse_key_after = int(value)
        elif name in FAULTS:
            chances[name] = _read_chance(item, value)
        else:
            raise _bad_spec(item, "is not a known fault with its value")
    if sum(chances.values()) > 1 + 1e-9:
        raise _bad_spec(spec, "has chances that add up to more than 1")
    return FaultPlan(tuple(chances.items()), frozenset(poison), refuse_key_after)


def _read_chance(item: str, value: str) -> float:
    try:
        chance = float(value)
    except ValueError:
        chance = -1.0
    if not 0 <= chance <= 1:
        raise _bad_spec(item, "needs a chance from 0 to 1")
    return chance


def _bad_spec(text: str, what: str) -> ValueError:
    known = ", ".join(
        [f"{name}=CHANCE" for name in FAULTS] + ["refuse_key_after=N", "poison=REFID"]
    )
    return ValueError(f"faults: {text!r} {what}; known are {known}")
