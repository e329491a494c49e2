"""RefIds that are given in place of a warehouse table: Python's own rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import chain
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from esms_source.exceptions import RefIdTableError
from esms_source.planning.candidates import (
    FLOATS,
    Candidates,
    Columns,
    match,
    rounded_ids,
)
from esms_source.planning.database import COPY_ROWS, UNKNOWN
from esms_source.storable import storable, storable_text, to_json

if TYPE_CHECKING:
    from esms_source.config import Settings
    from esms_source.config.ref_id_table import RefIdTable
    from esms_source.planning.scratch import Scratch

RefIds = Iterable[Any]
"""Dicts, texts, Arrow tables, data frames or a dlt resource of them."""

ACCEPTED: Final = (
    "give dicts, texts, Arrow tables, what offers __arrow_c_stream__ (pandas, polars,"
    " DuckDB), or a dlt resource"
)


def row_candidates(
    settings: Settings, scratch: Scratch, ref_ids: RefIds, name: str
) -> Candidates:
    """Read rows that are given in place of a warehouse table.

    Args:
        settings: Which columns are read.
        scratch: Where they are read to.
        ref_ids: The rows.
        name: The table of the scratch database that takes them.

    Raises:
        RefIdTableError: The rows can't be read, or a column isn't there.
    """
    table = settings.ref_ids
    chunks, raw = _chunks(ref_ids, table), f"plan.main.{name}"
    try:
        first = next(chunks, pa.table({"ref_id": pa.array([], pa.string())}))
        scratch.create(raw, dict.fromkeys(first.column_names, UNKNOWN))
        for chunk in chain([first], chunks):
            scratch.fill(raw, chunk)
    except (pa.ArrowException, duckdb.ConversionException) as exc:
        fact = f"the rows of ref_ids don't agree in type: {type(exc).__name__}"
        raise RefIdTableError(fact, "give each column one type") from exc
    types = scratch.types(raw)
    found = Candidates(raw, _find_row_columns(table, list(types)), types)
    found.refuse_rounded_ids(scratch)
    return found


def _find_row_columns(table: RefIdTable, present: list[str]) -> Columns:
    """Find columns of rows given in place of a table: theirs, or our names for them."""
    ref_id = match(table.ref_id_column, present) or match("ref_id", present)
    if ref_id is None:
        fact = f"the rows have no ref_id, only {', '.join(map(repr, present))}"
        raise RefIdTableError(fact, "name their column ref_id")
    carried = {alias: match(name, present) for alias, name in table.carried.items()}
    return Columns(
        ref_id,
        match(table.oa_id_column, present) or match("oa_id", present),
        match(table.sent_at_column, present) or match("sent_at", present),
        {alias: found for alias, found in carried.items() if found in present},
    )


def _chunks(ref_ids: RefIds, table: RefIdTable) -> Iterator[pa.Table]:
    """Turn rows of any form into Arrow tables.

    Raises:
        RefIdTableError: They have a form that isn't known.
    """
    if hasattr(ref_ids, "__arrow_c_stream__") or isinstance(ref_ids, pa.RecordBatch):
        ref_ids = [ref_ids]  # by itself it would yield its columns
    if isinstance(ref_ids, (str, bytes, Mapping)) or not isinstance(ref_ids, Iterable):
        raise RefIdTableError(f"ref_ids is a {type(ref_ids).__name__}", ACCEPTED)
    rows: list[dict[str, Any]] = []
    for item in ref_ids:
        if hasattr(item, "__arrow_c_stream__") or isinstance(item, pa.RecordBatch):
            yield from _from_stream(item, table)
            continue
        rows.append(_row(item, table))
        if len(rows) >= COPY_ROWS:
            yield _from_rows(rows)
            rows = []
    if rows:
        yield _from_rows(rows)


def _from_stream(item: Any, table: RefIdTable) -> Iterator[pa.Table]:  # noqa: ANN401
    """Yield what offers Arrow's stream, batch by batch; a lone column is of RefIds."""
    if isinstance(item, pa.RecordBatch):
        yield pa.Table.from_batches([item])
        return
    try:
        reader = pa.RecordBatchReader.from_stream(item)
    except (pa.ArrowException, TypeError, ValueError):
        yield pa.table({table.ref_id_column: pa.chunked_array(item)})
        return
    yield reader.schema.empty_table()
    for batch in reader:
        yield pa.Table.from_batches([batch])


def _row(item: Any, table: RefIdTable) -> dict[str, Any]:  # noqa: ANN401  any item
    if isinstance(item, Mapping):
        ids = [table.ref_id_column, "ref_id", table.oa_id_column, "oa_id"]
        names = {name.lower() for name in ids if name}
        return {
            storable_text(str(name)): _plain(
                value, str(name) if str(name).lower() in names else None
            )
            for name, value in item.items()
        }
    if item is None or isinstance(item, (str, Integral)):
        return {table.ref_id_column: _plain(item, table.ref_id_column)}
    raise RefIdTableError(f"ref_ids holds a {type(item).__name__}", ACCEPTED)


def _plain(value: Any, id_column: str | None) -> Any:  # noqa: ANN401  any value of a row
    """Write numbers as text, as ids come both ways, and make texts storable.

    An id that can't be stored as it is keeps a NUL, by which planning knows it.
    """
    if isinstance(value, str):
        plain = storable_text(value)
        return plain if plain == value or not id_column else f"{plain}\0"
    if isinstance(value, (list, tuple, dict)):
        return to_json(storable(value))
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        return value
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Decimal):
        is_whole = value.is_finite() and value == value.to_integral_value()
        return str(int(value)) if is_whole else str(value)
    return _plain_float(float(value), id_column)


def _plain_float(value: float, id_column: str | None) -> str | None:
    if not math.isfinite(value):
        return None if id_column else str(value)
    if id_column and abs(value) > FLOATS["DOUBLE"]:
        raise rounded_ids(id_column)
    return str(int(value)) if value.is_integer() else str(value)


def _from_rows(rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: [row.get(name) for row in rows] for name in names})
