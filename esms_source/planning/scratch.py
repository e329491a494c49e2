"""A DuckDB of our own for planning: files attached, or what was read copied in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb

from esms_source.databases import Patience
from esms_source.runtime import ScratchFolder
from esms_source.sql import quote_name, read_statements, text_literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import pyarrow as pa
    from typing_extensions import Self

MB_PER_THREAD: Final = 64
"""Memory that each thread of DuckDB needs to sort and join in."""

GROUP_ROWS: Final = 20_480
"""Rows of a Parquet file that are read at once."""

LONGEST_LINE: Final = 16 * 1024 * 1024
CSV_BUFFER: Final = 2 * LONGEST_LINE
"""Bytes of a file that are held at once: DuckDB would take 16 of the longest lines."""


def statements() -> dict[str, str]:
    """Return the statements of ``plan.sql`` by their names."""
    return read_statements(__package__, "plan.sql")


class Scratch:
    """A DuckDB of our own in which ledger and warehouse meet, gone afterwards.

    A DuckDB file is attached read-only and read in place; from any other
    database what a query selects is copied through dlt's SQL client.

    Args:
        timezone: Of times that name none.
        memory_mb: What it may take before it uses the disk.
        patience: How long to wait for who else holds what is read.
    """

    def __init__(
        self, timezone: str, memory_mb: int, patience: Patience | None = None
    ) -> None:
        self.memory_mb = memory_mb
        self.patience = patience or Patience()
        self._folder = ScratchFolder()
        self.folder = Path(self._folder.name)
        self.connection = duckdb.connect()
        self.execute("ATTACH ':memory:' AS plan")
        self.execute("USE plan")
        self.execute("SET temp_directory = ?", [str(self.folder / "spilled")])
        self.execute("SET memory_limit = ?", [f"{memory_mb}MB"])
        threads = min(os.cpu_count() or 1, max(memory_mb // MB_PER_THREAD, 1))
        self.execute("SET threads = ?", [threads])
        self.execute("SET preserve_insertion_order = false")
        self.execute("SET TimeZone = ?", [timezone])
        self._attached: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop everything."""
        self.connection.close()
        self._folder.cleanup()

    def execute(
        self, sql: str, parameters: Sequence[object] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Run a statement on the scratch database."""
        return self.connection.execute(sql, parameters)

    def rows(
        self, sql: str, parameters: Sequence[object] = ()
    ) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self.execute(sql, parameters).fetchall()

    def step(self, name: str, values: Mapping[str, object], target: str = "") -> None:
        """Run a statement of ``plan.sql``.

        Args:
            name: Which one.
            values: What stands in its braces.
            target: SQL in front of it, which takes what it selects.
        """
        self.execute(f"{target} {statements()[name].format_map(values)}")

    def attach(self, path: str) -> str:
        """Attach a DuckDB file read-only, once; return its catalog name."""
        if path not in self._attached:
            catalog = f"file_{len(self._attached)}"
            sql = f"ATTACH {text_literal(path)} AS {catalog} (READ_ONLY)"
            self.patience(lambda: self.execute(sql))
            self._attached[path] = catalog
        return self._attached[path]

    def types(self, relation: str) -> dict[str, str]:
        """Return the types of a relation's columns, by name."""
        sql = f"DESCRIBE SELECT * FROM {relation}"
        return {row[0]: row[1] for row in self.rows(sql)}

    def create(self, target: str, types: Mapping[str, str]) -> None:
        """Make an empty table anew."""
        columns = ", ".join(f"{quote_name(n)} {kind}" for n, kind in types.items())
        self.execute(f"CREATE OR REPLACE TABLE {target} ({columns})")

    def fill(self, target: str, chunk: pa.Table) -> None:
        """Add Arrow rows to a table.

        A column that is new, or had no value so far, takes the type that comes.
        """
        self.connection.register("chunk", chunk)
        present = self.types(target)
        for name, kind in self.types("chunk").items():
            column = quote_name(name)
            if name not in present:
                self.execute(f"ALTER TABLE {target} ADD COLUMN {column} {kind}")
            elif kind != present[name]:
                wider = kind
                if self._has_values(target, column):
                    wider = self._wider(target, column, {kind, present[name]})
                self.execute(f"ALTER TABLE {target} ALTER {column} TYPE {wider}")
        self.execute(f"INSERT INTO {target} BY NAME FROM chunk")
        self.connection.unregister("chunk")

    def fill_texts(self, target: str, chunk: pa.Table) -> None:
        """Add rows of texts to a table, which reads them as its types."""
        self.connection.register("chunk", chunk)
        self.execute(f"INSERT INTO {target} BY NAME FROM chunk")
        self.connection.unregister("chunk")

    def show_csv(self, name: str, types: Mapping[str, str], path: Path) -> None:
        r"""Show a CSV file without header, in which a bare \N is NULL, as a view."""
        texts = ", ".join(f"{quote_name(name)}: 'VARCHAR'" for name in types)
        columns = ", ".join(
            f"TRY_CAST({column} AS {kind}) AS {column}"
            for column, kind in zip(map(quote_name, types), types.values(), strict=True)
        )
        self.show(
            f"SELECT {columns} FROM read_csv({text_literal(str(path))},"
            f" columns = {{{texts}}}, auto_detect = false, header = false,"
            " delim = ',', quote = '\"', escape = '\"', nullstr = '\\N',"
            f" allow_quoted_nulls = false, max_line_size = {LONGEST_LINE},"
            f" buffer_size = {CSV_BUFFER})",
            name,
        )

    def show(self, sql: str, name: str) -> None:
        """Show what a query selects as a view, in place of a table or view."""
        kinds = self.rows(
            "SELECT table_type FROM information_schema.tables"
            " WHERE table_catalog = 'plan' AND table_name = ?",
            [name],
        )
        for (kind,) in kinds:
            kept = "VIEW" if kind == "VIEW" else "TABLE"
            self.execute(f"DROP {kept} plan.main.{name}")
        self.execute(f"CREATE VIEW plan.main.{name} AS {sql}")

    def _has_values(self, target: str, column: str) -> bool:
        return bool(self.rows(f"SELECT count({column}) FROM {target}")[0][0])

    def _wider(self, target: str, column: str, kinds: set[str]) -> str:
        """Return the type that takes the values of two."""
        both = f"SELECT {column} FROM {target} UNION ALL SELECT {column} FROM chunk"
        ((kind,),) = self.rows(f"SELECT column_type FROM (DESCRIBE {both})")
        # Not each whole number has a double of its own.
        exact = kind not in ("FLOAT", "DOUBLE") or kinds == {"FLOAT", "DOUBLE"}
        return str(kind) if exact else "VARCHAR"

    def write(self, values: Mapping[str, object], path: Path) -> None:
        """Write the work list of ``plan.sql``, in its order, to a Parquet file."""
        self.execute("SET preserve_insertion_order = true")
        sql = statements()["written"].format_map(values)
        options = f"FORMAT parquet, ROW_GROUP_SIZE {GROUP_ROWS}"
        self.execute(f"COPY ({sql}) TO {text_literal(str(path))} ({options})")
