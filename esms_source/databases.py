"""What all databases have in common: held files, drivers' errors, installs."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import tenacity
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    FieldLookupTraces,
    InvalidNativeValue,
    LookupTraces,
)
from dlt.common.configuration.specs import ConnectionStringCredentials
from dlt.common.configuration.specs.exceptions import NativeValueError
from dlt.common.exceptions import MissingDependencyException
from dlt.destinations.exceptions import (
    DatabaseException,
    DestinationConnectionError,
)
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.destinations.impl.postgres.configuration import PostgresCredentials

from esms_source.exceptions import ConfigError, DestinationError, EsmsError, causes
from esms_source.redaction import first_line, hide_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlt.destinations.sql_client import SqlClientBase

LOCK_PATIENCE_SECONDS: Final = 15.0
"""How long to wait for a DuckDB file that another process holds open."""

ReadError: Final = (duckdb.Error, DatabaseException, DestinationConnectionError)
"""What reading a database may raise."""

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
    text = first_line(exc)
    return error(f"{what}: {hide_names(text) if never_met(exc) else text}", remedy)


def never_met(exc: BaseException) -> bool:
    """Tell whether an error comes from connecting: it quotes the URL then.

    What a PostgreSQL server itself says has a code.
    """
    return any(
        getattr(link, name, "") is None
        for link in causes(exc)
        for name in ("pgcode", "sqlstate")
    )


def cause_of(exc: Exception) -> Exception | None:
    """Return what an error of ours may be raised from: nothing that quotes a URL."""
    return None if never_met(exc) else exc


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


URL_FORM: Final = (
    "write postgresql://user:password@host:port/database,"
    " with %40 for @, %25 for %, %5B for [ and %2F for / in the password"
)

POSTGRES_SCHEMES: Final = ("postgresql", "postgres")
_HOST: Final = re.compile(r"[\w.-]*|[\da-fA-F:.]+(%\w+)?")
_NO_FILE: Final = re.compile(r"://|:[^/]*@|\bpassword\W")
"""What connection strings have, and the path of a DuckDB file has not."""


def refuse_credentials(exc: Exception, what: str, name: str, remedy: str) -> EsmsError:
    """Return why a database can't be opened, without any part of its credentials.

    Args:
        exc: What dlt raised; it quotes them, or came from an error that does.
        what: What can't be opened.
        name: The setting that holds the credentials.
        remedy: What to do where the error itself doesn't tell.
    """
    if isinstance(exc, ConfigFieldMissingException):
        missing = list(_missing(exc.traces))
        if missing == ["password"]:
            fact = f"{what}: {name} holds no password, and dlt wants one"
            return ConfigError(fact, "write user:@host where the server asks for none")
        return ConfigError(f"{what}: {name} lacks {', '.join(missing)}", URL_FORM)
    if isinstance(exc, (InvalidNativeValue, NativeValueError)):
        return ConfigError(f"{what}: {name} isn't a connection URL", URL_FORM)
    return ConfigError(f"{what}: {first_line(exc)}", remedy)


def _missing(traces: FieldLookupTraces) -> Iterator[str]:
    """Yield the fields that dlt looked for in vain, those of credentials too."""
    for field, tried in traces.items():
        inner = [trace for trace in tried if isinstance(trace, LookupTraces)]
        for trace in inner:
            yield from _missing(trace.traces)
        if not inner:
            yield field


def check_credentials(credentials: object, name: str) -> None:
    """Refuse credentials that a driver would misread, and then quote.

    Args:
        credentials: dlt's, resolved.
        name: The setting that holds them.

    Raises:
        ConfigError: It names no part of them.
    """
    if not isinstance(credentials, ConnectionStringCredentials):
        return
    host, database = credentials.host or "", credentials.database or ""
    if isinstance(credentials, DuckDbCredentials):
        if host or credentials.drivername != "duckdb" or _NO_FILE.search(database):
            raise ConfigError(f"{name}: not the path of a DuckDB file", "correct it")
    elif isinstance(credentials, PostgresCredentials):
        if credentials.drivername not in POSTGRES_SCHEMES:
            fact = f"{name}: a URL with a scheme that PostgreSQL doesn't know"
            raise ConfigError(fact, "write postgresql://")
        texts = (credentials.username or "", database, host)
        odd = any("@" in text or not text.isprintable() for text in texts)
        if odd or not _HOST.fullmatch(host):
            raise ConfigError(f"{name}: not a URL of PostgreSQL", URL_FORM)
