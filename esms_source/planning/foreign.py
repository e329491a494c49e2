"""Warehouses that SQLAlchemy reads: MySQL, MariaDB, SQLite, SQL Server and others."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from dlt.destinations.exceptions import DatabaseTransientException

from esms_source.databases import HeldError
from esms_source.planning.foreign_values import (
    MOMENT,
    as_text,
    duckdb_type,
    kind_of,
    moment_as_text,
)
from esms_source.planning.windows import WINDOW_SLACK, shared_windows
from esms_source.sql import text_literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sqlalchemy.sql.selectable import FromClause

    from esms_source.config.ref_id_table import RefIdTable
    from esms_source.planning.candidates import Columns
    from esms_source.planning.scratch import Scratch

PAGE_ROWS: Final = 20_000
"""Rows that are fetched, and held, at once."""

LOCK_SECONDS: Final = 2
"""How long MySQL lets a statement wait for a lock; ``Patience`` tries again."""

CONNECT_SECONDS: Final = 10
"""How long MySQL's driver waits for the server to take a connection."""

MYSQL: Final = ("mysql", "mariadb")
MYSQL_TIMESTAMP: Final = 7
"""MySQL's number of a column that holds a moment, not a time on somebody's wall.

Source: enum_field_types of the client/server protocol; all drivers hand it over.
"""

MYSQL_LOCKED: Final = (1205, 3572)
"""ER_LOCK_WAIT_TIMEOUT and ER_LOCK_NOWAIT of MySQL's list of errors."""

_DENIED: Final = re.compile(
    r"SELECT command denied to user .* for table [`']?([\w`.]+)"
)


class ForeignDatabase:
    """A database that SQLAlchemy reads; what is read becomes a Parquet file of texts.

    Args:
        url: Where it is.
        table: The settings: a table and its schema, or a query.
        scratch: Where what is read goes.
    """

    as_text = True

    def __init__(self, url: sa.URL, table: RefIdTable, scratch: Scratch) -> None:
        self._scratch = scratch
        self._engine = open_engine(url)
        self._is_mysql = self._engine.dialect.name in MYSQL
        self._name, self._schema = table.table or "", table.dataset_name
        self._query = table.query
        self._kinds: dict[str, str | None] = {}
        self._seen: dict[str, set[type]] = {}

    def types(self) -> dict[str, str] | None:
        """Return the columns with their DuckDB types, None if there is no such table.

        Text stands for types that aren't known before values are read.
        """
        kinds = self._scratch.patience(self._read_types)
        self._kinds = kinds or {}
        if kinds is None:
            return None
        return {name: kind or "VARCHAR" for name, kind in kinds.items()}

    def read(
        self, columns: Columns, windows: Mapping[str, datetime]
    ) -> tuple[str, dict[str, str]]:
        """Copy columns; return what to select them from, and their DuckDB types."""
        path = self._scratch.folder / "foreign.parquet"
        kinds = self._scratch.patience(lambda: self._copy(columns, windows, path))
        # No number among rounded ones is exact: both are refused as ids.
        kinds |= {
            name: "DOUBLE"
            for name in (columns.ref_id, columns.oa_id)
            if name and float in self._seen.get(name, ())
        }
        self._scratch.show(f"FROM read_parquet({text_literal(str(path))})", "raw")
        return "plan.main.raw", kinds

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def tables(self) -> dict[tuple[str, str], list[str]]:
        """Return the columns of each table and view, by schema and name."""
        with reading():
            inspector = sa.inspect(self._engine)
            schema = inspector.default_schema_name or ""
            names = [*inspector.get_table_names(), *inspector.get_view_names()]
            return {
                (schema, name): [c["name"] for c in inspector.get_columns(name)]
                for name in names
            }

    def grant(self, said: str) -> str | None:
        """Return the grant that is missing, where an error says so."""
        denied = _DENIED.search(said)
        user = self._engine.url.username
        return denied and f"GRANT SELECT ON {denied[1]} TO '{user}'"

    def _read_types(self) -> dict[str, str | None] | None:
        if self._query:
            with self._connected() as connection:
                found = connection.execute(sa.select("*").select_from(self._relation))
                description = found.cursor.description or ()
                found.close()
            return {
                column[0]: MOMENT
                if self._is_mysql and column[1] == MYSQL_TIMESTAMP
                else None
                for column in description
            }
        with reading():
            try:
                columns = sa.inspect(self._engine).get_columns(self._name, self._schema)
            except sa.exc.NoSuchTableError:
                return None
        # SQLite holds values of any type in any column.
        is_typed = self._engine.dialect.name != "sqlite"
        return {
            c["name"]: duckdb_type(c["type"]) if is_typed else None for c in columns
        }

    @property
    def _relation(self) -> FromClause:
        if not self._query:
            return sa.table(self._name, schema=self._schema)
        # A colon would begin a parameter; the query may end in a comment.
        query = self._query.strip().rstrip(";").replace(":", r"\:")
        return sa.text(f"({query}\n) AS query")  # type: ignore[return-value]

    def _copy(
        self, columns: Columns, windows: Mapping[str, datetime], path: Path
    ) -> dict[str, str]:
        names = columns.all
        self._seen = {name: set() for name in names}
        schema = pa.schema([(name, pa.string()) for name in names])
        chosen: Any = sa.select(*map(sa.column, names)).select_from(self._relation)
        condition = self._in_windows(columns, windows)
        if condition is not None:
            chosen = chosen.where(condition)
        with (
            self._connected() as connection,
            pq.ParquetWriter(path, schema) as file,
        ):
            found = connection.execution_options(
                stream_results=True, max_row_buffer=PAGE_ROWS
            ).execute(chosen)
            while rows := found.fetchmany(PAGE_ROWS):
                texts = []
                for name, values in zip(names, zip(*rows, strict=True), strict=True):
                    self._seen[name].update(map(type, values))
                    is_moment = self._kinds.get(name) == MOMENT
                    write = moment_as_text if is_moment else as_text
                    texts.append(pa.array(map(write, values), pa.string()))
                file.write_table(pa.table(texts, schema=schema))
        return {
            name: self._kinds.get(name) or kind_of(seen)
            for name, seen in self._seen.items()
        }

    def _in_windows(
        self, columns: Columns, windows: Mapping[str, datetime]
    ) -> sa.ColumnElement[bool] | None:
        """Return a condition that leaves out what lies certainly before its window."""
        if not columns.sent_at or not columns.oa_id:
            return None
        kind = self._kinds.get(columns.sent_at) or ""
        slack = WINDOW_SLACK.get(kind)
        if slack is None or not windows:
            return None
        oa_id = sa.cast(sa.column(columns.oa_id), sa.String)
        sent_at: sa.ColumnElement[Any] = sa.column(columns.sent_at)
        before = [
            sa.and_(oa_id.in_(group), sent_at < (since - slack).replace(tzinfo=None))
            for group, since in shared_windows(windows)
        ]
        return sa.or_(oa_id.is_(None), sent_at.is_(None), sa.not_(sa.or_(*before)))

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        with reading(), self._engine.connect() as connection:
            yield connection


