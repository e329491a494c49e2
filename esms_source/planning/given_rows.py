"""RefIds that are given in place of a warehouse table: Python's own rows, or a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.planning.candidates import Candidates, Columns, match
from esms_source.planning.database import COPY_ROWS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from esms_source.config import RefIdTable, Settings
    from esms_source.planning.scratch import Scratch

ARROW: Final = (pa.Table, pa.RecordBatch)

RefIds = Iterable[Any]
"""Dicts, texts, Arrow tables or a dlt resource of them, instead of a table."""


def row_candidates(settings: Settings, scratch: Scratch, ref_ids: RefIds) -> Candidates:
    """Candidates an iterable in place of a warehouse table.

    Raises:
        RefIdTableError: The rows can't be read, or a column isn't there.
    """
    table = settings.ref_ids
    chunks = _chunks(ref_ids, table)
    first = next(chunks, pa.table({"ref_id": pa.array([], pa.string())}))
    scratch.create("plan.main.raw", dict.fromkeys(first.column_names, UNKNOWN))
    for chunk in chain([first], chunks):
        scratch.fill("plan.main.raw", chunk)
    types = scratch.types("plan.main.raw")
    return Candidates("plan.main.raw", _find_row_columns(table, list(types)), types)


def read_file(path: Path, ref_id_column: str) -> list[dict[str, str]]:
    """Read RefIds from a UTF-8 text: a CSV with a header, or one a line.

    Raises:
        ConfigError: The file can't be read, or has columns but none of RefIds.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        cells = csv.reader(io.StringIO(text), skipinitialspace=True)
        header, *rows = [row for row in cells if len(row) > 1 or any(row)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{path} can't be read: {exc}", "give a UTF-8 text") from exc
    names = [name.strip() for name in header]
    if match(ref_id_column, names) or match("ref_id", names):
        # A cell behind the last name, or under none, belongs to no column.
        return [
            {name: cell for name, cell in zip(names, row, strict=False) if name}
            for row in rows
        ]
    if len(names) > 1:
        fact = f"{path} has no column {ref_id_column!r} in its first line"
        raise ConfigError(fact, "name it there, or give one RefId a line")
    return [{"ref_id": line.strip()} for line in text.splitlines() if line.strip()]


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
        {alias: found for alias, found in carried.items() if found},
    )


def _chunks(ref_ids: RefIds, table: RefIdTable) -> Iterator[pa.Table]:
    """Turn rows of any form into Arrow tables of one schema."""
    rows: list[dict[str, Any]] = []
    if isinstance(ref_ids, ARROW):
        ref_ids = [ref_ids]  # by itself it would yield its columns
    for item in ref_ids:
        if isinstance(item, ARROW):
            batches = [item] if isinstance(item, pa.RecordBatch) else item.to_batches()
            yield pa.Table.from_batches(batches, item.schema)
            continue
        row = item if isinstance(item, Mapping) else {table.ref_id_column: item}
        rows.append({name: _plain(value) for name, value in row.items()})
        if len(rows) >= COPY_ROWS:
            yield _from_rows(rows)
            rows = []
    if rows:
        yield _from_rows(rows)


def _plain(value: Any) -> Any:  # noqa: ANN401  any value of a row
    """Write numbers as text, as ids come both ways."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number else value


def _from_rows(rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    except pa.ArrowException as exc:
        fact = f"the rows of ref_ids don't agree in type: {exc}"
        raise RefIdTableError(fact, "give each column one type") from exc
