"""Any SQL destination of dlt, shown to a scratch DuckDB: attached or copied."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import tenacity
from dlt.destinations.exceptions import (
    DatabaseException,
    DatabaseUndefinedRelation,
    DestinationConnectionError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import pyarrow as pa
    from dlt.destinations.sql_client import SqlClientBase
    from typing_extensions import Self

MEMORY_LIMIT: Final = "192MB"
"""Memory for planning; what needs more goes to a temporary file."""

LOCK_PATIENCE_SECONDS: Final = 15.0
"""How long to wait for a DuckDB file that another process holds open."""

COPY_ROWS: Final = 50_000

ReadError: Final = (duckdb.Error, DatabaseException, DestinationConnectionError)
"""What reading a database may raise."""


def is_locked(exc: BaseException) -> bool:
    """Tell whether an error says that another process holds a DuckDB file."""
    link: BaseException | None = exc
    while link is not None:
        if isinstance(link, duckdb.IOException) and "lock on file" in str(link):
            return True
        link = link.__cause__ or link.__context__
    return False


wait_for_lock: Final = tenacity.retry(
    retry=tenacity.retry_if_exception(is_locked),
    wait=tenacity.wait_random_exponential(0.1, max=1.0),
    stop=tenacity.stop_after_delay(LOCK_PATIENCE_SECONDS),
    reraise=True,
)
"""Call a function again while another process holds a DuckDB file open."""


class Scratch:
    """A DuckDB of our own in which ledger and warehouse meet, gone afterwards.

    A DuckDB file is attached read-only and read in place; from any other
    database what a query selects is copied through dlt's SQL client.
    """

    def __init__(self, timezone: str = "UTC") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="esms-")
        path = Path(self._folder.name) / "plan.duckdb"
        self.connection = duckdb.connect(path)
        self.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
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

    def table(self, sql: str, parameters: Sequence[object] = ()) -> pa.Table:
        """Return what a query selects, as Arrow."""
        return self.connection.sql(sql, params=list(parameters)).to_arrow_table()

    def attach(self, path: str) -> str:
        """Attach a DuckDB file read-only, once; return its catalog name."""
        if path not in self._attached:
            catalog = f"file_{len(self._attached)}"
            quoted = path.replace("'", "''")
            wait_for_lock(self.execute)(f"ATTACH '{quoted}' AS {catalog} (READ_ONLY)")
            self._attached[path] = catalog
        return self._attached[path]

    def types(self, relation: str) -> dict[str, str]:
        """Return the types of a relation's columns, by name."""
        sql = f"DESCRIBE SELECT * FROM {relation}"
        return {row[0]: row[1] for row in self.rows(sql)}

    def fill(self, target: str, chunk: pa.Table, *, create: bool) -> None:
        """Add Arrow rows to a table, which is made anew when asked for."""
        self.connection.register("chunk", chunk)
        if create:
            self.execute(f"CREATE OR REPLACE TABLE {target} AS FROM chunk")
        else:
            self.execute(f"INSERT INTO {target} BY NAME FROM chunk")
        self.connection.unregister("chunk")

    def detach_all(self) -> None:
        """Close all attached files, so that others can open them."""
        self.execute("USE plan")
        for catalog in self._attached.values():
            self.execute(f"DETACH {catalog}")
        self._attached.clear()


class Database:
    """A dataset of a dlt destination, read for planning.

    Args:
        client: dlt's SQL client of the destination.
        scratch: Where what is read goes.
        schema: The schema that holds the tables, or None for the default one.
    """

    def __init__(
        self, client: SqlClientBase[Any], scratch: Scratch, schema: str | None
    ) -> None:
        self._client = client
        self._scratch = scratch
        self._schema = schema
        self._catalog: str | None = None
        path = duckdb_file(client)
        if path is not None and Path(path).exists():
            self._catalog = scratch.attach(path)
        self.is_missing = path is not None and self._catalog is None

    def quote(self, name: str) -> str:
        """Quote an identifier as this database wants it."""
        if self._catalog:
            return '"' + name.replace('"', '""') + '"'
        return self._client.capabilities.escape_identifier(name)

    def name_of(self, table: str) -> str:
        """Return the qualified name of a table."""
        parts = [self.quote(part) for part in (self._schema, table) if part]
        if self._catalog:
            parts.insert(0, self._catalog)
            if not self._schema:
                parts.insert(1, "main")
        return ".".join(parts)

    def columns(self, relation: str) -> list[str] | None:
        """Return the column names of a table or query, None if it isn't there."""
        if self.is_missing:
            return None
        sql = f"SELECT * FROM {relation} LIMIT 0"
        try:
            if self._catalog:
                self._use()
                cursor = self._scratch.execute(sql)
                return [column[0] for column in cursor.description or ()]
            with self._client as client, client.execute_query(sql) as remote:
                return [column[0] for column in remote.description]
        except (duckdb.CatalogException, DatabaseUndefinedRelation):
            return None

    def replace_relation(self, sql: str, name: str) -> None:
        """Show what a query selects in place of a table, uncopied where it can be."""
        if self._catalog:
            self._scratch.execute(f"DROP TABLE plan.main.{name}")
            self._scratch.execute(f"CREATE VIEW plan.main.{name} AS {sql}")
        else:
            self.copy(sql, name)

    def copy(self, sql: str, name: str) -> None:
        """Copy what a query selects into a table of the scratch database."""
        target = f"plan.main.{name}"
        if self._catalog:
            self._use()
            self._scratch.execute(f"CREATE OR REPLACE TABLE {target} AS {sql}")
            return
        created = False
        with self._client as client, client.execute_query(sql) as cursor:
            for chunk in cursor.iter_arrow(chunk_size=COPY_ROWS):
                self._scratch.fill(target, chunk, create=not created)
                created = True

    def readable(self, relation: str, columns: Sequence[str], name: str) -> str:
        """Return what to select those columns from, copied where it must be."""
        if self._catalog:
            self._use()
            return relation
        selected = ", ".join(self.quote(column) for column in columns)
        self.copy(f"SELECT {selected} FROM {relation}", name)
        return f"plan.main.{name}"

    def _use(self) -> None:
        schema = self.quote(self._schema or "main")
        self._scratch.execute(f"USE {self._catalog}.{schema}")


def duckdb_file(client: SqlClientBase[Any]) -> str | None:
    """Return the path of the DuckDB file behind a client, if that is what it is."""
    credentials = getattr(client, "credentials", None)
    if type(client).__name__ != "DuckDbSqlClient" or credentials is None:
        return None
    if credentials.external_conn() is not None:
        return None
    path = credentials._conn_str()  # noqa: SLF001  dlt has no public name for it
    return None if path == ":memory:" else str(Path(path).resolve())
