"""The work of a run, in a file of its own that is read page by page."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import parquet

from esms_source.ledger import WORK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from tempfile import TemporaryDirectory

    from esms_source.planning.skipped import Skipped


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
    """A work list in a file of its own, read page by page.

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
        with parquet.ParquetFile(work_in(self._folder)) as file:
            # A file says of a column without nulls that it may hold none.
            carried = [pa.field(f.name, f.type) for f in file.schema_arrow]
            schema = pa.schema([*WORK, *carried[len(WORK) :]])
            end = 0
            for number in range(file.num_row_groups):
                begin, end = end, end + file.metadata.row_group(number).num_rows
                if begin < stop and start < end:
                    page = file.read_row_group(number, use_threads=False)
                    page = page.slice(max(start - begin, 0), stop - max(start, begin))
                    yield page.cast(schema)

    def close(self) -> None:
        """Drop the work list."""
        self._folder.cleanup()


def work_in(folder: TemporaryDirectory[str]) -> Path:
    """Return the file of a work list in its folder."""
    return Path(folder.name, "work.parquet")
