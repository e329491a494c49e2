"""A work list to requests for one OA each, as full as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.api.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def batches(work: Iterable[pa.Table], size: int) -> Iterator[Request]:
    """Fill requests for one OA each across all tables; oldest RefIds first.

    At the end at most one request of each OA is not full.
    """
    rest: dict[str, pa.Table] = {}
    for table in work:
        full: list[tuple[int, Request]] = []
        for oa_id in pc.unique(table["oa_id"]).to_pylist():
            places = pc.indices_nonzero(pc.equal(table["oa_id"], oa_id))
            rows = table.take(places)
            if oa_id in rest:
                rows = pa.concat_tables([rest.pop(oa_id), rows])
            before = len(rows) - len(places)
            for start in range(0, len(rows) - size + 1, size):
                first = places[max(start - before, 0)].as_py()
                full.append((first, Request(oa_id, rows.slice(start, size))))
            if len(rows) % size:
                rest[oa_id] = rows.slice(len(rows) - len(rows) % size)
        full.sort(key=lambda item: item[0])
        yield from (request for _, request in full)
    yield from (Request(oa_id, rows) for oa_id, rows in rest.items())
