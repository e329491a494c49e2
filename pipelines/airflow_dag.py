"""Airflow 3.3: two DAGs to choose from, `esms` and `esms_per_oa`; unpause one.

`esms` loads all callbacks that are due in one task, `esms_per_oa` in one mapped
task per OA of the Airflow variable `esms_oa_ids` (a JSON list).

Set PIPELINES_DIR to a folder that outlives tasks and workers: what a failed load
left pending, answered and paid for, is loaded from there. Other settings come from
the environment or .dlt, as everywhere.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import (
    Asset,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    Variable,
    dag,
    get_current_context,
    task,
)

from esms_source.exceptions import ConfigError, CredentialsError, RefIdTableError
from esms_source.tables import RUNS, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

DESTINATION: Final = "duckdb"
DATASET: Final = "zalo"
ASSETS: Final = [
    Asset(name=f"esms_{table.name}", uri=f"esms://{DATASET}/{table.name}")
    for table in (*TABLES, RUNS)
]

OAS_AT_ONCE: Final = 1
"""Mapped tasks under way at once: 1, as a DuckDB file takes one writer.

With a server for a destination it may be more, once ``rate_limit_store`` names the
budget that they share.
"""

FOR_SOMEBODY_TO_FIX: Final = [ConfigError, CredentialsError, RefIdTableError]

SCHEDULE: Final = "*/15 * * * *"
COMMON: Final = {
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "max_active_runs": 1,
    "tags": ["esms"],
    "params": {
        "repoll": Param(
            [],
            type="array",
            examples=["final", "pending", "missing", "failed", "expired"],
            description="Ask RefIds in these states again, settled or not, only them.",
        ),
        "since": Param(
            None,
            type=["null", "string"],
            format="date-time",
            description="With repoll: sent from then on.",
        ),
        "until": Param(
            None,
            type=["null", "string"],
            format="date-time",
            description="With repoll: sent before then.",
        ),
        "max_ref_ids": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            description="Ask at most so many per task, oldest first.",
        ),
    },
}


@task(
    outlets=ASSETS,
    # A busy pipeline, an outage or a locked file pass; nothing that was answered is
    # asked again, as a retry first loads what the failed try left pending.
    retries=4,
    retry_delay=timedelta(minutes=5),
    retry_policy=ExceptionRetryPolicy(
        [RetryRule(FOR_SOMEBODY_TO_FIX, RetryAction.FAIL)]
    ),
    max_active_tis_per_dag=OAS_AT_ONCE,
)
def load(oa_ids: list[str]) -> dict[str, Any]:
    """Load what is due, of these OAs or of all, and return the report."""
    # The scheduler reads this file again and again: what is slow to import waits.
    import dlt  # noqa: PLC0415

    from esms_source import sync  # noqa: PLC0415

    params = get_current_context()["params"]
    pipeline = dlt.pipeline(
        # A pipeline takes one run at a time: OAs side by side have one each.
        "_".join(["esms", *oa_ids]),
        destination=DESTINATION,
        dataset_name=DATASET,
    )
    report = sync(
        pipeline,
        oa_ids=oa_ids,
        repoll=params["repoll"],
        since=_moment(params["since"]),
        until=_moment(params["until"]),
        max_ref_ids=params["max_ref_ids"],
    )
    return report.to_dict()


@task
def confirm(reports: Iterable[dict[str, Any]]) -> None:
    """Fail where RefIds failed, for somebody to see: they stay due by themselves."""
    problems = [report["problems"] for report in reports if report["failed"]]
    if problems:
        raise RuntimeError(f"RefIds failed, with how many: {problems}")


@task
def one_oa_each() -> list[list[str]]:
    """List the OAs, each for a task of its own."""
    return [[oa_id] for oa_id in Variable.get("esms_oa_ids", deserialize_json=True)]


@dag(schedule=SCHEDULE, **COMMON)
def esms() -> None:
    """Load all callbacks of Zalo messages that are due."""
    confirm([load([])])


@dag(schedule=SCHEDULE, **COMMON)
def esms_per_oa() -> None:
    """Load the callbacks that are due, with a task per OA."""
    confirm(load.expand(oa_ids=one_oa_each()))


def _moment(text: str | None) -> datetime | None:
    """Read a time; one that names no zone is in UTC."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


esms()
esms_per_oa()
