"""The work of a run, in files of its own that are read page by page."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from esms_source.ledger import WORK, query_after
from esms_source.sql import quote_name
from esms_source.tables import TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from tempfile import TemporaryDirectory

    from esms_source.config import Settings
    from esms_source.planning.scratch import Scratch
    from esms_source.planning.skipped import Skipped


COUNTED: Final = ["oa_id", "attempts", "state", "first_polled_at"]
"""What counting needs of a work list."""

LONG_ROW: Final = 200
"""Bytes of carried text from which on a row is long."""

SORTED_SHARE: Final = 8
"""How many times larger than what is sorted at once memory is, where rows are long."""


@dataclass(frozen=True)
class OaPlan:
    """What is known and planned of one OA, in RefIds and requests.

    Attributes:
        oa_id: Which one.
        new: To be asked for the first time.
        due: To be asked again.
        settled: Never asked again by themselves.
        waiting: Neither settled nor due yet.
        requests: What asking them takes, slice by slice.
        queries: Of how many QueryZnsStatus is asked as well, at most.
    """

    oa_id: str
    new: int = 0
    due: int = 0
    settled: int = 0
    waiting: int = 0
    requests: int = 0
    queries: int = 0


@dataclass(frozen=True)
class Plan:
    """A work list in files of its own, read page by page.

    Attributes:
        total: RefIds to ask.
        skipped: What was read or chosen and isn't asked.
        oas: What is planned per OA.
        is_first: Whether there is no ledger yet.
        compared_all: Whether the whole warehouse table was compared with the ledger,
            and all that was found is planned.
        cuts: Where in the work each slice begins.
    """

    total: int
    skipped: Skipped
    oas: tuple[OaPlan, ...]
    is_first: bool
    compared_all: bool
    cuts: tuple[int, ...]
    _folder: TemporaryDirectory[str]

    def slices(self) -> Iterator[Iterator[pa.Table]]:
        """Yield the work in order, slice by slice, each in pages.

        Where there is no ledger yet, an empty slice makes all tables.
        """
        ends = [*self.cuts, self.total] if self.cuts else [0] * (1 + self.is_first)
        return (self.pages(start, stop) for start, stop in pairwise(ends))

    def pages(self, start: int = 0, stop: int = sys.maxsize) -> Iterator[pa.Table]:
        """Yield the RefIds from one place in the work to another, read as needed."""
        end = 0
        for path in work_in(self._folder):
            with parquet.ParquetFile(path) as file:
                # A file says of a column without nulls that it may hold none.
                carried = [pa.field(f.name, f.type) for f in file.schema_arrow]
                schema = pa.schema([*WORK, *carried[len(WORK) :]])
                for number in range(file.num_row_groups):
                    begin, end = end, end + file.metadata.row_group(number).num_rows
                    if begin < stop and start < end:
                        page = file.read_row_group(number, use_threads=False)
                        first = max(start - begin, 0)
                        page = page.slice(first, stop - max(start, begin))
                        yield page.cast(schema)

    def close(self) -> None:
        """Drop the work list."""
        self._folder.cleanup()


def work_in(folder: TemporaryDirectory[str]) -> list[Path]:
    """Return the files of a work list in its folder, in order."""
    return sorted(Path(folder.name).glob("*.parquet"))


class Cutter:
    """Cuts a work list into slices, and counts what asking them takes.

    A RefId that QueryZnsStatus is asked for as well fills a slice as much as those
    that GetCallback can be asked for in its time: a slice takes a minute of the API,
    whatever is in it.

    Args:
        settings: How many RefIds a request holds, and whether any are queried.
        size: RefIds of a slice.
        as_of: When the run began, in UTC.

    Attributes:
        cuts: Where in the work each slice begins.
    """

    def __init__(self, settings: Settings, size: int, as_of: datetime) -> None:
        self.cuts: list[int] = []
        self._settings, self._size = settings, size
        self._polled_before = as_of - query_after(settings)
        self._new: Counter[str] = Counter()
        self._again: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._queries: Counter[str] = Counter()
        self._in_slice: Counter[str] = Counter()
        self._filled = self._end = 0

    def count(self, paths: Sequence[Path]) -> dict[str, OaPlan]:
        """Read a work list; return what is asked of each OA."""
        for path in paths:
            with parquet.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    page = file.read_row_group(number, COUNTED, use_threads=False)
                    self._take(page.combine_chunks())
        self._close_slice()
        return {
            oa_id: OaPlan(
                oa_id,
                new=self._new[oa_id],
                due=self._again[oa_id],
                requests=requests,
                queries=self._queries[oa_id],
            )
            for oa_id, requests in self._requests.items()
        }

    def _take(self, page: pa.Table) -> None:
        oa_ids = page["oa_id"]
        is_new = pc.is_null(page["attempts"])
        _add(self._new, oa_ids.filter(is_new))
        _add(self._again, oa_ids.filter(pc.invert(is_new)))
        weights = pa.repeat(1, len(page))
        if self._settings.asks_missing:
            is_queried = self._may_be_queried(page)
            _add(self._queries, oa_ids.filter(is_queried))
            weights = pc.if_else(is_queried, self._settings.query_weight, 1)
        while len(oa_ids):
            filled = pc.cumulative_sum(weights, start=self._filled)
            fit = pc.sum(pc.less_equal(filled, self._size)).as_py()
            if not fit and self._filled:
                self._close_slice()
                continue
            if not self._filled:
                self.cuts.append(self._end)
            # One that is heavier than a slice has one of its own.
            fit = fit or 1
            _add(self._in_slice, oa_ids.slice(0, fit))
            self._filled, self._end = filled[fit - 1].as_py(), self._end + fit
            oa_ids, weights = oa_ids.slice(fit), weights.slice(fit)

    def _may_be_queried(self, page: pa.Table) -> pa.Array:
        """Tell of which rows QueryZnsStatus is asked if GetCallback has none again."""
        is_missing = pc.is_in(page["state"], pa.array(["missing", "expired"]))
        before = pa.scalar(self._polled_before, TIMESTAMP)
        is_late = pc.less_equal(page["first_polled_at"].cast(TIMESTAMP), before)
        return pc.fill_null(pc.and_(is_missing, is_late), fill_value=False)

    def _close_slice(self) -> None:
        """Count its requests: at most one of each OA is not full."""
        for oa_id, count in self._in_slice.items():
            self._requests[oa_id] += -(-count // self._settings.batch_size)
        self._in_slice.clear()
        self._filled = 0


def _add(counter: Counter[str], oa_ids: pa.ChunkedArray) -> None:
    for found in pc.value_counts(oa_ids):
        counter[found["values"].as_py()] += found["counts"].as_py()


def write_in_order(scratch: Scratch, limit: str, folder: Path) -> None:
    """Write ``plan.main.work`` to files, in order.

    Args:
        scratch: Where it is.
        limit: A LIMIT, or nothing.
        folder: Where the files go.
    """
    parts = _parts(scratch)
    if parts == 1:
        scratch.write({"part": "", "limit": limit}, folder / "work.parquet")
        return
    scratch.execute(
        "CREATE TABLE plan.main.ordered (place BIGINT, is_new BOOLEAN, esms_row BIGINT)"
    )
    scratch.execute("SET preserve_insertion_order = true")
    scratch.step("ordered", {"limit": limit})
    ((count,),) = scratch.rows("SELECT count(*) FROM plan.main.ordered")
    size = -(-count // parts) or 1
    for number, first in enumerate(range(0, count or 1, size)):
        part = (
            "SEMI JOIN (SELECT is_new, esms_row FROM plan.main.ordered WHERE place"
            f" BETWEEN {first} AND {first + size - 1}) AS part USING (is_new, esms_row)"
        )
        scratch.write({"part": part, "limit": ""}, folder / f"work-{number:06}.parquet")


def _parts(scratch: Scratch) -> int:
    """Return in how many parts the work is sorted: one where little is carried."""
    texts = [
        f"coalesce(strlen({quote_name(name)}), 0)"
        for name, kind in scratch.types("plan.main.work").items()
        if kind == "VARCHAR" and name not in WORK.names
    ]
    if not texts:
        return 1
    sql = f"SELECT count(*), sum({' + '.join(texts)}) FROM plan.main.work"
    ((count, length),) = scratch.rows(sql)
    if not count or length / count < LONG_ROW:
        return 1
    return int(length * SORTED_SHARE / (scratch.memory_mb * 1_000_000)) + 1
