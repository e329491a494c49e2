"""Airflow 3.3: a DAG that fails a task for each thing to alert on.

Copy esms_alerts.py beside it. Whom Airflow tells of a failed task is your setting:
``on_failure_callback``, or a listener.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import dag, task
from esms_alerts import ALERTS, wrong


@task(retries=3, retry_delay=timedelta(minutes=2))
def quiet(alert: str) -> None:
    """Fail where an alert finds something."""
    if rows := wrong(alert):
        raise RuntimeError(f"{alert}: {rows}")


@dag(
    schedule="7 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_tasks=1,  # as a DuckDB file wants
    tags=["esms"],
)
def esms_alerts() -> None:
    """Watch the tables, an alert a task."""
    for alert in ALERTS:
        quiet.override(task_id=alert)(alert)


esms_alerts()
