"""Any SQL destination of dlt, shown to the scratch DuckDB."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
from dlt.destinations.exceptions import (
    DatabaseTransientException,
    DatabaseUndefinedRelation,
)

from esms_source.databases import as_ours, duckdb_file, local_file, quoted_column
from esms_source.databases.alchemy import (
    driver_errors,
    given,
    is_alchemy,
    literally,
    names_of,
    streamed,
)
from esms_source.planning.alchemy import as_texts, ledger_types, types_of
from esms_source.sql import in_dialect, quote_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.planning.scratch import Scratch

COPY_ROWS: Final = 50_000
COPY_BYTES: Final = 1024 * 1024

IN_LIST: Final = 10_000
"""Texts that one SQL list may hold on any database."""

POSTGRES_IN_LIST: Final = 200_000
"""The same on PostgreSQL, which hashes them: a list of it takes about a second."""

UNKNOWN: Final = "VARCHAR"
"""Type of a column until the first value shows a better one."""

POSTGRES_TYPES: Final = {
    16: "BOOLEAN",
    20: "BIGINT",
    21: "SMALLINT",
    23: "INTEGER",
    700: "FLOAT",
    701: "DOUBLE",
    1082: "DATE",
    1114: "TIMESTAMP",
    1184: "TIMESTAMP WITH TIME ZONE",
    114: "JSON",
    3802: "JSON",
}
"""PostgreSQL's type ids as DuckDB's types; all others are read as text.

