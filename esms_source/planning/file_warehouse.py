"""A warehouse of files: Parquet, CSV, and whatever else DuckDB reads by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import dlt

from esms_source.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from esms_source.config.ref_id_table import RefIdTable
    from esms_source.planning.candidates import Columns
    from esms_source.planning.scratch import Scratch

IN_MEMORY: Final = ":memory:"
"""The DuckDB without a file: what reads files only."""


class FileWarehouse:
    """Files that a query names, which the scratch database reads by itself.

    Args:
        table: The settings: a query, whose relative paths count from dlt's folder.
        scratch: What reads them.
    """

    as_text = False

    def __init__(self, table: RefIdTable, scratch: Scratch) -> None:
        if not table.query:
            remedy = "set ref_ids.query, as in SELECT * FROM 'sent/*.parquet'"
            raise ConfigError(f"{IN_MEMORY} holds no tables", remedy)
        self._scratch = scratch
        self._relation = f"({table.query.strip().rstrip(';')}\n) AS query"
        folder = Path(dlt.current.run_context().run_dir).resolve()
        scratch.execute("USE plan")
        scratch.execute("SET file_search_path = ?", [str(folder)])

    def types(self) -> Mapping[str, str]:
        """Return the columns with their DuckDB types."""
        return self._scratch.types(self._relation)

    def read(
        self, columns: Columns, windows: Mapping[str, datetime]
    ) -> tuple[str, Mapping[str, str]]:
        """Return the query: windows leave out what DuckDB has read."""
        del columns, windows
        return self._relation, self.types()

    def grant(self, said: str) -> None:
        """Return nothing: files have no grants."""

    def tables(self) -> Mapping[tuple[str, str], list[str]]:
        """Return nothing: only a query names files."""
        return {}

    def close(self) -> None:
        """Close nothing."""