def open_engine(url: sa.URL) -> sa.Engine:
    """Return SQLAlchemy's engine, which reads and waits within bounds.

    Raises:
        ImportError: There is no driver for it.
    """
    try:
        url.get_dialect()
    except sa.exc.NoSuchModuleError as exc:
        raise ImportError(str(exc)) from exc
    if url.get_backend_name() == "sqlite":
        # Opening a file that isn't there would make one.
        place = Path(url.database or "").as_uri()
        read_only = {"mode": "ro", "uri": "true"}
        return sa.create_engine(url.set(database=place, query=read_only))
    if url.get_backend_name() not in MYSQL:
        return sa.create_engine(url)
    engine = sa.create_engine(url, connect_args={"connect_timeout": CONNECT_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def bound(connection: Any, _: object) -> None:  # noqa: ANN401  the driver's
        with connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute(f"SET lock_wait_timeout = {LOCK_SECONDS}")

    return engine


@contextmanager
def reading() -> Iterator[None]:
    """Turn what SQLAlchemy and its drivers raise in a block into dlt's error."""
    try:
        yield
    except sa.exc.SQLAlchemyError as exc:
        said = getattr(exc, "orig", None) or exc
        code = said.args[0] if said.args else None
        if code in MYSQL_LOCKED:
            raise HeldError("another session holds a lock on the table") from None
        if "database is locked" in str(said):
            raise HeldError("another process holds the SQLite file") from None
        failed = ForeignError(said)
        raise DatabaseTransientException(failed) from failed


class ForeignError(Exception):
    """What a driver of SQLAlchemy said, without the statement.

    Attributes:
        sqlstate: Its SQLSTATE; None where connecting failed, as its text quotes names.
    """

    def __init__(self, said: BaseException) -> None:
        super().__init__(str(said.args[-1]) if said.args else type(said).__name__)
        # MySQL numbers what its client says, not its server, from 2000 to 2999.
        is_met = not (said.args and said.args[0] in range(2000, 3000))
        self.sqlstate = "HY000" if is_met else None
