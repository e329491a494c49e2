"""A warehouse of files: Parquet and CSV, also on S3, and Delta and Iceberg tables."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dlt
import duckdb

from esms_source.exceptions import ConfigError
from esms_source.planning.object_store import PLACES, ObjectStore
from esms_source.planning.windows import in_windows
from esms_source.sql import quote_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from esms_source.config.ref_id_table import RefIdTable
    from esms_source.planning.candidates import Columns
    from esms_source.planning.scratch import Scratch

IN_MEMORY: Final = ":memory:"
"""The DuckDB without a file: what reads files only."""

LAKES: Final = re.compile(r"\b(delta|iceberg)_scan\b", re.IGNORECASE)
"""How a query names a Delta or Iceberg table."""


class FileWarehouse:
    """Files that a query names, which the scratch database reads.

    Local ones it reads in place. What comes through a network or a Python package is
    read once, and copied.

    Args:
        table: The settings: a query, whose relative paths count from dlt's folder.
        scratch: What reads them.

    Raises:
        ConfigError: There is no query, or what reads such files isn't installed.
        RefIdTableError: A Delta or Iceberg table can't be opened.
    """

    as_text = False

    def __init__(self, table: RefIdTable, scratch: Scratch) -> None:
        if not table.query:
            remedy = "set ref_ids.query, as in SELECT * FROM 'sent/*.parquet'"
            raise ConfigError(f"{IN_MEMORY} holds no tables", remedy)
        self._scratch = scratch
        self._query = query = table.query.strip().rstrip(";")
        folder = Path(dlt.current.run_context().run_dir).resolve()
        self._store = ObjectStore() if PLACES.search(query) else None
        if self._store:
            scratch.connection.register_filesystem(self._store.files)
        is_lake = LAKES.search(query) is not None
        if is_lake:
            from esms_source.planning.lakes import show_lakes  # noqa: PLC0415  rare

            query = show_lakes(query, folder, self._store, scratch)
        self._is_copied = is_lake or self._store is not None
        self._relation = f"({query}\n) AS query"
        scratch.execute("USE plan")
        scratch.execute("SET file_search_path = ?", [str(folder)])

    def types(self) -> Mapping[str, str]:
        """Return the columns with their DuckDB types."""
        with self._reading():
            return self._scratch.types(self._relation)

    def read(
        self, columns: Columns, windows: Mapping[str, datetime]
    ) -> tuple[str, Mapping[str, str]]:
        """Return what to select columns from, and their types."""
        types = self.types()
        if not self._is_copied:
            return self._relation, types
        selected = ", ".join(map(quote_name, columns.all))
        condition = in_windows(columns, types, windows, quote_name)
        sql = f"SELECT {selected} FROM {self._relation}{condition}"
        with self._reading():
            self._scratch.execute(f"CREATE OR REPLACE TABLE plan.main.raw AS {sql}")
        return "plan.main.raw", types

    def grant(self, said: str) -> None:
        """Return nothing: files have no grants."""

    def tables(self) -> Mapping[tuple[str, str], list[str]]:
        """Return nothing: only a query names files."""
        return {}

    def close(self) -> None:
        """Close nothing."""

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Say what S3 says where DuckDB can't read from it."""
        try:
            yield
        except duckdb.Error:
            if self._store and (refusal := self._store.refusal(self._query)):
                raise refusal from None
            raise