Source: the system catalog pg_type, whose ids never change.
"""

NUMERIC: Final = 1700
MAX_DIGITS: Final = 38


class Database:
    """A dataset of a dlt destination, read for planning.

    Args:
        client: dlt's SQL client of the destination.
        scratch: Where what is read goes.
        schema: The schema that holds the tables, or None for the default one.
        is_ours: Whether dlt made the tables, as ours: it may have folded their names.
        shown: The scratch's catalog where it is shown already.

    Attributes:
        is_remote: Whether what is read must be copied.
        is_postgres: Whether it understands what only PostgreSQL does.
        in_list: How many texts one SQL list may hold.
    """

    def __init__(
        self,
        client: SqlClientBase[Any],
        scratch: Scratch,
        schema: str | None,
        *,
        is_ours: bool = False,
        shown: str | None = None,
    ) -> None:
        self._is_ours = is_ours
        self._relations: set[str] = set()
        self._client = client
        self._scratch = scratch
        self._schema = schema
        self._catalog = shown
        path = duckdb_file(client)
        if path is not None and Path(path).exists():
            self._catalog = scratch.attach(path)
        file = local_file(client)
        self.is_missing = file is not None and not Path(file).exists()
        self.is_remote = self._catalog is None
        self._is_alchemy = is_alchemy(client)
        self._kinds: dict[str, str] = {}
        self.is_postgres = client.capabilities.sqlglot_dialect == "postgres"
        self.in_list = POSTGRES_IN_LIST if self.is_postgres else IN_LIST

    def quote(self, name: str) -> str:
        """Quote the name of a column."""
        return quoted_column(self._client, name) if self._is_ours else quote_name(name)

    def name_of(self, table: str, *, folded: bool = False) -> str:
        """Return the qualified name of a table.

        Args:
            table: Its name.
            folded: Whether a database that has names in one letter case means it.
        """
        if self._catalog:
            schema = quote_name(self._schema or "main")
            return f"{self._catalog}.{schema}.{quote_name(table)}"
        capabilities = self._client.capabilities
        parts = [part for part in (self._schema, table) if part]
        if folded:
            parts = list(map(capabilities.casefold_identifier, parts))
        name = ".".join(map(capabilities.escape_identifier, parts))
        if self._is_ours:
            name = self._client.make_qualified_table_name(table)
        self._relations.add(name)
        return name

    def columns(self, relation: str) -> list[str] | None:
        """Return the column names of a table or query, None if it isn't there."""
        types = self.types(relation)
        return None if types is None else list(types)

    def is_table(self, relation: str) -> bool:
        """Tell of what is read in place whether it is a table of DuckDB's own."""
        names = "database_name, schema_name, table_name"
        return any(
            relation == f"{catalog}.{quote_name(schema)}.{quote_name(table)}"
            for catalog, schema, table in self.rows(
                f"SELECT {names} FROM duckdb_tables()"
            )
        )

    def types(self, relation: str) -> dict[str, str] | None:
        """Return the columns of a table or query with their DuckDB types.

        None if it isn't there; text stands for types that aren't known.
        """
        if self.is_missing:
            return None
        try:
            return self._scratch.patience(lambda: self._types_of(relation))
        except (duckdb.CatalogException, DatabaseUndefinedRelation):
            return None

    def _types_of(self, relation: str) -> dict[str, str]:
        if self._catalog:
            self._use()
            return self._scratch.types(relation)
        self._relations.add(relation)
        with self._connected() as client:
            return self._types(client, f"SELECT * FROM {relation} LIMIT 0")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        if self._catalog:
            self._use()
            return self._scratch.rows(sql)
        with self._connected() as client:
            said = literally(client, self._said(sql))
            rows = given(client, client.execute_sql(said))
            return [tuple(row) for row in rows or ()]

    def show(self, sql: str, name: str) -> None:
        """Show what a query selects in place of a table, uncopied where it can be."""
        if self._catalog:
            self._scratch.show(sql, name)
        else:
            self._scratch.patience(lambda: self._copy(sql, name, as_view=True))

    def copy(self, sql: str, name: str) -> None:
        """Copy what a query selects into a table of the scratch database, made anew."""
        if self._catalog:
            self._use()
            self._scratch.execute(f"CREATE OR REPLACE TABLE plan.main.{name} AS {sql}")
        else:
            self._scratch.patience(lambda: self._copy(sql, name))

    def _copy(
        self, sql: str, name: str, *, as_text: bool = False, as_view: bool = False
    ) -> None:
        """Copy what a query selects.

        Args:
            sql: The query.
            name: What takes it.
            as_text: Whether values that a database gives as texts stay texts.
            as_view: Whether the file of a database that writes one is read in place.
        """
        target = f"plan.main.{name}"
        with self._connected() as client:
            empty = f"SELECT * FROM ({sql}) AS copied LIMIT 0"
            types = {
                column: UNKNOWN if as_text or kind == "JSON" else kind
                for column, kind in self._types(client, empty).items()
            }
            if self.is_postgres:
                path = self._copy_out(client, sql, name)
                shown = name if as_view else "file"
                self._scratch.show_csv(shown, types, path)
                if not as_view:
                    self._scratch.execute(
                        f"CREATE OR REPLACE TABLE {target} AS FROM plan.main.file"
                    )
                    path.unlink()
                return
            self._scratch.create(target, types)
            if self._is_alchemy:
                for part in streamed(client, self._said(sql), COPY_ROWS):
                    self._scratch.fill_texts(target, as_texts(types, part))
                return
            with client.execute_query(self._said(sql)) as cursor:
                for chunk in cursor.iter_arrow(chunk_size=COPY_ROWS):
                    names = list(map(self._name, chunk.column_names))
                    self._scratch.fill(target, chunk.rename_columns(names))

    def readable(
        self, relation: str, columns: Sequence[str], name: str, condition: str
    ) -> str:
        """Return what to select those columns from, copied where it must be.

        Args:
            relation: A table or query.
            columns: Which of its columns.
            name: The table that takes a copy.
            condition: A WHERE, or nothing, of what is copied.
        """
        selected = ", ".join(self.quote(column) for column in columns)
        sql = f"SELECT {selected} FROM {relation}{condition}"
        if self._catalog:
            self._use()
            return f"({sql}) AS readable" if condition else relation
        self._scratch.patience(
            lambda: self._copy(sql, name, as_text=True, as_view=True)
        )
        return f"plan.main.{name}"

    def _use(self) -> None:
        schema = self.quote(self._schema or "main")
        self._scratch.execute(f"USE {self._catalog}.{schema}")

    @contextmanager
    def _connected(self) -> Iterator[SqlClientBase[Any]]:
        """Open a connection; what a driver raises becomes dlt's error."""
        try:
            with self._client as client:
                yield client
        except driver_errors(self._client) as exc:
            raise DatabaseTransientException(exc) from exc

    def _types(self, client: SqlClientBase[Any], sql: str) -> dict[str, str]:
        if self._is_alchemy and not self._kinds:
            self._kinds = ledger_types(client)
        with client.execute_query(literally(client, self._said(sql))) as cursor:
            if self._is_alchemy:
                return types_of(names_of(cursor), self._kinds)
            return {
                self._name(column[0]): self._duckdb_type(column)
                for column in cursor.description
            }

    def _said(self, sql: str) -> str:
        """Return SQL of ours in this database's dialect."""
        dialect = self._client.capabilities.sqlglot_dialect
        return in_dialect(sql, dialect, self._relations)

    def _name(self, column_name: str) -> str:
        return as_ours(self._client, column_name) if self._is_ours else column_name

    def _duckdb_type(self, column: Any) -> str:  # noqa: ANN401  as the driver has it
        if self._client.dbapi is duckdb:
            return str(column[1])
        if not self.is_postgres:
            return UNKNOWN
        if column.type_code == NUMERIC:
            # A numeric without precision may have any; dlt reads it like this too.
            digits, scale = column.precision or MAX_DIGITS, column.scale or 0
            if not 0 <= scale <= digits <= MAX_DIGITS:
                digits, scale = MAX_DIGITS, 9
            return f"DECIMAL({digits},{scale})"
        return POSTGRES_TYPES.get(column.type_code, UNKNOWN)

    def _copy_out(self, client: SqlClientBase[Any], sql: str, name: str) -> Path:
        """Let PostgreSQL write a file: a stream, where a cursor holds all in memory."""
        client.execute_sql("SET datestyle = 'ISO'; SET timezone = 'UTC'")
        client.execute_sql("SET client_encoding = 'UTF8'; SET bytea_output = 'hex'")
        path = self._scratch.folder / f"{name}.csv"
        form = r"FORMAT csv, FORCE_QUOTE *, NULL '\N'"
        with path.open("wb") as file, client.native_connection.cursor() as cursor:
            cursor.copy_expert(f"COPY ({sql}) TO STDOUT ({form})", file, COPY_BYTES)
        return path
