"""One run of a pipeline at a time, and one loader of a dataset at a time."""

from __future__ import annotations

import os
from contextlib import contextmanager
from errno import ELOOP
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout

from esms_source.databases import HeldError, is_ducklake, local_file
from esms_source.databases.alchemy import is_alchemy
from esms_source.exceptions import ConfigError, PipelineBusyError
from esms_source.load.alchemy import holding
from esms_source.load.destination import is_postgres, reaching
from esms_source.runtime import keep_private

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.databases import Patience

MEMORY_SETTING: Final = "memory_limit"
THREADS_SETTING: Final = "threads"
DUCKDB_MEMORY: Final = "96MB"
"""What DuckDB may take for a load; what needs more goes to a temporary file."""

MOST_DUCKDB_MEMORY: Final = "384MB"
"""The same once that wasn't enough: values of megabytes go to no file."""


@contextmanager
def pipeline_lock(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Hold the pipeline for one run; the lock ends with the process.

    Raises:
        PipelineBusyError: Another run holds it.
        ConfigError: Its lock file can't be used.
    """
    folder = Path(pipeline.pipelines_dir)
    path = folder / f"{pipeline.pipeline_name}.esms.lock"
    remedy = "let this user own it, or name another PIPELINES_DIR"
    try:
        with _using(path, remedy):
            folder.mkdir(parents=True, exist_ok=True)
            keep_private(Path(pipeline.working_dir))
        lock = _lock_file(path, remedy)
    except Timeout as exc:
        fact = f"another run holds the pipeline {pipeline.pipeline_name!r}"
        raise PipelineBusyError(fact, "wait for its end") from exc
    try:
        yield
    finally:
        lock.release()


def _lock_file(path: Path, remedy: str) -> FileLock:
    """Acquire a lock file.

    Raises:
        Timeout: Another run holds it.
        ConfigError: It can't be used.
    """
    lock = FileLock(path, timeout=0)
    with _using(path, remedy):
        # filelock follows a link where the system can't tell it not to.
        if path.is_symlink():
            raise OSError(ELOOP, os.strerror(ELOOP))
        lock.acquire()
    return lock


@contextmanager
def _using(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        fact = f"the lock file {str(path)!r} can't be used ({reason})"
        raise ConfigError(fact, remedy) from None


@contextmanager
def dataset_lock(pipeline: dlt.Pipeline, patience: Patience) -> Iterator[bool]:
    """Keep other runs of ours from making and filling the tables of a dataset.

    Otherwise they would make the same ones at once, and deadlock over them. In
    PostgreSQL it is an advisory lock, with DuckDB the file itself, held open, with
    DuckLake a file beside that of its catalog: all end with the process; for
    SQLAlchemy's databases see ``alchemy.holding``. Yields whether
    the destination has such a lock.

    Raises:
        PipelineBusyError: Somebody else holds it for longer than ``patience``.
        DestinationError: PostgreSQL can't be reached.
        DatabaseException: The file can't be opened.
    """
    client: Any = pipeline.sql_client()
    path = local_file(client)
    if path and is_ducklake(client):
        # DuckDB opens its catalog once in a process, and dlt must be able to.
        lock = patience(partial(_lock_catalog, Path(f"{path}.esms.lock")))
        try:
            yield True
        finally:
            lock.release()
        return
    if is_alchemy(client):
        with holding(client, patience):
            yield True
        return
    if is_postgres(client):
        opening, take = partial(_connect, client), _take_advisory_lock
    elif path:
        opening, take = client.open_connection, _bound_memory
    else:
        yield False
        return
    patience(opening)
    try:
        patience(lambda: take(client))
        yield True
    finally:
        client.close_connection()


def _lock_catalog(path: Path) -> FileLock:
    try:
        return _lock_file(path, "let this user own it, or move the catalog")
    except Timeout as exc:
        raise HeldError(f"another loader holds {path.name}") from exc


def _connect(client: Any) -> None:  # noqa: ANN401  PostgreSQL's client
    with reaching(client):
        client.open_connection()


def _take_advisory_lock(client: SqlClientBase[Any]) -> None:
    sql = "SELECT pg_try_advisory_lock(hashtext(%s))"
    rows = client.execute_sql(sql, f"esms {client.dataset_name}")
    if not (rows and rows[0][0]):
        raise HeldError(f"another loader holds the dataset {client.dataset_name!r}")


def _bound_memory(client: Any, most: str = DUCKDB_MEMORY) -> None:  # noqa: ANN401
    """Keep DuckDB from taking most of the machine, unless it was told how much.

    The bounds last for as long as any connection to the file is open. dlt loads tables
    in threads of its own: more of DuckDB's for each only wait for each other.
    """
    told = client.credentials.global_config or ()
    for setting, bound in ((MEMORY_SETTING, f"'{most}'"), (THREADS_SETTING, "1")):
        if setting not in told:
            client.execute_sql(f"SET {setting} = {bound}")


def give_memory(pipeline: dlt.Pipeline) -> None:
    """Let DuckDB take more, while ``dataset_lock`` holds its file open."""
    with pipeline.sql_client() as client:
        _bound_memory(client, MOST_DUCKDB_MEMORY)
