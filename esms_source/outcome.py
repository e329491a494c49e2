"""What a run did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from esms_source.planning.skipped import Skipped
from esms_source.runtime import Counts

if TYPE_CHECKING:
    from datetime import datetime

RECORDED: Final = (
    "compared_all",
    "planned",
    "asked",
    "answered",
    "missing",
    "failed",
    "rejected",
    "misfits",
    "requests",
)
"""What the table ``runs`` takes from a report as it is."""


@dataclass
class Report(Counts):
    """What a run did: its ``Counts``, and what they are part of.

    Attributes:
        planned: RefIds that were to be asked.
        skipped: Rows of the warehouse that can't be asked.
        loads: dlt's load packages, in order.
        compared_all: Whether the whole warehouse table was compared with the ledger,
            and all that was found was reached.
        waiting: RefIds of the ledger that are to be asked again.
        next_due_at: When the first of them is due; None where none is.
    """

    planned: int = 0
    skipped: Skipped = field(default_factory=Skipped)
    loads: tuple[str, ...] = ()
    compared_all: bool = False
    waiting: int = 0
    next_due_at: datetime | None = None

    @property
    def exit_code(self) -> int:
        """Return 1 where something failed, or nothing of the table can be asked."""
        skipped = self.skipped
        unusable = skipped.no_ref_id + skipped.no_oa_id
        return int(bool(self.failed) or 0 < skipped.rows == unusable)

    @property
    def left(self) -> int:
        """Return how many RefIds were planned and not reached."""
        return self.planned - self.asked

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers by name."""
        return {
            **vars(self),
            "problems": dict(self.problems),
            "skipped": self.skipped.to_dict(),
            "loads": list(self.loads),
            "left": self.left,
        }
