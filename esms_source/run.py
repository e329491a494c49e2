"""A run: pending loads first, then slice after slice, each one durable."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from dlt.common.schema import Schema
from dlt.extract import DltSource

from esms_source.codes import small_tables
from esms_source.config import resolve_call
from esms_source.databases import wait_for_lock
from esms_source.exceptions import DestinationError
from esms_source.load.destination import (
    check_destination,
    check_grants,
    reporting_errors,
    use_own_staging,
)
from esms_source.load.loader import (
    can_skip_dedup,
    dataset_lock,
    leaving_signals,
    load,
    pipeline_lock,
)
from esms_source.load.recovery import load_pending
from esms_source.planning.planner import Choice, make_plan
from esms_source.planning.skipped import Skipped
from esms_source.polling.poller import most_ahead
from esms_source.redaction import masked_log
from esms_source.runtime import Counts, Progress
from esms_source.session import Session
from esms_source.source import polled_tables
from esms_source.views import lacks_small_tables, refresh_views

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import dlt
    import pyarrow as pa
    from typing_extensions import Unpack

    from esms_source.api.request import Request
    from esms_source.config import SettingArguments, Settings
    from esms_source.planning.given_rows import RefIds
    from esms_source.planning.work_list import Plan
    from esms_source.polling.backoff import Backoff
    from esms_source.runtime import Stop


@dataclass
class Report(Counts):
    """What a run did: its ``Counts``, and what they are part of.

    Attributes:
        planned: RefIds that were to be asked.
        skipped: Rows of the warehouse that can't be asked.
        loads: dlt's load packages, in order.
    """

    planned: int = 0
    skipped: Skipped = field(default_factory=Skipped)
    loads: tuple[str, ...] = ()

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


def sync(
    pipeline: dlt.Pipeline,
    *,
    ref_ids: RefIds | None = None,
    oa_ids: Sequence[str] = (),
    repoll: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    max_ref_ids: int | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    backoff: Backoff | None = None,
    **settings: Unpack[SettingArguments],
) -> Report:
    """Load what an earlier run left pending, then all that is due, in slices.

    Each RefId is asked at most once. A crash costs at most one slice, counting what
    is asked while another part of it is loaded. At the end the views are made, where
    they aren't there yet.

    Args:
        pipeline: Where to load to.
        ref_ids: Only these RefIds: dicts, texts, Arrow tables or a resource; or
            a mapping, which overrides ``[sources.esms.ref_ids]``.
        oa_ids: Only these OAs.
        repoll: Ask RefIds of the ledger in these states again, and no others.
        since: With ``repoll``: sent from then on.
        until: With ``repoll``: sent before then.
        max_ref_ids: At most so many; what isn't reached stays due.
        progress: Told what is under way.
        stop: Ends the run in order when it is told to.
        backoff: How long to wait before a request is sent again.
        **settings: Any setting of ``[sources.esms]``, by name.

    Returns:
        The report; RefIds may have failed in it.

    Raises:
        ConfigError: A setting is missing or makes no sense.
        RefIdTableError: The warehouse table can't be read.
        DestinationError: The destination refused, or isn't there.
        PipelineBusyError: Another run of this pipeline is under way here.
        FatalApiError: The API refused the key, or is out; what was answered is
            loaded, and the error's ``report`` tells what that was.
    """
    resolved, rows = resolve_call(ref_ids, settings)
    resolved.require_credentials()
    choice = Choice(oa_ids, rows, repoll, since, until, max_ref_ids)
    progress = progress or Progress()
    with (
        pipeline_lock(pipeline),
        masked_log(),
        reporting_errors(),
        leaving_signals(pipeline),
        Session(resolved, progress, stop, backoff) as session,
    ):
        return _sync(pipeline, resolved, choice, session, progress)


def _sync(
    pipeline: dlt.Pipeline,
    settings: Settings,
    choice: Choice,
    session: Session,
    progress: Progress,
) -> Report:
    check_destination(pipeline)
    use_own_staging(pipeline)
    check_grants(pipeline)
    # First: dlt's sync drops what is pending while there is no dataset yet.
    with session.counts.timed("load"):
        load_pending(pipeline)
    wait_for_lock(pipeline.sync_destination)()
    with session.counts.timed("plan"):
        plan = make_plan(pipeline, settings, choice, session.clock.started_at)
    progress.total = plan.total
    try:
        loads = tuple(_load_slices(pipeline, plan, session, settings))
    finally:
        plan.close()
    counts = vars(session.counts)
    report = Report(**counts, planned=plan.total, skipped=plan.skipped, loads=loads)
    if session.stop.reason:
        session.stop.reason.report = report
        raise session.stop.reason
    try:
        with session.counts.timed("views"), dataset_lock(pipeline):
            refresh_views(pipeline, settings)
    except DestinationError as exc:
        exc.report = report
        raise
    return report


def _load_slices(
    pipeline: dlt.Pipeline, plan: Plan, session: Session, settings: Settings
) -> Iterator[str]:
    small = small_tables() if lacks_small_tables(pipeline) else []
    deduplicated = can_skip_dedup(pipeline)
    ahead = most_ahead(settings)
    slices = plan.slices(settings.slice_ref_ids - ahead)
    requests = _begin_next(slices, session)
    while requests:
        record = partial(session.record, requests)
        tables = polled_tables(record, deduplicated=deduplicated)
        source = DltSource(Schema("esms"), "esms", [*tables, *small])
        small = []
        with session.counts.timed("ask"):
            info = pipeline.extract(source)
        requests = _begin_next(slices, session) if ahead else None
        with session.counts.timed("load"):
            load(pipeline)
        yield from info.loads_ids
        requests = requests or _begin_next(slices, session)


def _begin_next(
    slices: Iterator[Iterator[pa.Table]], session: Session
) -> Iterator[list[Request]] | None:
    work = None if session.stop else next(slices, None)
    return None if work is None else session.begin(work)
