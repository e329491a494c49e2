"""What all databases have in common: held files, drivers' errors, installs."""

from __future__ import annotations

import errno
import random
import re
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import duckdb
from dlt.common.exceptions import MissingDependencyException
from dlt.destinations.exceptions import (
    DatabaseException,
    DatabaseUndefinedRelation,
    DestinationConnectionError,
)

from esms_source.databases.alchemy import (
    given,
    is_held,
    is_of_client,
    literally,
    names_of,
)
from esms_source.exceptions import (
    DestinationError,
    EsmsError,
    PipelineBusyError,
    StoppedError,
    causes,
)
from esms_source.redaction import first_line, hide_names
from esms_source.runtime import Stop
from esms_source.sql import in_dialect, quote_name
from esms_source.tables import LOADS, RUNS, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dlt.destinations.sql_client import SqlClientBase

T = TypeVar("T")

PATIENCE_SECONDS: Final = 300.0
"""How long to wait for a file or a lock that somebody else holds."""

BUSY_POLL_SECONDS: Final = 0.5
BUSY_REMEDY: Final = "close it there and run again"

LOCK_TIMEOUT: Final = "lock_timeout"
LOCK_TIMEOUT_MS: Final = 2_000
"""How long PostgreSQL lets a statement wait for a lock: its driver hears no signal."""

LOCK_NOT_AVAILABLE: Final = "55P03"
"""PostgreSQL's state of a statement that waited for a lock as long as it may."""

_HELD: Final = re.compile(
    r'lock on file "(?P<path>[^"]+)"(?:.*?\(PID (?P<pid>\d+)\))?', re.DOTALL
)

ReadError: Final = (duckdb.Error, DatabaseException, DestinationConnectionError)
"""What reading a database may raise."""

_SERVER_IS_SHORT: Final = {"53100": "has a full disk", "53200": "is out of memory"}
"""PostgreSQL's SQLSTATEs of class 53, "insufficient resources"."""

_DISK_IS_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

NAMES_IN_SQL: Final = (*(table.name for table in (*TABLES, RUNS)), LOADS)
"""The tables that ``execute`` knows."""

LOCAL_CATALOGS: Final = ("duckdb", "sqlite")
"""Catalogs of DuckLake that are files."""

NotInstalled: Final = (ModuleNotFoundError, MissingDependencyException)
"""What opening a database raises where its driver isn't there."""


def is_locked(exc: BaseException) -> bool:
    """Tell whether an error says that another process holds a DuckDB file."""
    return any(
        isinstance(link, duckdb.IOException) and "lock on file" in str(link)
        for link in causes(exc)
    )


def explain(
    exc: BaseException,
    what: str,
    remedy: str,
    error: type[EsmsError] = DestinationError,
) -> EsmsError:
    """Return what an error of a database or its driver amounts to.

    Args:
        exc: What was raised.
        what: What can't be done because of it.
        remedy: What to do where the error itself doesn't tell.
        error: The class to return.
    """
    if is_busy(exc):
        return error(f"{what}: {holder(exc)}", BUSY_REMEDY)
    for link in causes(exc):
        if shortage := _shortage(link):
            return error(f"{what}: {shortage[0]}", shortage[1])
    text = first_line(exc)
    return error(f"{what}: {hide_names(text) if never_met(exc) else text}", remedy)


def never_met(exc: BaseException) -> bool:
    """Tell whether an error comes from connecting: it quotes the URL then.

    What a PostgreSQL server itself says has a code.
    """
    return any(
        is_of_client(link)
        or getattr(link, "pgcode", "") is None
        or getattr(link, "sqlstate", "") is None
        for link in causes(exc)
    )


def cause_of(exc: Exception) -> Exception | None:
    """Return what an error of ours may be raised from: nothing that quotes a URL."""
    return None if never_met(exc) else exc


def _shortage(exc: BaseException) -> tuple[str, str] | None:
    """Return what ran out and what to do, where that is what an error says."""
    code, text = getattr(exc, "pgcode", None), str(exc)
    if code in _SERVER_IS_SHORT:
        fact = f"the PostgreSQL server {_SERVER_IS_SHORT[code]}: {first_line(exc)}"
        return fact, "make room on the server"
    number = getattr(exc, "errno", None)
    # DuckDB itself bounds its temporary files by the room on their disk.
    is_full = number in _DISK_IS_FULL or "No space left on device" in text
    if is_full or "max_temp_directory_size" in text:
        folder = gettempdir()
        fact = f"there is no room left on a disk: {first_line(exc)}"
        return fact, f"free room where that file is; temporary files are in {folder}"
    if isinstance(exc, duckdb.OutOfMemoryException):
        fact = f"DuckDB ran out of memory: {first_line(exc)}"
        return fact, "raise planning_memory (SOURCES__ESMS__PLANNING_MEMORY)"
    return None


@contextmanager
def translated(
    what: str, remedy: str, error: type[EsmsError] = DestinationError
) -> Iterator[None]:
    """Turn what a database or its driver raises in a block into an error of ours.

    Raises:
        EsmsError: Of the given class: see ``explain``.
    """
    try:
        yield
    except ReadError as exc:
        raise explain(exc, what, remedy, error) from cause_of(exc)


def is_busy(exc: BaseException) -> bool:
    """Tell whether an error says that somebody else holds what is needed, for now."""
    return is_locked(exc) or any(
        isinstance(link, HeldError)
        or sql_state(link) == LOCK_NOT_AVAILABLE
        or is_held(link)
        for link in causes(exc)
    )


