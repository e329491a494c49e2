"""Loads that an earlier run left behind: finished, or dropped where they can't be."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination.exceptions import DestinationException
from dlt.common.pipeline import PipelineContext
from dlt.common.storages.load_package import PackageStorage
from dlt.destinations.exceptions import DatabaseUndefinedRelation

from esms_source.databases import wait_for_lock
from esms_source.load.destination import use_own_staging
from esms_source.load.loader import can_skip_dedup, load
from esms_source.sql import moment_literal
from esms_source.tables import LOADS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dlt
    from dlt.common.storages.load_package import LoadJobInfo, LoadPackageInfo

COPIED: Final = "parquet"
SCHEMA: Final = "esms"


def load_pending(pipeline: dlt.Pipeline) -> None:
    """Finish loads that an earlier run left behind."""
    if pipeline.has_pending_data:
        _mend(pipeline)
    while pipeline.has_pending_data:
        load(pipeline)


def mend_active_pipeline() -> None:
    """Let dlt itself finish, in its ``run``, what a ``sync`` of ours left behind.

    A pipeline with loads of other sources is left alone. What can't be opened is for
    dlt to tell, once it runs.
    """
    context = Container()[PipelineContext]
    pipeline: Any = context.pipeline() if context.is_active() else None
    if pipeline is None or pipeline.destination is None:
        return
    packages = map(pipeline.get_load_package_info, _pending(pipeline))
    if any(package.schema_name != SCHEMA for package in packages):
        return
    with suppress(ConfigurationException, DestinationException, ImportError):
        use_own_staging(pipeline)
        if pipeline.has_pending_data:
            _mend(pipeline)


def _mend(pipeline: dlt.Pipeline) -> None:
    """Let dlt go on with pending loads without losing or doubling rows.

    They are dropped where another load completed since they were begun, as its
    answers are newer, and where dlt would stumble over them or their staging is
    gone; what they asked and nobody else did is due again.
    """
    drop = (_is_half_moved, _is_in_pieces, _is_overtaken)
    if any(must_go(pipeline) for must_go in drop):
        pipeline.abort_packages()
    if can_skip_dedup(pipeline):
        try:
            wait_for_lock(_empty_half_copied)(pipeline)
        except DatabaseUndefinedRelation:
            # The file is gone, or another one is in its place.
            pipeline.abort_packages()


def _is_half_moved(pipeline: dlt.Pipeline) -> bool:
    """Tell whether a run was killed just when dlt moved a load to its next folder."""
    extracted = pipeline.list_extracted_load_packages()
    return not set(extracted).isdisjoint(pipeline.list_normalized_load_packages())


def _is_in_pieces(pipeline: dlt.Pipeline) -> bool:
    """Tell whether a table came in several files and some of them are copied.

    dlt empties its staging before it copies the others.
    """
    for package in _normalized(pipeline):
        begun = [job.job_file_info.table_name for job in _copies(package, begun=True)]
        files = Counter(job.job_file_info.table_name for job in _copies(package))
        if any(files[table] > 1 for table in begun):
            return True
    return False


def _is_overtaken(pipeline: dlt.Pipeline) -> bool:
    """Tell whether any load completed since the oldest pending one was begun."""
    pending = _pending(pipeline)
    if not pending:
        return False
    # dlt makes load ids of the time.
    begun_at = datetime.fromtimestamp(float(min(pending)), timezone.utc)
    try:
        with pipeline.sql_client() as client:
            loads = client.make_qualified_table_name(LOADS)
            rows = client.execute_sql(
                f"SELECT count(*) FROM {loads}"
                f" WHERE schema_name = '{SCHEMA}'"
                f" AND inserted_at >= {moment_literal(begun_at)}"
            )
    except DatabaseUndefinedRelation:
        return False
    return bool(rows and rows[0][0])


def _empty_half_copied(pipeline: dlt.Pipeline) -> None:
    """Empty the staging of files that a killed run was copying.

    dlt copies them again, whether their rows are there already or not.
    """
    for package in _normalized(pipeline):
        done = Path(package.package_path, PackageStorage.PENDING_TRANSITIONS_FOLDER)
        names = {path.name for path in done.iterdir()} if done.is_dir() else ()
        started = [
            job
            for job in _copies(package, begun=True)
            if job.state == PackageStorage.STARTED_JOBS_FOLDER
            and Path(job.file_path).name not in names
        ]
        if started:
            with pipeline.sql_client() as client, client.with_staging_dataset():
                for job in started:
                    table = client.make_qualified_table_name(
                        job.job_file_info.table_name
                    )
                    client.execute_sql(f"DELETE FROM {table}")


def _pending(pipeline: dlt.Pipeline) -> list[str]:
    return [
        *pipeline.list_extracted_load_packages(),
        *pipeline.list_normalized_load_packages(),
    ]


def _normalized(pipeline: dlt.Pipeline) -> Iterator[LoadPackageInfo]:
    for load_id in pipeline.list_normalized_load_packages():
        yield pipeline.get_load_package_info(load_id)


def _copies(package: LoadPackageInfo, *, begun: bool = False) -> list[LoadJobInfo]:
    """Return the jobs that copy files into staging; begun ones, or all."""
    return [
        job
        for state, jobs in package.jobs.items()
        for job in jobs
        if job.job_file_info.file_format == COPIED
        and not (begun and state == PackageStorage.NEW_JOBS_FOLDER)
    ]
