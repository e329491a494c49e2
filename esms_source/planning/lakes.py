"""Delta and Iceberg tables that a query names, read by their Python packages."""

from __future__ import annotations

import re
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import sqlglot
from sqlglot.errors import SqlglotError

from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.planning.object_store import PLACES, need
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.planning.object_store import ObjectStore
    from esms_source.planning.scratch import Scratch

METADATA: Final = ".metadata.json"
HINT: Final = "version-hint.text"
"""Which version is valid, where a table's writer keeps that in its folder."""

PATH_ONLY: Final = ["L_PAREN", "STRING", "R_PAREN"]
"""What follows the name of a function, as sqlglot calls it."""


def show_lakes(
    query: str, folder: Path, store: ObjectStore | None, scratch: Scratch
) -> str:
    """Show each table that a query names as a view; return the query over the views.

    Args:
        query: A query with ``delta_scan('path')`` or ``iceberg_scan('path')`` in it.
        folder: From which relative paths count.
        store: S3, where the query names it.
        scratch: Where the views are.

    Raises:
        ConfigError: A package isn't installed, or a call has other arguments.
        RefIdTableError: There is no such table.
    """
    try:
        tokens = sqlglot.tokenize(query, read="duckdb")
    except SqlglotError:
        return query  # DuckDB says what is wrong
    calls = [
        tokens[place : place + 4]
        for place, (token, following) in enumerate(pairwise(tokens))
        if token.text.lower() in OPENED_BY and following.text == "("
    ]
    for number, call in reversed(list(enumerate(calls))):
        name = call[0].text.lower()
        if [token.token_type.name for token in call[1:]] != PATH_ONLY:
            fact = f"{name} in ref_ids.query takes the path of a table and nothing else"
            raise ConfigError(fact, f"write {name}('path')")
        path = call[2].text.removeprefix("file://")
        if "://" not in path:
            path = str(folder / path)
        view = f"esms_lake_{number}"
        own_store = store if PLACES.match(path) else None
        scratch.connection.register(view, OPENED_BY[name](path, own_store))
        query = query[: call[0].start] + view + query[call[3].end + 1 :]
    return query


class Stream:
    """Rows that are read anew, a batch at a time, whenever DuckDB scans them.

    Args:
        open_reader: Opens an Arrow reader.
    """

    def __init__(self, open_reader: Callable[[], Any]) -> None:
        self._open_reader = open_reader

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return Arrow's capsule of all rows."""
        return self._open_reader().__arrow_c_stream__(requested_schema)


@contextmanager
def _opening(
    kind: str, path: str, store: ObjectStore | None, *errors: type[Exception]
) -> Iterator[None]:
    """Turn what a package raises in a block into an error of ours."""
    try:
        yield
    except errors as exc:
        if store and (refusal := store.refusal(path)):
            raise refusal from None
        fact = f"{path!r} can't be opened as {kind} table: {first_line(exc)}"
        raise RefIdTableError(fact, "correct the path in ref_ids.query") from exc


def _open_delta(path: str, store: ObjectStore | None) -> Any:  # noqa: ANN401  a dataset, or a stream
    package, errors = need("deltalake", "delta"), need("deltalake.exceptions", "delta")
    options = store.delta_options() if store else None
    with _opening("a Delta", path, store, OSError, errors.DeltaError):
        table = package.DeltaTable(path, storage_options=options)
        try:
            return table.to_pyarrow_dataset()
        except errors.DeltaProtocolError:
            # Its own engine alone knows deletion vectors and renamed columns.
            return Stream(table.scan)


def _open_iceberg(path: str, store: ObjectStore | None) -> Stream:
    package = need("pyiceberg.table", "iceberg")
    errors = need("pyiceberg.exceptions", "iceberg")
    properties = store.iceberg_properties() if store else {}
    with _opening("an Iceberg", path, store, OSError, errors.ValidationError):
        if not path.endswith(METADATA):
            path = newest_metadata(path.rstrip("/"), store)
        table = package.StaticTable.from_metadata(path, properties)
    return Stream(lambda: _read_iceberg(table))


def newest_metadata(path: str, store: ObjectStore | None) -> str:
    """Return which metadata file of a table's folder says what is in it.

    A catalog knows; without one the highest version counts, unless a file says which.
    """
    folder = f"{path}/metadata"
    paths = store.files.ls(folder, detail=False) if store else Path(folder).iterdir()
    names = [Path(path).name for path in paths]
    if HINT in names:
        return path  # pyiceberg reads it
    versions = {
        name: int(version[0])
        for name in names
        if name.endswith(METADATA) and (version := re.findall(r"^v?(\d+)", name))
    }
    newest = max(versions.values(), default=None)
    (name, *others) = [name for name, n in versions.items() if n == newest] or [""]
    if not name:
        raise FileNotFoundError(f"there are no metadata files in {folder!r}")
    if others:
        fact = f"{folder!r} holds {len(others) + 1} metadata files of version {newest}"
        remedy = f"name the right one in ref_ids.query: iceberg_scan('…{METADATA}')"
        raise RefIdTableError(fact, remedy)
    return f"{folder}/{name}"


def _read_iceberg(table: Any) -> pa.RecordBatchReader:  # noqa: ANN401
    """Read one data file after another: pyiceberg's own reader runs ahead of DuckDB."""
    arrow = need("pyiceberg.io.pyarrow", "iceberg")
    scan = table.scan()
    schema = scan.projection()
    reader = arrow.ArrowScan(table.metadata, table.io, schema, scan.row_filter)

    def batches() -> Iterator[pa.RecordBatch]:
        for task in scan.plan_files():
            yield from reader.to_record_batches([task])

    types = arrow.schema_to_pyarrow(schema)
    return pa.RecordBatchReader.from_batches(types, batches()).cast(types)


OPENED_BY: Final = {"delta_scan": _open_delta, "iceberg_scan": _open_iceberg}
"""What a query may name, as with DuckDB's extensions, which aren't used."""
