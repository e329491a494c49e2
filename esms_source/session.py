"""One run's means of asking: client, pace, threads, clock and counts."""

from __future__ import annotations

import logging
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from esms_source.databases import Patience
from esms_source.polling.backoff import Backoff
from esms_source.polling.doors import callback_door, query_door
from esms_source.polling.poller import Poller
from esms_source.rows.recorder import Polled, Recorder
from esms_source.runtime import Clock, Counts, Progress, Stop

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from esms_source.api.request import Request
    from esms_source.config import Settings
    from esms_source.polling.doors import Door

PAGE_GROUPS: Final = 10
"""Groups of requests that dlt gets at once: each time costs it some 20 ms a table."""

logger = logging.getLogger("esms_source")

NOWHERE_TO_ASK: Final = (
    "ask_missing: nothing is asked, as base_url isn't eSMS's own;"
    " set rest_base_url to where QueryZnsStatus is"
)

PAGE_BYTES: Final = 8 * 1024 * 1024
"""What they take at most, but for the last one."""


def _joined(page: list[Polled]) -> Polled:
    # Where all requests of a group were split, its ledger has no carried columns.
    return {
        name: pa.concat_tables(
            [group[name] for group in page], promote_options="default"
        )
        for name in page[0]
    }


class Session:
    """What lives as long as a run: the pace isn't forgotten between its slices.

    Args:
        settings: All settings; the key and the secret must be there.
        progress: Told what is under way.
        stop: Ends the run early.
        backoff: How long to wait before asking again.
        run_id: The run's id, if it is one of ``sync``.

    Attributes:
        seen: The OAs and templates that callbacks named so far.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Progress | None = None,
        stop: Stop | None = None,
        backoff: Backoff | None = None,
        run_id: str | None = None,
    ) -> None:
        self.clock = Clock()
        self.stop = Stop() if stop is None else stop
        self.counts = Counts()
        self.run_id = run_id
        progress = progress or Progress()
        self.patience = Patience(self.stop, self._wait_for)
        self._settings = settings
        self._progress = progress
        self.seen: set[tuple[str, str | None]] = set()
        self._aside: list[pa.Table] = []
        backoff = backoff or Backoff()
        self._query_stop = self.stop.part()
        self._queries: Poller | None = None
        queries: Door | None = None
        if settings.asks_missing:
            stop = self._query_stop
            queries = query_door(settings, stop, backoff)
            # Its requests are no part of the run's progress.
            self._queries = Poller(
                settings, queries, self.clock, stop, Progress(), backoff
            )
        elif settings.ask_missing:
            self.counts.warn(NOWHERE_TO_ASK)
        door = callback_door(settings, self.stop, backoff, queries)
        self._poller = Poller(settings, door, self.clock, self.stop, progress, backoff)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._poller.close()
        if self._queries:
            self._queries.close()

    def _wait_for(self, what: str | None) -> None:
        """Say what the run waits for, and that it doesn't any more."""
        if what and what != self._progress.waits_for:
            logger.info("waiting: %s", what)
        self._progress.wait_for(what)

    def begin(self, work: Iterable[pa.Table]) -> Iterator[list[Request]]:
        """Begin to ask all of some work; return what ``record`` takes."""
        return chain(self._poller.poll(work), self._ask_missing())

    def _ask_missing(self) -> Iterator[list[Request]]:
        """Ask QueryZnsStatus for what was put aside, once all of it has been."""
        if self._queries is None or not any(map(len, self._aside)):
            return
        work, self._aside[:] = list(self._aside), []
        stage, missing = self._progress.stage, sum(map(len, work))
        self._progress.stage = f"asking QueryZnsStatus for {missing} missing RefIds"
        yield from self._queries.poll(work)
        if unasked := self._queries.unasked():
            yield unasked
        self._progress.stage = stage
        if self._query_stop.reason and not self.stop:
            why = f"QueryZnsStatus isn't asked any more: {self._query_stop.reason}"
            self.counts.warn(f"{why}; what it wasn't asked for stays missing")

    def record(
        self, requests: Iterable[list[Request]], load_id: str
    ) -> Iterator[Polled]:
        """Yield what was asked as rows by table, for one load."""
        recorder = Recorder(self._settings, load_id, self.counts, self.run_id)
        recorder.aside, recorder.seen = self._aside, self.seen
        # A first, empty group makes all tables, also when nothing is due.
        yield recorder.record([])
        page: list[Polled] = []
        size = 0
        for group in map(recorder.record, requests):
            page.append(group)
            size += sum(table.nbytes for table in group.values())
            # No name here holds what is loaded while the next group is made.
            del group
            if len(page) == PAGE_GROUPS or size >= PAGE_BYTES:
                yield _joined(page)
                page, size = [], 0
        if page:
            yield _joined(page)

    def ask(
        self, slices: Iterable[Iterable[pa.Table]], load_id: str
    ) -> Iterator[Polled]:
        """Ask for some work, slice after slice; yield rows by table, for one load."""
        wanted = takewhile(lambda _: not self.stop, slices)
        return self.record(chain.from_iterable(map(self.begin, wanted)), load_id)
