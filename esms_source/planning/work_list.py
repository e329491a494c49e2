"""The work of a run, in files of its own that are read page by page."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from pyarrow import parquet

from esms_source.ledger import WORK
from esms_source.sql import quote_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from tempfile import TemporaryDirectory

    from esms_source.planning.scratch import Scratch
    from esms_source.planning.skipped import Skipped


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
    """

    oa_id: str
    new: int
    due: int
    settled: int
    waiting: int
    requests: int


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
    """

    total: int
    skipped: Skipped
    oas: tuple[OaPlan, ...]
    is_first: bool
    compared_all: bool
    _folder: TemporaryDirectory[str]

    def slices(self, size: int) -> Iterator[Iterator[pa.Table]]:
        """Yield the work in order, at most ``size`` RefIds at a time, each in pages.

        Where there is no ledger yet, an empty slice makes all tables.
        """
        starts = range(0, self.total, size) or range(self.is_first)
        return (self.pages(start, start + size) for start in starts)

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
