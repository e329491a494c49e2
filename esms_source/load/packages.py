"""dlt's load packages on this host: what has begun, and what is dropped."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from esms_source.tables import POLLED

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dlt
    from dlt.common.storages.load_package import LoadPackageInfo

UNTOUCHED: Final = "new_jobs"
"""dlt's state of a job that it hasn't begun."""

NAMES: Final = frozenset(table.name for table in POLLED)


def pending_packages(pipeline: dlt.Pipeline) -> Iterator[LoadPackageInfo]:
    """Yield what is extracted or normalized and not loaded."""
    for load_id in (
        *pipeline.list_extracted_load_packages(),
        *pipeline.list_normalized_load_packages(),
    ):
        yield pipeline.get_load_package_info(load_id)


def has_begun(package: LoadPackageInfo) -> bool:
    """Tell whether a package may have written something."""
    return any(jobs for state, jobs in package.jobs.items() if state != UNTOUCHED)


def drop(package: LoadPackageInfo) -> None:
    """Drop a package with its files."""
    shutil.rmtree(package.package_path, ignore_errors=True)


def files_of(package: LoadPackageInfo) -> dict[str, list[str]]:
    """Return the Parquet files of a package, by table of those that polling fills."""
    files: dict[str, list[str]] = {}
    for job in (job for jobs in package.jobs.values() for job in jobs):
        name = job.job_file_info.table_name
        if job.job_file_info.file_format == "parquet" and name in NAMES:
            files.setdefault(name, []).append(job.file_path)
    return files
