"""dlt's pipeline to the destination: opened, checked, and its pending loads ended."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dlt
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination.exceptions import DestinationException
from dlt.destinations.exceptions import DatabaseException
from dlt.pipeline.exceptions import PipelineStepFailed
from filelock import FileLock, Timeout

from esms_source.database import duckdb_file, is_locked, wait_for_lock
from esms_source.exceptions import (
    ConfigError,
    DestinationError,
    EsmsError,
    PipelineBusyError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

KEEP_LOADED: Final = "load.delete_completed_jobs"


def open_pipeline(destination: str, dataset: str, name: str) -> dlt.Pipeline:
    """Return the pipeline of a destination, known by dlt's name for it.

    Raises:
        ConfigError: dlt doesn't know the destination, or an extra is missing.
    """
    try:
        pipeline = dlt.pipeline(name, destination=destination, dataset_name=dataset)
        pipeline.sql_client()
    except (ConfigurationException, DestinationException, ImportError) as exc:
        fact = f"the destination {destination!r} can't be opened: {first_line(exc)}"
        remedy = f"correct --destination or set {_credentials_of(destination)}"
        raise ConfigError(f"{fact}; {remedy}") from exc
    return pipeline


def check_destination(pipeline: dlt.Pipeline) -> None:
    """Refuse destinations that would lose or double rows, or fail half way.

    Raises:
        DestinationError: With the remedy.
    """
    if "merge" not in _dispositions(pipeline):
        fact = f"{pipeline.destination.destination_name} can't merge"
        raise DestinationError(f"{fact}; use a destination with SQL tables")
    path = duckdb_file(pipeline.sql_client())
    if path and Path(path).stem == pipeline.dataset_name:
        fact = (
            f"the dataset {pipeline.dataset_name!r} bears the name of its DuckDB file"
        )
        raise ConfigError(f"{fact}; choose another --dataset or another file")
    if path and not Path(path).parent.is_dir():
        fact = f"there is no folder {str(Path(path).parent)!r} for the DuckDB file"
        raise ConfigError(f"{fact}; make it or set DESTINATION__DUCKDB__CREDENTIALS")


def load_pending(pipeline: dlt.Pipeline) -> None:
    """Finish loads that an earlier run left behind."""
    while pipeline.has_pending_data:
        pipeline.normalize()
        load(pipeline)


def load(pipeline: dlt.Pipeline) -> None:
    """Load what is normalised; wait a little where a DuckDB file is held open."""
    # A loaded package would keep its files, for ever more of them.
    if dlt.config.get(KEEP_LOADED) is None:
        dlt.config[KEEP_LOADED] = True
    wait_for_lock(pipeline.load)()


@contextmanager
def alone(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Hold the pipeline for one run; the lock ends with the process.

    Raises:
        PipelineBusyError: Another run holds it.
    """
    folder = Path(pipeline.pipelines_dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{pipeline.pipeline_name}.esms.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as exc:
        fact = f"another run holds the pipeline {pipeline.pipeline_name!r}"
        raise PipelineBusyError(f"{fact}; wait for its end") from exc
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn dlt's errors into ours.

    Raises:
        EsmsError: The one that dlt had wrapped, or what dlt's own amounts to.
    """
    try:
        yield
    except PipelineStepFailed as exc:
        raise _unwrap(exc) from exc
    except (ConfigurationException, ImportError) as exc:
        raise ConfigError(
            f"the destination can't be opened: {first_line(exc)}"
        ) from exc
    except (DestinationException, DatabaseException) as exc:
        text = f"the destination can't be used: {first_line(exc)}"
        raise DestinationError(
            f"{text}; check its name, credentials and grants"
        ) from exc


def _credentials_of(destination: str) -> str:
    return f"DESTINATION__{destination.upper()}__CREDENTIALS"


def first_line(exc: BaseException) -> str:
    """Return the first line of an error's text, or its kind."""
    lines = str(exc).strip().splitlines()
    return lines[0].rstrip(".;:") if lines else type(exc).__name__


def _dispositions(pipeline: dlt.Pipeline) -> list[str]:
    capabilities = pipeline.destination.capabilities()
    merges = capabilities.supported_merge_strategies
    return ["append", *(["merge"] if merges else [])]


def _unwrap(exc: PipelineStepFailed) -> EsmsError:
    link: BaseException | None = exc
    last: BaseException = exc
    while link is not None:
        if isinstance(link, EsmsError):
            return link
        last, link = link, link.__cause__ or link.__context__
    if is_locked(exc):
        fact = "another process holds the destination's DuckDB file open"
        return DestinationError(f"{fact}; close it there and run again")
    return DestinationError(
        f"the {exc.step} step failed: {first_line(last)}; what was answered is kept"
        " and the next run loads it"
    )
