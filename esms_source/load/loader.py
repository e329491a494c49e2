"""Loads what was extracted: in turn, and all of it that the destination takes."""

from __future__ import annotations

import gc
import os
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from dlt.pipeline.exceptions import PipelineStepFailed

from esms_source.databases import ReadError
from esms_source.exceptions import DestinationError
from esms_source.keeping import as_kept, jobs_once
from esms_source.load.errors import Failure, is_out_of_memory, read_failure
from esms_source.load.locks import dataset_lock, give_memory
from esms_source.load.packages import drop, files_of, has_begun, pending_packages
from esms_source.load.parts import Parts, read_files, refused_by
from esms_source.load.scope import note
from esms_source.load.sweep import sweep
from esms_source.tables import CALLBACKS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import dlt
    from dlt.common.pipeline import LoadInfo
    from dlt.extract import DltSource

    from esms_source.config import Settings
    from esms_source.databases import Patience
    from esms_source.load.parts import MakeSource, Tables
    from esms_source.runtime import Counts

LOAD_ERRORS: Final = (PipelineStepFailed, *ReadError)


NEEDLESS: Final = (
    "Delete operation did not",  # of an empty Iceberg table that is replaced
    "implicitly coercing SELECT object",  # of the merges that dlt 1.31 writes there
)
"""Warnings of pyiceberg and SQLAlchemy that nobody can do anything about."""


@contextmanager
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in NEEDLESS:
            warnings.filterwarnings("ignore", message=message)
        yield


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


class Loader:
    """Loads of one run into one destination.

    Args:
        pipeline: Where to load to.
        patience: How long to wait for who else holds it.
        settings: How long to wait before what was refused is asked again.
        make_source: Makes a source of tables; for parts of a refused load.
        counts: Corrected where the destination refuses what was answered.

    Attributes:
        loads: How many loads the destination held when the ledger was read, with
            those that were loaded here since.
    """

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        patience: Patience,
        settings: Settings,
        make_source: MakeSource,
        counts: Counts,
    ) -> None:
        self.loads = 0
        self._since: datetime | None = None
        self._pipeline = pipeline
        self._patience = patience
        self._table_format = settings.table_format
        self._kept = Path(pipeline.working_dir, "esms_kept")
        self._parts = Parts(settings, make_source, counts, self._load_part)

    def load(self, since: datetime | None = None) -> list[str]:
        """Load what is extracted; return the ids of the load packages.

        Where the destination refuses some callbacks, the others go without them.

        Args:
            since: When the oldest of its RefIds was first polled, as the ledger has it;
                None where nobody knows.

        Raises:
            DestinationError: The destination refuses for good, or can't take it now. A
                package that is refused or has begun binds nothing: its RefIds are due.
            PipelineBusyError: Somebody else holds it for too long.
        """
        self._since = since
        try:
            return self._load()
        except LOAD_ERRORS as exc:
            failure = self._judge(exc)
            tables = self._take_back() if failure.table == CALLBACKS.name else {}
            self._drop_all()
            if not tables:
                raise refused_by(failure) from exc
        return self._parts.load(tables, failure)

    def extract(self, source: DltSource) -> str:
        """Extract a source as its destination keeps it; return the load's id."""
        source = as_kept(source, self._pipeline, self._table_format)
        (load_id,) = self._pipeline.extract(source).loads_ids
        return load_id

    def _load(self) -> list[str]:
        self._keep_files()
        self._pipeline.normalize()
        # What asking held is needed by the destination now.
        pa.default_memory_pool().release_unused()
        with dataset_lock(self._pipeline, self._patience):
            load_ids = self._pipeline.list_normalized_load_packages()
            note(self._pipeline, load_ids, self.loads, self._since)
            info = self._patience(self._load_packages)
        self.loads += len(info.loads_ids)
        # dlt would keep their files.
        for package in info.load_packages:
            if package.state == "loaded":
                drop(package)
        shutil.rmtree(self._kept, ignore_errors=True)
        # dlt leaves some megabytes of it a load; the next slice needs them.
        gc.collect()
        return list(info.loads_ids)

    def _load_packages(self) -> LoadInfo:
        try:
            with _unwarned(), jobs_once(self._table_format):
                return self._pipeline.load()
        except LOAD_ERRORS as exc:
            if not is_out_of_memory(exc):
                raise
        give_memory(self._pipeline)
        return self._pipeline.load()

    def _load_part(self, source: DltSource) -> tuple[str, Failure | None]:
        """Load one part; return its id, and why it is refused, if it is.

        Raises:
            DestinationError: It can't be loaded now.
        """
        load_id = self.extract(source)
        try:
            self._load()
        except LOAD_ERRORS as exc:
            failure = self._judge(exc)
            self._drop_all()
            return load_id, failure
        return load_id, None

    def _keep_files(self) -> None:
        """Keep what was extracted until it is loaded: dlt may write it anew as text."""
        shutil.rmtree(self._kept, ignore_errors=True)
        self._kept.mkdir(parents=True)
        for package in pending_packages(self._pipeline):
            for name, paths in files_of(package).items():
                for number, path in enumerate(paths):
                    os.link(path, self._kept / f"{name}.{package.load_id}.{number}")

    def _take_back(self) -> Tables:
        """Return what was to be loaded, by table; nothing where files are damaged."""
        files: dict[str, list[str]] = {}
        for path in sorted(self._kept.iterdir()):
            files.setdefault(path.name.partition(".")[0], []).append(str(path))
        try:
            return read_files(files)
        except (pa.ArrowInvalid, OSError):
            return {}

    def _drop_all(self) -> None:
        for package in pending_packages(self._pipeline):
            drop(package)
        with dataset_lock(self._pipeline, self._patience) as is_locked:
            sweep(self._pipeline, locked=is_locked)

    def _judge(self, exc: Exception) -> Failure:
        """Return why a load is refused.

        Raises:
            DestinationError: It is not: another time it may be taken.
        """
        failure = read_failure(exc)
        if failure.refused:
            return failure
        begun = any(map(has_begun, pending_packages(self._pipeline)))
        outcome = "is due again" if begun else "is loaded by the next run"
        fact = f"the load step failed: {failure.said}"
        raise DestinationError(fact, f"what was asked {outcome}") from exc
