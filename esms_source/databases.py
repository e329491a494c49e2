"""What all databases have in common: held files, drivers' errors, installs."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final

import duckdb
import tenacity
from dlt.common.exceptions import MissingDependencyException
from dlt.destinations.exceptions import (
    DatabaseException,
    DestinationConnectionError,
)

from esms_source.exceptions import DestinationError, EsmsError, causes
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlt.destinations.sql_client import SqlClientBase

LOCK_PATIENCE_SECONDS: Final = 15.0
"""How long to wait for a DuckDB file that another process holds open."""

ReadError: Final = (duckdb.Error, DatabaseException, DestinationConnectionError)
"""What reading a database may raise."""

_SERVER_IS_SHORT: Final = {"53100": "has a full disk", "53200": "is out of memory"}
"""PostgreSQL's SQLSTATEs of class 53, "insufficient resources"."""

_DISK_IS_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

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
    if is_locked(exc):
        fact = "another process holds the DuckDB file open"
        return error(f"{what}: {fact}", "close it there and run again")
    for link in causes(exc):
        if shortage := _shortage(link):
            return error(f"{what}: {shortage[0]}", shortage[1])
    return error(f"{what}: {first_line(exc)}", remedy)


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
        raise explain(exc, what, remedy, error) from exc


wait_for_lock: Final = tenacity.retry(
    retry=tenacity.retry_if_exception(is_locked),
    wait=tenacity.wait_random_exponential(0.1, max=1.0),
    stop=tenacity.stop_after_delay(LOCK_PATIENCE_SECONDS),
    reraise=True,
)
"""Call a function again while another process holds a DuckDB file open."""


def installing(destination: str) -> str:
    """Return the command that installs what a destination of dlt needs."""
    extra = destination.rpartition(".")[2]
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
