"""What a run asks: what is due, then what is new; ``plan.sql`` step by step."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from esms_source.databases import ReadError, cause_of, explain
from esms_source.exceptions import ConfigError
from esms_source.planning.known import Ledger
from esms_source.planning.reading import Reading, among, with_default
from esms_source.planning.scratch import Scratch
from esms_source.planning.work_list import (
    Cutter,
    OaPlan,
    Plan,
    work_in,
    write_in_order,
)
from esms_source.runtime import ScratchFolder
from esms_source.sql import moment_literal, text_list
from esms_source.tables import SETTLED, STATES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import dlt

    from esms_source.config import Settings
    from esms_source.databases import Patience
    from esms_source.planning.given_rows import RefIds

COMPLETED = "load_id IN (FROM plan.main.completed)"


@dataclass(frozen=True)
class Choice:
    """What a run is limited to; nothing that it leaves out is forgotten.

    Attributes:
        oa_ids: Only these OAs; all when empty.
        only: Only these RefIds, in any form that ``ref_ids`` takes.
        repoll: Ask RefIds of the ledger in these states again, due or not,
            and nothing else.
        since: With repoll, from this ``sent_at`` on. A date begins at midnight in
            ``timezone``; a time that names no zone is UTC.
        until: With repoll, before this ``sent_at``.
        max_ref_ids: At most so many, oldest first.
    """

    oa_ids: Sequence[str] = ()
    only: RefIds | None = None
    repoll: Sequence[str] = ()
    since: datetime | date | None = None
    until: datetime | date | None = None
    max_ref_ids: int | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        for name in ("oa_ids", "repoll"):
            if not _are_texts(getattr(self, name)):
                raise ConfigError(f"{name}: not a list of strings", "give such a list")
        unknown = sorted(set(self.repoll) - set(STATES))
        if unknown:
            fact = f"repoll: there is no state {unknown[0]!r}"
            raise ConfigError(fact, f"use {', '.join(STATES)}")
        for name in ("since", "until"):
            if not isinstance(getattr(self, name), (date, type(None))):
                raise ConfigError(f"{name}: not a time", "give a date or a datetime")
        if (self.since or self.until) and not self.repoll:
            raise ConfigError("since and until go with repoll", "name the states")
        most = self.max_ref_ids
        if most is not None and (type(most) is not int or most < 0):
            fact = f"max_ref_ids: {most!r} is not a number of RefIds"
            raise ConfigError(fact, "set it to a whole number, 0 or more")

    @property
    def is_of_all(self) -> bool:
        """Tell whether it leaves out no OA and no RefId."""
        return not self.oa_ids and self.only is None and not self.repoll

    def conditions(self, timezone: str) -> list[str]:
        """Return the SQL conditions of what is asked again by choice."""
        conditions = [f"state IN ({text_list(self.repoll)})"] if self.repoll else []
        for name, sign in (("since", ">="), ("until", "<")):
            moment = getattr(self, name)
            if moment is not None:
                if not isinstance(moment, datetime):
                    moment = datetime.combine(moment, time(), ZoneInfo(timezone))
                conditions.append(f"sent_at {sign} {moment_literal(moment)}")
        return conditions


def _are_texts(values: Any) -> bool:  # noqa: ANN401  what a user gave
    try:
        are_texts = all(isinstance(value, str) for value in values)
    except TypeError:
        return False
    return are_texts and not isinstance(values, str)


def make_plan(
    pipeline: dlt.Pipeline,
    settings: Settings,
    choice: Choice,
    as_of: datetime,
    ref_ids: RefIds | None = None,
    *,
    compare_all: bool = False,
    slice_ref_ids: int | None = None,
    patience: Patience | None = None,
) -> Plan:
    """Find out what is to be asked; no connection is open afterwards.

    Args:
        pipeline: Its destination holds the ledger.
        settings: Where the RefIds are.
        choice: What the run is limited to.
        as_of: When the run began, in UTC.
        ref_ids: Rows to read in place of the warehouse table.
        compare_all: Compare the whole warehouse table with the ledger, not only what
            lies within ``lag`` of each OA's newest ``sent_at``.
        slice_ref_ids: RefIds that the run asks at once, by which requests are
            counted; as set when it isn't given.
        patience: How long to wait for who else holds what is read.

    Raises:
        ConfigError: A setting is missing or wrong.
        RefIdTableError: The warehouse table can't be read.
        DestinationError: The ledger can't be read, or memory or disk don't suffice.
    """
    with planning(settings, patience) as scratch:
        ledger = Ledger(scratch)
        ledger.read(pipeline, settings, as_of, choice.conditions(settings.timezone))
        reading = Reading(scratch, settings, ledger, as_of)
        if choice.only is not None:
            reading.request(choice.only)
        table = settings.ref_ids.table or settings.ref_ids.query
        if choice.repoll:
            pass
        elif ref_ids is not None:
            reading.read_rows(ref_ids)
        elif choice.only is None or table:
            reading.read_table(whole=compare_all)
        if choice.only is not None or not choice.repoll:
            reading.read_keys()
        if not choice.repoll:
            reading.add_requested()
        reading.keep_new()
        reading.keep_one_of_each()
        chosen = choice.only is not None or ref_ids is not None
        size = slice_ref_ids or settings.slice_ref_ids
        cutter = Cutter(settings, size, as_of)
        return _write(scratch, settings, choice, reading, cutter, chosen=chosen)


@contextmanager
def planning(settings: Settings, patience: Patience | None = None) -> Iterator[Scratch]:
    """Open a scratch database; what it raises becomes an error of ours.

    Raises:
        DestinationError: Memory or disk don't suffice, or a database can't be read.
    """
    memory_mb = settings.planning_memory_mb
    try:
        timezone = settings.ref_ids.sent_at_timezone
        with Scratch(timezone, memory_mb, patience) as scratch:
            yield scratch
    except (*ReadError, OSError) as exc:
        remedy = "check [sources.esms.ref_ids] and the destination"
        raise explain(exc, "planning failed", remedy) from cause_of(exc)


def _write(
    scratch: Scratch,
    settings: Settings,
    choice: Choice,
    reading: Reading,
    cutter: Cutter,
    *,
    chosen: bool,
) -> Plan:
    """Put what is due before what is new into a file, and count it."""
    oa_ids = [oa_id.strip() for oa_id in choice.oa_ids]
    most = choice.max_ref_ids
    values = {
        "completed": COMPLETED,
        "unused": reading.unused(),
        "is_chosen": str(chosen),
        "of_oas": f"oa_id IN ({text_list(oa_ids)})" if oa_ids else "true",
        "chosen": "true" if choice.only is None else among("requested"),
        "limit": "" if most is None else f"LIMIT {most}",
    }
    scratch.step("work", values)
    folder = ScratchFolder()
    try:
        write_in_order(scratch, values["limit"], Path(folder.name))
        oas = _oa_plans(scratch, cutter.count(work_in(folder)))
        total = sum(oa.new + oa.due for oa in oas)
        notes = [
            *_notes_on_oas(scratch, oa_ids),
            *_notes_on_requested(scratch, settings, choice, oa_ids),
        ]
    except BaseException:
        folder.cleanup()
        raise
    reached = most is None or total < most
    return Plan(
        total,
        replace(reading.skipped, notes=tuple(notes)),
        oas,
        is_first=not reading.has_ledger,
        compared_all=reading.is_whole and choice.is_of_all and reached,
        cuts=tuple(cutter.cuts),
        _folder=folder,
    )


def _oa_plans(scratch: Scratch, asked: dict[str, OaPlan]) -> tuple[OaPlan, ...]:
    """Return what is asked of each OA, beside what is known of it."""
    settled = f"state IN ({text_list(SETTLED)}) AND {COMPLETED}"
    lost = f"state IN ({text_list(SETTLED)}) AND NOT {COMPLETED}"
    known = scratch.rows(
        f"""
        WITH
        copied AS (
            SELECT
                oa_id, count(*) FILTER ({lost}) AS lost,
                count(*) FILTER (NOT ({settled})) AS due
            FROM plan.main.ledger GROUP BY oa_id
        ),
        known AS (
            SELECT
                oa_id, known, coalesce(settled, 0) - coalesce(lost, 0) AS settled,
                coalesce(due, 0) AS due
            FROM plan.main.oas LEFT JOIN copied USING (oa_id)
        )
        SELECT oa_id, settled, greatest(known - settled - due, 0) FROM known
        """
    )
    plans = dict(asked)
    for oa_id, settled, waiting in known:
        plan = asked.get(oa_id, OaPlan(oa_id))
        plans[oa_id] = replace(plan, settled=settled, waiting=waiting)
    return tuple(plan for _, plan in sorted(plans.items()))


def _notes_on_oas(scratch: Scratch, oa_ids: Sequence[str]) -> Iterator[str]:
    """Name the OAs that were chosen and that nothing is known of."""
    if not oa_ids:
        return
    present = scratch.rows(
        "SELECT oa_id FROM plan.main.oas"
        " UNION SELECT DISTINCT oa_id FROM plan.main.candidates"
    )
    known = {row[0] for row in present}
    for oa_id in oa_ids:
        if oa_id not in known:
            fact = f"no RefId of OA {oa_id!r} is known"
            yield f"{fact}; correct oa_ids (--oa-id), or the rows' OA"


def _notes_on_requested(
    scratch: Scratch, settings: Settings, choice: Choice, oa_ids: Sequence[str]
) -> Iterator[str]:
    """Say what was asked for by name and isn't asked."""
    if choice.only is None:
        return
    elsewhere = "false"
    if oa_ids:
        own = with_default(settings.oa_id)
        elsewhere = f"coalesce({own} NOT IN ({text_list(oa_ids)}), false)"
    ((elsewhere_count, waiting, unknown),) = scratch.rows(
        f"""
        WITH named AS (SELECT DISTINCT oa_id, ref_id FROM plan.main.requested),
        found AS (
            SELECT
                {elsewhere} AS is_elsewhere, {among("ledger")} AS is_due,
                {among("ledger_keys")} AS is_known
            FROM named AS work WHERE ref_id <> ''
        )
        SELECT
            count(*) FILTER (is_elsewhere),
            count(*) FILTER (is_known AND NOT is_due AND NOT is_elsewhere),
            count(*) FILTER (NOT is_known AND NOT is_elsewhere)
        FROM found
        """
    )
    if elsewhere_count:
        fact = f"{elsewhere_count} chosen RefIds are of another OA than those chosen"
        yield f"{fact} and not asked; name their OA too (--oa-id)"
    if waiting and choice.repoll:
        fact = f"{waiting} chosen RefIds are in another state or time than chosen"
        yield f"{fact} and not asked; name their states (--repoll)"
    elif waiting:
        fact = f"{waiting} chosen RefIds are settled or not yet due and not asked"
        yield f"{fact}; name their states to ask them again (--repoll)"
    if unknown and choice.repoll:
        fact = f"{unknown} chosen RefIds are not in the ledger and not asked again"
        yield f"{fact}; ask them without --repoll first"
