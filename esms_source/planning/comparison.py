"""The whole warehouse table against the ledger: what isn't there yet, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from esms_source.planning.known import EPOCH, Ledger
from esms_source.planning.planner import planning
from esms_source.planning.reading import CLOCKS, Reading, kinds_of_skipped

if TYPE_CHECKING:
    from datetime import datetime

    import dlt

    from esms_source.config import Settings
    from esms_source.planning.skipped import Skipped


@dataclass(frozen=True)
class Comparison:
    """How a warehouse table and the ledger compare, in rows of the table.

    Attributes:
        rows: All rows.
        new: Not in the ledger; the next run asks for them.
        late: Not in the ledger, and older than ``lag``; the next run that compares the
            whole table asks for them.
        skipped: Not in the ledger for another reason, with examples.
        sample: An OA and one of its RefIds, where there are any.
    """

    rows: int
    new: int
    late: int
    skipped: Skipped
    sample: tuple[str, str] | None

    @property
    def unknown(self) -> int:
        """Return how many rows aren't in the ledger."""
        skipped = self.skipped
        rest = skipped.no_ref_id + skipped.no_oa_id + skipped.unreadable
        return self.new + self.late + rest

    def remedies(self) -> list[str]:
        """Return a line for each reason why rows aren't in the ledger."""
        lines = []
        if self.new:
            lines.append(f"{self.new} are asked by the next run")
        if self.late:
            late = f"{self.late} are older than ref_ids.lag and asked when the whole"
            lines.append(f"{late} table is compared; esms run --all does it now")
        return [*lines, *self.skipped.remedies()]


def compare(
    settings: Settings, pipeline: dlt.Pipeline | None, as_of: datetime
) -> Comparison:
    """Compare the whole warehouse table with the ledger.

    Args:
        settings: Where the table is.
        pipeline: Its destination holds the ledger; None where there is none.
        as_of: Now, in UTC.

    Raises:
        ConfigError: A setting is missing or wrong.
        RefIdTableError: The warehouse table can't be read.
        DestinationError: The ledger can't be read, or memory or disk don't suffice.
    """
    with planning(settings) as scratch:
        ledger = Ledger(scratch)
        if pipeline is not None:
            # No row of it is asked: only what it knows of each OA is read.
            ledger.read(pipeline, settings, as_of, ["1 = 0"])
        reading = Reading(scratch, settings, ledger, as_of)
        found = reading.read_table(whole=True, kind="VIEW")
        reading.read_keys()
        kinds = kinds_of_skipped(timed=found.columns.sent_at is not None)
        odd = f"({' OR '.join(kinds.values())})"
        values = {"odd": odd, "forgotten": ledger.forgotten}
        for step in ("compared", "shared", "unknown"):
            scratch.step(step, values)
        ((rows, newest),) = scratch.rows(
            "SELECT count(*), epoch_us(max(sent_at)) FROM plan.main.compared"
        )
        ((new, late, odd_count),) = scratch.rows(
            "SELECT count(*) FILTER (NOT is_odd AND NOT is_late),"
            " count(*) FILTER (NOT is_odd AND is_late), count(*) FILTER (is_odd)"
            " FROM plan.main.unknown"
        )
        if odd_count:
            scratch.step("odd", values)
            reading.count(found, "odd", are_asked=False)
        sample = scratch.rows(
            "SELECT oa_id, ref_id FROM plan.main.candidates"
            " WHERE esms_key IS NOT NULL LIMIT 1"
        )
    at = None if newest is None else EPOCH + timedelta(microseconds=newest)
    in_future = at if at and at > as_of + CLOCKS else None
    skipped = replace(reading.skipped, rows=rows, in_future=in_future)
    pair = (sample[0][0], sample[0][1]) if sample else None
    return Comparison(rows, new, late, skipped, pair)
