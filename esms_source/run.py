"""A run: pending loads first, then slice after slice, each one durable."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow.compute as pc
from dlt.common.schema import Schema
from dlt.extract import DltSource

from esms_source.codes import small_tables
from esms_source.config import resolve_call
from esms_source.config.providers import settings_of
from esms_source.databases import ReadError
from esms_source.elsewhere import load_names, load_sent_messages
from esms_source.exceptions import DestinationError, EsmsError
from esms_source.keeping import as_events, reading
from esms_source.load.alchemy import make_datasets
from esms_source.load.checks import check_destination, check_grants, check_tables
from esms_source.load.destination import can_skip_dedup, own_pipeline, reporting_errors
from esms_source.load.loader import Loader, leaving_signals
from esms_source.load.locks import dataset_lock, pipeline_lock
from esms_source.load.recovery import recover
from esms_source.load.runs import last_comparison, record_run, what_waits
from esms_source.load.scope import completed_loads, scopes_of
from esms_source.load.sweep import prune, sweep
from esms_source.outcome import RECORDED, Report
from esms_source.planning.planner import Choice, make_plan
from esms_source.polling.poller import most_ahead
from esms_source.redaction import first_line, masked_log
from esms_source.runtime import Progress
from esms_source.session import Session
from esms_source.source import polled_tables, source_of
from esms_source.storable import storable_text
from esms_source.tables import REF_IDS, RUNS, SCHEMA
from esms_source.views import lacks_small_tables, refresh_views

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date, datetime

    import dlt
    import pyarrow as pa
    from typing_extensions import Unpack

    from esms_source.config import SettingArguments, Settings
    from esms_source.planning.given_rows import RefIds
    from esms_source.planning.work_list import Plan
    from esms_source.polling.backoff import Backoff
    from esms_source.runtime import Stop

logger = logging.getLogger("esms_source")


def sync(
    pipeline: dlt.Pipeline,
    *,
    ref_ids: RefIds | None = None,
    oa_ids: Sequence[str] = (),
    repoll: Sequence[str] = (),
    since: date | None = None,
    until: date | None = None,
    max_ref_ids: int | None = None,
    compare_all: bool = False,
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
        since: With ``repoll``: sent from then on. A date begins at midnight in the
            setting ``timezone``.
        until: With ``repoll``: sent before then.
        max_ref_ids: At most so many; what isn't reached stays due.
        compare_all: Compare the whole warehouse table with the ledger now, and not only
            every ``compare_all_after``.
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
    with settings_of(pipeline.pipeline_name):
        resolved, rows = resolve_call(ref_ids, settings)
    resolved.require_credentials()
    choice = Choice(oa_ids, rows, repoll, since, until, max_ref_ids)
    progress = progress or Progress()
    with (
        settings_of(pipeline.pipeline_name),
        pipeline_lock(pipeline),
        masked_log(),
        reporting_errors(),
        own_pipeline(pipeline) as own,
        leaving_signals(own),
        Session(resolved, progress, stop, backoff, uuid4().hex) as session,
    ):
        if pipeline.has_pending_data:
            recover(pipeline, _loader(pipeline, session, resolved))
        return _Run(own, resolved, session, progress).sync(
            choice, compare_all=compare_all
        )


def _loader(pipeline: dlt.Pipeline, session: Session, settings: Settings) -> Loader:
    return Loader(pipeline, session.patience, settings, source_of, session.counts)


class _Run:
    """One run of ``sync``, step by step."""

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        settings: Settings,
        session: Session,
        progress: Progress,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._session = session
        self._progress = progress
        self._plan: Plan | None = None
        self._loads: tuple[str, ...] = ()
        self._needs_small = True
        self._ahead = most_ahead(settings)
        self._slice = settings.slice_ref_ids - self._ahead
        self._loader = _loader(pipeline, session, settings)

    def sync(self, choice: Choice, *, compare_all: bool) -> Report:
        """Do all of it, and leave a row in the table ``runs``."""
        try:
            with reporting_errors():
                report = self._sync(choice, compare_all=compare_all)
        except EsmsError as exc:
            if exc.exit_code == EsmsError.exit_code:
                self._record(exc.report or self._report(), exc.exit_code, str(exc))
            raise
        most = report.problems.most_common(1)
        self._record(report, report.exit_code, most[0][0] if most else None)
        return report

    def _sync(self, choice: Choice, *, compare_all: bool) -> Report:
        """Recover, plan, ask and load slice after slice, and make the views."""
        pipeline, session = self._pipeline, self._session
        patience = session.patience
        check_destination(pipeline, self._settings)
        check_grants(pipeline)
        make_datasets(pipeline)
        # First: dlt's sync drops what is pending while there is no dataset yet.
        with session.counts.timed("load"):
            recover(pipeline, self._loader)
        # DuckDB's file is opened once for all of these.
        with dataset_lock(pipeline, patience) as is_locked:
            patience(pipeline.sync_destination)
            check_tables(pipeline)
            sweep(pipeline, locked=is_locked)
            self._loader.loads = completed_loads(pipeline)
            self._needs_small = lacks_small_tables(pipeline, patience)
            compare_all = compare_all or (choice.is_of_all and self._must_compare())
        with session.counts.timed("plan"):
            self._plan = plan = make_plan(
                pipeline,
                self._settings,
                choice,
                session.clock.started_at,
                compare_all=compare_all,
                slice_ref_ids=self._slice,
                patience=patience,
            )
        self._progress.total, self._progress.stage = plan.total, "asking"
        self._log_plan(plan)
        try:
            self._loads = tuple(self._load_slices(plan))
        finally:
            plan.close()
        report = self._report()
        logger.info(
            "asked %d RefIds: %d answered, %d missing, %d failed; %d not reached",
            *attrgetter("asked", "answered", "missing", "failed", "left")(report),
        )
        if session.stop.reason:
            session.stop.reason.report = report
            raise session.stop.reason
        self._progress.stage = "asking for names"
        means = pipeline, self._loader, session, self._settings
        load_names(*means)
        load_sent_messages(*means)
        self._progress.stage = "making views"
        try:
            with session.counts.timed("views"), dataset_lock(pipeline, patience):
                refresh_views(pipeline, self._settings, patience)
                if self._settings.keep_requests is not None:
                    kept = timedelta(days=self._settings.keep_requests)
                    prune(pipeline, session.clock.started_at - kept)
                with reading(pipeline, REF_IDS) as client:
                    report.waiting, report.next_due_at = what_waits(client)
        except DestinationError as exc:
            exc.report = report
            raise
        return report

    def _log_plan(self, plan: Plan) -> None:
        where = self._pipeline.pipeline_name, self._pipeline.dataset_name
        asking = plan.total, sum(oa.requests for oa in plan.oas)
        logger.info("%s, %s: %d RefIds to ask in %d requests", *where, *asking)
        for line in plan.skipped.remedies():
            logger.info("%s", line)

    def _must_compare(self) -> bool:
        """Tell whether it is time to compare the whole warehouse table again."""
        with reading(self._pipeline, RUNS) as client:
            last = last_comparison(client)
        after = timedelta(seconds=self._settings.compare_all_after)
        return last is None or self._session.clock.started_at - last >= after

    def _report(self) -> Report:
        counts = vars(self._session.counts)
        if self._plan is None:
            return Report(**counts)
        report = Report(
            **counts,
            planned=self._plan.total,
            skipped=self._plan.skipped,
            loads=self._loads,
        )
        report.compared_all = self._plan.compared_all and not report.left
        return report

    def _record(self, report: Report, exit_code: int, error: str | None) -> None:
        session, skipped = self._session, report.skipped
        row = {
            **{name: getattr(report, name) for name in RECORDED},
            "run_id": session.run_id,
            "started_at": session.clock.started_at,
            "ended_at": session.clock.now(),
            "skipped_no_ref_id": skipped.no_ref_id,
            "skipped_no_oa_id": skipped.no_oa_id,
            "unreadable": skipped.unreadable,
            "exit_code": exit_code,
            "error": error and storable_text(error),
        }
        try:
            record_run(self._pipeline, session.patience, row)
        except (*ReadError, EsmsError) as exc:
            # Its loss costs no more than a comparison.
            logger.warning("this run isn't in the table runs: %s", first_line(exc))

    def _load_slices(self, plan: Plan) -> Iterator[str]:
        pipeline, session = self._pipeline, self._session
        small = small_tables() if self._needs_small else []
        deduplicated = can_skip_dedup(pipeline)
        scopes = scopes_of(pipeline)
        slices = plan.slices()
        begun = _begin_next(slices, session)
        while begun:
            record = as_events(partial(session.record, begun.requests), pipeline)
            tables = polled_tables(record, deduplicated=deduplicated, scopes=scopes)
            source = DltSource(Schema(SCHEMA), SCHEMA, [*tables, *small])
            small = []
            with session.counts.timed("ask"):
                self._loader.extract(source)
            since = begun.since
            begun = _begin_next(slices, session) if self._ahead else None
            self._progress.stage = "loading"
            with session.counts.timed("load"):
                loaded = self._loader.load(since)
            self._progress.stage = "asking"
            done = session.counts.asked, plan.total
            logger.info("loaded %s: %d of %d RefIds asked", loaded, *done)
            yield from loaded
            begun = begun or _begin_next(slices, session)


class _Slice:
    """A slice that is being asked.

    Attributes:
        requests: The requests that end, in groups.
    """

    def __init__(self, work: Iterator[pa.Table], session: Session) -> None:
        self._oldest = self._newest = self._now = session.clock.started_at
        self.requests = session.begin(map(self._look_at, work))

    @property
    def since(self) -> datetime | None:
        """When the oldest of its RefIds was first polled.

        None where a clock was ahead, so that answers may seem older than that.
        """
        return self._oldest if self._newest <= self._now else None

    def _look_at(self, work: pa.Table) -> pa.Table:
        polled = pc.min_max(work["first_polled_at"]).as_py()
        self._oldest = min(self._oldest, polled["min"] or self._oldest)
        self._newest = max(self._newest, polled["max"] or self._newest)
        return work


def _begin_next(
    slices: Iterator[Iterator[pa.Table]], session: Session
) -> _Slice | None:
    work = None if session.stop else next(slices, None)
    return None if work is None else _Slice(work, session)
