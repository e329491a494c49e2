"""A work list to batches of one OA each, as full as they can be."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Batch:
    """RefIds of one OA that go into one request, as planned."""

    oa_id: str
    rows: pa.Table

    @cached_property
    def ref_ids(self) -> list[str]:
        """The RefIds, none twice."""
        ids: list[str] = self.rows["ref_id"].to_pylist()
        return ids

    def halves(self) -> tuple[Batch, Batch]:
        """Return the batch as two."""
        middle = len(self.rows) // 2
        first, second = self.rows.slice(0, middle), self.rows.slice(middle)
        return Batch(self.oa_id, first), Batch(self.oa_id, second)


def batches(work: Iterable[pa.Table], size: int) -> Iterator[Batch]:
    """Fill batches of one OA each across all tables; oldest RefIds first.

    At the end at most one batch of each OA is not full.
    """
    rest: dict[str, pa.Table] = {}
    for table in work:
        full: list[tuple[int, Batch]] = []
        for oa_id in pc.unique(table["oa_id"]).to_pylist():
            places = pc.indices_nonzero(pc.equal(table["oa_id"], oa_id))
            rows = table.take(places)
            if oa_id in rest:
                rows = pa.concat_tables([rest.pop(oa_id), rows])
            before = len(rows) - len(places)
            for start in range(0, len(rows) - size + 1, size):
                first = places[max(start - before, 0)].as_py()
                full.append((first, Batch(oa_id, rows.slice(start, size))))
            if len(rows) % size:
                rest[oa_id] = rows.slice(len(rows) - len(rows) % size)
        full.sort(key=lambda item: item[0])
        yield from (batch for _, batch in full)
    yield from (Batch(oa_id, rows) for oa_id, rows in rest.items())
