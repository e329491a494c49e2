"""What becomes of a RefId: its rows, decided by seed, OA and RefId alone."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as quote
from operator import itemgetter
from typing import TYPE_CHECKING

from esms_source.simulator.api_rows import (
    dress,
    encode,
    error_json,
    make_row,
    sample_row,
    strays,
)
from esms_source.simulator.chance import Dice, deck

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from esms_source.simulator.behaviour import Script

FATES = {
    "delivered": 880,
    "failed": 70,
    "rejected": 5,
    "partial": 5,
    "several": 10,
    "held": 12,
    "late": 8,
    "never": 5,
    "misfit": 5,
}
"""Fates in per mille.

``delivered`` and ``failed`` are final with SendStatus 5, ``rejected`` with 4;
``partial`` has successes and failures; ``several`` is two or three rows, of which
one may not be final in the first answer. ``held`` is not final and ``late`` is left
out for the first one or two answers, then both are delivered or failed. ``never``
is left out for good; ``misfit`` is delivered with one value that does not fit.
"""

_FATES = deck(FATES)


def _plain_template(**fields: object) -> str:
    """Render a row once, with %s for SMSID, price, phone and OA."""
    row = sample_row("%s", TotalPrice="%s", PhoneNumber="09%s", OAId="%s", **fields)
    return encode(row).replace('"%s"', "%s")


_PLAIN_DELIVERED = _plain_template()
_PLAIN_FAILED = _plain_template(
    SendSuccess=0, SendFailed=1, ErrorInfo=error_json(-118, "Zalo account not existed")
)
_PLAIN_FAILED_PERCENT = 8


class Fates:
    """Answers for any RefId; remembers only how often the unsettled were asked.

    Args:
        seed: Another seed, other fates.
        plain: One final row for each RefId, fast and without oddities.
        scripted: RefId to rows that replace its fate.
    """

    def __init__(
        self, seed: int, *, plain: bool, scripted: Mapping[str, Script]
    ) -> None:
        self._seed = seed
        self._plain = plain
        self._scripted = scripted
        self._turns: Counter[tuple[str, str]] = Counter()

    def answer(self, oa_id: str, ref_ids: Sequence[str], *, counts: bool) -> bytes:
        """Return the JSON answer to a request.

        What is held back comes out after some answers that ``counts``.
        """
        asked = list(dict.fromkeys(ref_ids))
        if not self._plain:
            return self._odd_answer(oa_id, asked, counts=counts)
        rows = list(self._plain_rows(oa_id, asked))
        for ref_id in self._scripted.keys() & asked:
            rows += map(encode, self._script(oa_id, ref_id, counts=counts))
        return _envelope("100", f"[{','.join(rows)}]")

    def _plain_rows(self, oa_id: str, ref_ids: Sequence[str]) -> Iterator[str]:
        start = blake2b(f"{self._seed}\0{oa_id}\0".encode(), digest_size=8)
        quoted_oa = quote(oa_id)
        for ref_id in ref_ids:
            if ref_id in self._scripted:
                continue
            digest = start.copy()
            digest.update(ref_id.encode("utf-8", "surrogatepass"))
            chance = int.from_bytes(digest.digest(), "big")
            if chance % 100 < _PLAIN_FAILED_PERCENT:
                template, price = _PLAIN_FAILED, "0.0"
            else:
                template, price = _PLAIN_DELIVERED, f"{200 + chance % 7001 / 10}"
            phone = f"{chance % 100_000_000:08}"
            yield template % (quote(ref_id), price, phone, quoted_oa)

    def _odd_answer(self, oa_id: str, asked: Sequence[str], *, counts: bool) -> bytes:
        dice = Dice("answer", self._seed, oa_id, *asked)
        spellings = Counter(map(str.lower, asked))
        placed: list[tuple[int, object]] = []
        for ref_id in asked:
            for index, row in enumerate(self._rows(oa_id, ref_id, counts=counts)):
                row_dice = Dice("dress", self._seed, oa_id, ref_id, index)
                if isinstance(row, dict) and ref_id not in self._scripted:
                    dress(row_dice, row, spellings)
                placed.append((row_dice.roll(1 << 32), row))
        placed += [(dice.roll(1 << 32), row) for row in strays(dice)]
        placed.sort(key=itemgetter(0))
        rows = encode([row for _place, row in placed])
        return _envelope(dice.pick(("100", '"100"')), rows)

    def _rows(self, oa_id: str, ref_id: str, *, counts: bool) -> Sequence[object]:
        if ref_id in self._scripted:
            return self._script(oa_id, ref_id, counts=counts)
        dice = Dice("fate", self._seed, oa_id, ref_id)
        fate = dice.pick(_FATES)
        outcome = "failed" if dice.once_in(10) else "delivered"
        patience = 1 + dice.roll(2)
        if fate == "never":
            return []
        if fate == "several":
            unripe = dice.once_in(2) and self._turn(oa_id, ref_id, counts=counts) == 1
            outcomes = [dice.pick(("delivered", "failed")) for _ in range(1 + patience)]
            return [
                make_row(
                    Dice("row", self._seed, oa_id, ref_id, index), ref_id, oa_id, one
                )
                for index, one in enumerate(
                    ["held", *outcomes[1:]] if unripe else outcomes
                )
            ]
        if fate in ("held", "late"):
            if self._turn(oa_id, ref_id, counts=counts) > patience:
                fate = outcome
            elif fate == "late":
                return []
        return [make_row(dice, ref_id, oa_id, fate)]

    def _script(self, oa_id: str, ref_id: str, *, counts: bool) -> Sequence[object]:
        script = self._scripted[ref_id]
        if callable(script):
            return script(ref_id, self._turn(oa_id, ref_id, counts=counts))
        return script

    def _turn(self, oa_id: str, ref_id: str, *, counts: bool) -> int:
        turn = self._turns[oa_id, ref_id] + 1
        if counts:
            self._turns[oa_id, ref_id] = turn
        return turn


def _envelope(code: str, rows: str) -> bytes:
    return f'{{"Code":{code},"Message":"Success","Data_callback":{rows}}}'.encode()
