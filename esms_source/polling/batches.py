"""A work list to requests: as full as they can be, or of one RefId each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.api.request import Request
from esms_source.tables import QUERY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SMS_TYPES: Final = (25, 24)
"""SmsTypes of ZNS messages, in the order in which they are tried.

Source: the QueryZnsStatus page of eSMS's API docs.
"""

TYPE_OF: Final = {str(number): number for number in SMS_TYPES}


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


def queries(work: Iterable[pa.Table], type_id: str | None) -> Iterator[Request]:
    """Ask QueryZnsStatus for each RefId by itself.

    Args:
        work: Their rows as planned.
        type_id: The column of the messages' types, if there is one; where it names no
            type, both are tried.
    """
    for table in work:
        oa_ids = table["oa_id"].to_pylist()
        types = table[type_id].to_pylist() if type_id in table.column_names else oa_ids
        for place, (oa_id, given) in enumerate(zip(oa_ids, types, strict=True)):
            known = TYPE_OF.get(str(given).strip())
            sms_types = SMS_TYPES if known is None else (known,)
            row = table.slice(place, 1)
            yield Request(oa_id, row, endpoint=QUERY, sms_types=sms_types)
