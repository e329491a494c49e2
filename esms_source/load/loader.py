"""Loads into the destination: alone, in turn, within bounds, and never in the way."""

from __future__ import annotations

import gc
import os
import shutil
from contextlib import ExitStack, contextmanager, suppress
from errno import ELOOP
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import tenacity
from dlt.common.destination.exceptions import DestinationTerminalException
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock, Timeout

from esms_source.databases import ReadError, duckdb_file, wait_for_lock
from esms_source.exceptions import (
    ConfigError,
    DestinationError,
    PipelineBusyError,
    causes,
)
from esms_source.load.destination import innermost, on_postgres
from esms_source.runtime import keep_private

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dlt
    from dlt.common.pipeline import LoadInfo

TURN_POLL_SECONDS: Final = 0.1

MEMORY_LIMIT: Final = "memory_limit"
DUCKDB_MEMORY: Final = "96MB"
"""What DuckDB may take for a load; what needs more goes to a temporary file."""

HOPELESS: Final = (
    DestinationTerminalException,
    duckdb.InvalidInputException,
    pa.ArrowInvalid,
)
"""Why trying a load again can't help: it was refused, or its files are damaged."""


@contextmanager
def pipeline_lock(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Hold the pipeline for one run; the lock ends with the process.

    Raises:
        PipelineBusyError: Another run holds it.
        ConfigError: Its lock file can't be used.
    """
    folder = Path(pipeline.pipelines_dir)
    path = folder / f"{pipeline.pipeline_name}.esms.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        keep_private(Path(pipeline.working_dir))
        # filelock follows a link where the system can't tell it not to.
        reason = os.strerror(ELOOP) if path.is_symlink() else ""
        lock = FileLock(path, timeout=0)
        if not reason:
            lock.acquire()
    except Timeout as exc:
        fact = f"another run holds the pipeline {pipeline.pipeline_name!r}"
        raise PipelineBusyError(fact, "wait for its end") from exc
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
    if reason:
        fact = f"the lock file {str(path)!r} can't be used ({reason})"
        remedy = "let this user own it, or name another PIPELINES_DIR"
        raise ConfigError(fact, remedy)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def leaving_signals(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Keep dlt from holding signals back, and then forgetting them, in a load."""
    config = pipeline.runtime_config
    before = config.intercept_signals
    config.intercept_signals = False
    try:
        yield
    finally:
        config.intercept_signals = before


def load(pipeline: dlt.Pipeline) -> None:
    """Load what is extracted; wait a little where a DuckDB file is held open.

    Raises:
        DestinationError: The destination refuses the load for good. It is
            dropped, so that it blocks no later run; its RefIds are due again.
        PipelineStepFailed: It failed otherwise; the next run tries it again.
    """
    try:
        pipeline.normalize()
        # What asking held is needed by the destination now.
        pa.default_memory_pool().release_unused()
        with dataset_lock(pipeline):
            info = wait_for_lock(_load_in_bounds)(pipeline)
        _drop_files(info)
    except PipelineStepFailed as exc:
        if not any(isinstance(link, HOPELESS) for link in causes(exc)):
            raise
        pipeline.abort_packages()
        fact = f"the destination refuses the load: {innermost(exc)}"
        remedy = "correct its tables; the load's RefIds are due again"
        raise DestinationError(fact, remedy) from exc
    # dlt leaves some megabytes of it a load; the next slice needs them.
    gc.collect()


def _drop_files(info: LoadInfo) -> None:
    """Drop the files of loads that completed: dlt keeps them all."""
    for package in info.load_packages:
        if package.state == "loaded":
            shutil.rmtree(package.package_path, ignore_errors=True)


def _load_in_bounds(pipeline: dlt.Pipeline) -> LoadInfo:
    """Load; keep DuckDB from taking most of the machine, unless it was told how much.

    The bound lasts for as long as any connection to the file is open.
    """
    client: Any = pipeline.sql_client()
    is_bound = duckdb_file(client) is None or MEMORY_LIMIT in (
        client.credentials.global_config or ()
    )
    with ExitStack() as stack:
        if not is_bound:
            # What can't be opened is for dlt to tell.
            with suppress(*ReadError):
                stack.enter_context(client)
                client.execute_sql(f"SET {MEMORY_LIMIT} = '{DUCKDB_MEMORY}'")
        return pipeline.load()


def can_skip_dedup(pipeline: dlt.Pipeline) -> bool:
    """Tell whether loads needn't look for rows that came to staging twice.

    In a DuckDB file only a kill can leave open whether rows came, and
    ``load_pending`` mends that; a connection to a server may break at any time.
    """
    return duckdb_file(pipeline.sql_client()) is not None


@contextmanager
def dataset_lock(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Let workers of one PostgreSQL dataset make and fill tables one after another.

    Otherwise they would make the same ones at once, and deadlock over them. The
    turn ends with its connection, also where the process is killed.

    Raises:
        DestinationError: The server can't be reached; the next run loads.
    """
    taking = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda taken: not taken),
        wait=tenacity.wait_fixed(TURN_POLL_SECONDS),
    )
    with on_postgres(pipeline) as client:

        def take() -> bool:
            sql = "SELECT pg_try_advisory_lock(hashtext(%s))"
            rows = client and client.execute_sql(sql, f"esms {pipeline.dataset_name}")
            return not client or bool(rows and rows[0][0])

        taking(take)
        yield
