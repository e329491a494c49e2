"""What a run doesn't ask though it is there: counted, with example and remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from esms_source.redaction import mask

if TYPE_CHECKING:
    from datetime import datetime

_DATE: Final = re.compile(
    r"(\d{1,2}([-/.])\d{1,2}\2\d{2,4}|\d{4}([-/.])\d\d?\3\d\d?)\b"
)
"""How a text begins that is a date, and no phone or RefId."""


@dataclass(frozen=True)
class Skipped:
    """Rows of the warehouse that were read, and what of them isn't asked.

    Attributes:
        rows: All that were read.
        no_ref_id: Those without a RefId, or with one that can't be stored as it is.
        no_oa_id: Those with a RefId and without an OA.
        unreadable: Those whose ``sent_at`` is null or can't be read. They are asked
            where the whole table is compared.
        are_asked: Whether the unreadable ones are asked.
        examples: One row of each kind, by its name; no phone or whole RefId.
        in_future: The newest ``sent_at``, where it lies in the future.
        notes: What was chosen and isn't asked, a line each.
    """

    rows: int = 0
    no_ref_id: int = 0
    no_oa_id: int = 0
    unreadable: int = 0
    are_asked: bool = False
    examples: tuple[tuple[str, str], ...] = ()
    in_future: datetime | None = None
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Return how many rows aren't asked."""
        return self.no_ref_id + self.no_oa_id + self.unreadable * (not self.are_asked)

    def remedies(self) -> list[str]:
        """Return a line for each kind that there is, with what to do."""
        refused = "and {is} not asked"
        later = refused if not self.are_asked else "and {is} asked without it"
        if not self.are_asked:
            later = "and {is} asked when the whole table is compared"
        kinds = (
            ("no_ref_id", f"no RefId {refused}", "fill ref_ids.ref_id_column"),
            ("no_oa_id", f"no OA {refused}", "set oa_id or fill ref_ids.oa_id_column"),
            ("unreadable", f"no sent_at that can be read {later}", CORRECT_SENT_AT),
        )
        examples = dict(self.examples)
        lines = []
        for kind, words, remedy in kinds:
            count = getattr(self, kind)
            if count:
                many = count != 1
                such = f", such as {examples[kind]}" if kind in examples else ""
                who = f"{count} {'rows have' if many else 'row has'}"
                what = words.replace("{is}", "are" if many else "is")
                lines.append(f"{who} {what}{such}; {remedy}")
        if self.in_future:
            newest = self.in_future.isoformat(sep=" ", timespec="seconds")
            fact = f"the newest sent_at, {newest}, lies in the future"
            lines.append(f"{fact}; correct ref_ids.sent_at_timezone")
        return [*lines, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return all by name."""
        return {**vars(self), "examples": dict(self.examples)}


CORRECT_SENT_AT: Final = "fill or correct ref_ids.sent_at_column"


def example(ref_id: str | None, oa_id: str | None, sent_at: str | None) -> str:
    """Return words for a row that name no phone and no whole RefId."""
    words = []
    if ref_id:
        words.append(f"RefId {ref_id[:3]}…")
    if oa_id:
        words.append(f"OA {oa_id}")
    if sent_at:
        is_date = _DATE.match(sent_at.strip())
        shown = sent_at if is_date else mask(sent_at)
        words.append(f"sent_at {shown[:40]!r}")
    return ", ".join(words) or "one without any"