def sql_state(exc: BaseException) -> str | None:
    """Return the SQLSTATE that a driver's error bears, if any."""
    state = getattr(exc, "pgcode", None) or getattr(exc, "sqlstate", None)
    return None if state is None else str(state)


class HeldError(Exception):
    """Another loader holds what is needed; its text says who and what."""


class Patience:
    """Try again while somebody else holds what is needed: within bounds, and said.

    Args:
        stop: Ends the waiting.
        tell: Told what is waited for, and None once it isn't any more.
        seconds: How long to wait in all, if not ``PATIENCE_SECONDS``.
    """

    def __init__(
        self,
        stop: Stop | None = None,
        tell: Callable[[str | None], object] = bool,
        seconds: float | None = None,
    ) -> None:
        # A stop is false while nobody has told it to stop.
        self._stop = Stop() if stop is None else stop
        self._tell = tell
        self._seconds = PATIENCE_SECONDS if seconds is None else seconds

    def __call__(self, action: Callable[[], T]) -> T:
        """Do something, again and again while it fails as others are at it.

        Raises:
            PipelineBusyError: They still are when the time is over.
            EsmsError: Why the run was told to stop.
        """
        began = self._stop.monotonic()
        try:
            while True:
                try:
                    return action()
                except Exception as exc:
                    if not is_busy(exc):
                        raise
                    held = holder(exc)
                    if self._stop.monotonic() - began >= self._seconds:
                        fact = f"{held} for {self._seconds:.0f} s"
                        raise PipelineBusyError(fact, BUSY_REMEDY) from exc
                self._tell(held)
                if self._stop.wait(random.uniform(0.5, 1.0) * BUSY_POLL_SECONDS):  # noqa: S311
                    raise self._stop.reason or StoppedError("stopped")
        finally:
            self._tell(None)


def holder(exc: BaseException) -> str:
    """Say who holds what: DuckDB tells the file and the process."""
    for link in causes(exc):
        if isinstance(link, HeldError):
            return str(link)
        match = _HELD.search(str(link))
        if match:
            who = f"process {match['pid']}" if match["pid"] else "another process"
            return f"{who} holds {Path(match['path']).name} open"
    return "another session holds a lock on a table"


def installing(destination: str) -> str:
    """Return the command that installs what a destination of dlt needs."""
    extra = destination.rpartition(".")[2]
    if extra == "filesystem":  # a folder needs nothing
        return "pip install esms-source[s3], or dlt[gs] or dlt[az] for such buckets"
    ours = metadata.metadata("esms-source").get_all("Provides-Extra") or ()
    return f"pip install {'esms-source' if extra in ours else 'dlt'}[{extra}]"


def duckdb_file(client: SqlClientBase[Any]) -> str | None:
    """Return the path of the DuckDB file behind a client, if that is what it is."""
    credentials = getattr(client, "credentials", None)
    if type(client).__name__ != "DuckDbSqlClient" or credentials is None:
        return None
    if credentials.external_conn() is not None:
        return None
    path = credentials.database
    return None if path == ":memory:" else str(Path(path).resolve())


def is_ducklake(client: SqlClientBase[Any]) -> bool:
    """Tell whether a client is one of DuckLake."""
    return type(client).__name__ == "DuckLakeSqlClient"


def local_file(client: SqlClientBase[Any]) -> str | None:
    """Return the path of the file that a database is in, or a DuckLake's catalog.

    None if it is on a server.
    """
    if not is_ducklake(client):
        return duckdb_file(client)
    catalog = cast("Any", client).credentials.catalog
    if catalog.drivername not in LOCAL_CATALOGS:
        return None
    return str(Path(catalog.database).resolve())


def bound_lock_waits(credentials: Any) -> None:  # noqa: ANN401  of any destination
    """Let PostgreSQL end a statement that waits for a lock; ``Patience`` tries again.

    Args:
        credentials: dlt's credentials of a PostgreSQL, changed in place.
    """
    query = dict(credentials.query or {})
    options = str(query.get("options") or "")
    if LOCK_TIMEOUT not in options:
        query["options"] = f"{options} -c{LOCK_TIMEOUT}={LOCK_TIMEOUT_MS}".strip()
        credentials.query = query


def execute(client: SqlClientBase[Any], sql: str) -> Sequence[Sequence[Any]] | None:
    """Run a statement of ours on the tables of a client's dataset, in its dialect.

    Args:
        client: dlt's client.
        sql: A statement, written for PostgreSQL.

    Returns:
        The rows that it selects.
    """
    relations = map(client.make_qualified_table_name, NAMES_IN_SQL)
    dialect = client.capabilities.sqlglot_dialect
    said = in_dialect(sql, dialect, relations)
    return given(client, client.execute_sql(literally(client, said)))


def quoted_column(client: SqlClientBase[Any], name: str) -> str:
    """Return a column of ours, quoted for ``execute``."""
    return quote_name(client.capabilities.casefold_identifier(name))


def as_ours(client: SqlClientBase[Any], name: str) -> str:
    """Return the name of a column of ours that a database may have folded."""
    is_folded = client.capabilities.casefold_identifier is str.upper
    return name.lower() if is_folded else name


def columns_of(client: SqlClientBase[Any], table: str) -> list[str] | None:
    """Return the columns of a table of a dataset, None if it isn't there."""
    name = client.make_qualified_table_name(table)
    dialect = client.capabilities.sqlglot_dialect
    sql = in_dialect(f"SELECT * FROM {name} LIMIT 0", dialect, [name])  # noqa: S608  dlt's name of it
    try:
        with client.execute_query(literally(client, sql)) as cursor:
            return [as_ours(client, column) for column in names_of(cursor)]
    except DatabaseUndefinedRelation:
        return None
