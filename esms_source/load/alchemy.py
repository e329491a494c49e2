"""MySQL, MariaDB and SQLite as destinations: locks, and what must be there."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout

from esms_source.databases import HeldError, is_busy
from esms_source.databases.alchemy import (
    MYSQL,
    SQLITE,
    alchemy_errors,
    dialect_of,
    given,
    is_alchemy,
    sqlite_file,
)
from esms_source.exceptions import ConfigError, DestinationError
from esms_source.load.destination import digest, reaching

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dlt

    from esms_source.databases import Patience

CHARACTER_SET: Final = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
RIGHTS: Final = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, CREATE VIEW, SHOW VIEW"
)


def check_alchemy(client: Any) -> None:  # noqa: ANN401  any client of dlt
    """Refuse what dlt reaches through SQLAlchemy and nobody tried, or can't be a file.

    Raises:
        ConfigError: It is another database, or SQLite's file can't be there.
        DestinationError: The file can't be written to.
    """
    if not is_alchemy(client):
        return
    dialect = dialect_of(client)
    if dialect not in (*MYSQL, SQLITE):
        fact = (
            f"{dialect} through SQLAlchemy: only MySQL, MariaDB and SQLite were tried"
        )
        raise ConfigError(fact, "name dlt's own destination for it, or one of them")
    path = sqlite_file(client)
    if path is None:
        return
    setting = "DESTINATION__SQLALCHEMY__CREDENTIALS"
    if client.credentials.database in ("", ":memory:") or client.credentials.query:
        fact = f"{setting}: a SQLite database that is no plain file ends with the run"
        raise ConfigError(fact, "write sqlite:////folder/file.db")
    if not path.parent.is_dir():
        fact = f"there is no folder {str(path.parent)!r} for the SQLite file"
        raise ConfigError(fact, f"make it or set {setting}")
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            fact = f"{str(place)!r} can't be written to"
            raise DestinationError(fact, "let this user write there, or choose another")


def require_own(pipeline: dlt.Pipeline, client: Any) -> None:  # noqa: ANN401  the same
    """Refuse a pipeline of plain dlt, which writes JSON into SQLAlchemy's as a text.

    Raises:
        DestinationError: With the remedy.
    """
    if is_alchemy(client) and "type_mapper" not in pipeline.destination.caps_params:
        fact = "plain dlt would encode JSON twice on an SQLAlchemy destination"
        raise DestinationError(fact, "load by sync() or esms run")


def check_datasets(pipeline: dlt.Pipeline) -> None:
    """Refuse datasets in MySQL that don't hold every text.

    Raises:
        ConfigError: With the statement that changes it.
        DestinationError: The server can't be reached.
    """
    client: Any = pipeline.sql_client()
    if not is_alchemy(client) or dialect_of(client) == SQLITE:
        return
    with reaching(client), client:
        rows = client.execute_sql(
            "SELECT schema_name, default_character_set_name"
            " FROM information_schema.schemata WHERE schema_name IN (%s, %s)",
            *_datasets(client),
        )
    for name, characters in rows or ():
        if characters != "utf8mb4":
            fact = f"the database {name!r} is {characters}, which lacks most letters"
            remedy = f"ALTER DATABASE `{name}` {CHARACTER_SET}"
            raise ConfigError(fact, remedy)


def make_datasets(pipeline: dlt.Pipeline) -> None:
    """Make the datasets of MySQL, and try whether this user may do what a load does.

    Raises:
        DestinationError: With the grant that is missing.
    """
    client: Any = pipeline.sql_client()
    if not is_alchemy(client) or dialect_of(client) == SQLITE:
        return
    quote = client.escape_column_name
    with reaching(client), client:
        for dataset in _datasets(client):
            name = quote(dataset)
            probe = f"{name}.{quote(f'_esms_{uuid.uuid4().hex[:12]}')}"
            try:
                for statement in (
                    f"CREATE DATABASE IF NOT EXISTS {name} {CHARACTER_SET}",
                    f"CREATE TABLE {probe} (a INT)",
                    f"CREATE INDEX a ON {probe} (a)",
                    f"INSERT INTO {probe} VALUES (1)",
                    f"UPDATE {probe} SET a = 2",
                    f"DELETE FROM {probe}",
                    f"DROP TABLE {probe}",
                ):
                    client.execute_sql(statement)
            except Exception as exc:
                if is_busy(exc):
                    raise
                user = client.credentials.username
                fact = f"the user {user!r} may not load into the database {dataset!r}"
                remedy = f"GRANT {RIGHTS} ON {name}.* TO {user!r}, on a writable server"
                raise DestinationError(fact, remedy) from exc


def _datasets(client: Any) -> tuple[str, str]:  # noqa: ANN401  dlt's
    return client.dataset_name, client.staging_dataset_name


@contextmanager
def holding(client: Any, patience: Patience) -> Iterator[None]:  # noqa: ANN401  dlt's
    """Hold a dataset: in MySQL by a lock of the session, in SQLite by a file beside it.

    Both end with the process.

    Raises:
        PipelineBusyError: Another loader holds it for longer than ``patience``.
        DestinationError: The server can't be reached.
    """
    path = sqlite_file(client)
    if path is not None:
        lock = FileLock(f"{path}.lock", timeout=0)
        patience(lambda: _take_file(lock, client.dataset_name))
        try:
            yield
        finally:
            lock.release()
        return
    patience(lambda: _connect(client))
    name = f"esms {digest(client.dataset_name)}"
    try:
        patience(lambda: _take(client, name))
        try:
            yield
        finally:
            _release(client, name)
    finally:
        client.close_connection()


def _take_file(lock: FileLock, dataset: str) -> None:
    try:
        lock.acquire()
    except Timeout:
        raise _held(dataset) from None


def _connect(client: Any) -> None:  # noqa: ANN401  dlt's
    with reaching(client):
        client.open_connection()


def _take(client: Any, name: str) -> None:  # noqa: ANN401  dlt's
    # MySQL has such locks for all databases of a server.
    rows = given(client, client.execute_sql("SELECT GET_LOCK(%s, 0)", name))
    if not (rows and rows[0][0]):
        raise _held(client.dataset_name)


def _release(client: Any, name: str) -> None:  # noqa: ANN401  dlt's
    """Give the lock back: a pool may keep its connection. It ends with a broken one."""
    try:
        client.execute_sql("SELECT RELEASE_LOCK(%s)", name)
    except Exception as exc:
        from dlt.destinations.exceptions import DatabaseException  # noqa: PLC0415

        if not isinstance(exc, (DatabaseException, *alchemy_errors())):
            raise


def _held(dataset: str) -> HeldError:
    return HeldError(f"another loader holds the dataset {dataset!r}")
