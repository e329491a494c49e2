"""Dagster: tables, views and report as assets, with checks, a schedule and a pool.

Set PIPELINES_DIR to a folder that outlives runs and workers: what a failed load
left pending, answered and paid for, is loaded from there. Other settings come from
the environment or .dlt, as everywhere.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import dagster as dg
import dlt
from pydantic import Field

from esms_source import Report, sync
from esms_source.config import resolve_settings
from esms_source.config.providers import settings_of
from esms_source.exceptions import ConfigError, CredentialsError, RefIdTableError
from esms_source.report import write_report
from esms_source.tables import (
    CALLBACKS,
    LOADS,
    POLLED,
    REF_IDS,
    RUNS,
    TABLES,
    Table,
)
from esms_source.views import DIALECTS, NAMES, View, read_view

DESTINATION: Final = "duckdb"
DATASET: Final = "zalo"
WAREHOUSE: Final = dg.AssetKey(["warehouse", "zns_messages"])
"""The table of RefIds, as it is called where your other assets are."""

REPORT: Final = Path("esms-report.html")

FRESH: Final = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=2), warn_window=timedelta(hours=1)
)
"""Of what the schedule makes anew every quarter of an hour."""

POOL: Final = "esms"
"""Give it one slot: runs and checks take turns, as a DuckDB file wants."""

OVERDUE_AFTER: Final = timedelta(hours=24)
MAX_UNKNOWN_SHARE: Final = 0.01
"""Of the error codes of the last day, those that ``error_codes`` doesn't have."""

ROWS: Final = "SELECT count(*) FROM {table}"
BACKLOG: Final = "SELECT count(*) FROM {ref_ids} WHERE next_poll_at IS NOT NULL"

# Rows of the ledger move on to later loads: only those of the newest are all there.
DISAGREEING_LOADS: Final = """
    SELECT count(*) FROM (
        SELECT load_id, sum(asked) AS asked FROM {api_requests}
        WHERE outcome <> 'split' AND coalesce(endpoint, 'callback') = 'callback'
        AND load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
        GROUP BY load_id
    ) AS requests LEFT JOIN (
        SELECT load_id, count(*) AS ref_ids FROM {ref_ids} GROUP BY load_id
    ) AS ledger ON ledger.load_id = requests.load_id
    WHERE coalesce(ledger.ref_ids, 0) > asked
    OR (coalesce(ledger.ref_ids, 0) <> asked AND requests.load_id = (
        SELECT max(load_id) FROM {api_requests}
    ))
"""
ODD_REQUESTS: Final = """
    SELECT count(*) FROM {api_requests} WHERE asked <> answered + missing + failed
"""
OVERDUE: Final = """
    SELECT count(*) FROM {ref_ids}
    WHERE next_poll_at < CAST('{since}' AS TIMESTAMP WITH TIME ZONE)
"""
UNANSWERED: Final = "SELECT count(*) FROM {ref_ids} WHERE state = 'failed'"
LATE_CODES: Final = """
    FROM {callbacks} AS rows LEFT JOIN (
        SELECT DISTINCT code FROM {error_codes}
    ) AS known ON known.code = rows.error_code
    WHERE rows.error_code IS NOT NULL
    AND rows.polled_at >= CAST('{since}' AS TIMESTAMP WITH TIME ZONE)
"""
CODES: Final = f"SELECT count(*), count(*) - count(known.code) {LATE_CODES}"
MOST_CODES: Final = 20
UNKNOWN_CODES: Final = f"""
    SELECT rows.error_code, count(*) {LATE_CODES} AND known.code IS NULL
    GROUP BY rows.error_code ORDER BY count(*) DESC, rows.error_code LIMIT {MOST_CODES}
"""
COLUMNS: Final = """
    SELECT table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema = %s ORDER BY table_name, ordinal_position
"""
CHARGED_FAILURES: Final = """
    SELECT count(*), coalesce(sum(total_price), 0) FROM {callbacks}
    WHERE delivery = 'failed' AND total_price > 0
    AND load_id IN (SELECT load_id FROM {_dlt_loads} WHERE status = 0)
"""


class Choice(dg.Config):
    """What a run is limited to; as it stands, to what is due."""

    oa_ids: list[str] = Field(default=[], description="Only these OAs.")
    repoll: list[str] = Field(
        default=[],
        description="Ask RefIds in these states again, settled or not, only them.",
    )
    since: str | None = Field(
        default=None, description="With repoll: sent from then on, such as 2026-11-01."
    )
    until: str | None = Field(
        default=None, description="With repoll: sent before then."
    )
    max_ref_ids: int | None = Field(
        default=None, ge=0, description="Ask at most so many, oldest first."
    )


def _key(name: str) -> dg.AssetKey:
    return dg.AssetKey([DATASET, name])


WRITTEN: Final = (*TABLES, RUNS)
VIEWS: Final = tuple(map(read_view, NAMES))
READABLE: Final = (*(table.name for table in WRITTEN), *NAMES)


def _table_asset(table: Table) -> dg.AssetSpec:
    columns = [
        dg.TableColumn(column.name, str(column.type), column.description)
        for column in table.columns
    ]
    return dg.AssetSpec(
        _key(table.name),
        deps=[WAREHOUSE] if table in POLLED else [],
        description=table.description,
        kinds={"dlt", DESTINATION},
        metadata={"dagster/column_schema": dg.TableSchema(columns)},
        freshness_policy=FRESH if table in (REF_IDS, CALLBACKS) else None,
    )


def _view_asset(view: View) -> dg.AssetSpec:
    named = set(re.findall(r"\{(\w+)\}", view.sql))
    return dg.AssetSpec(
        _key(view.name),
        deps=[_key(name) for name in READABLE if name in named],
        description=view.description,
        kinds={"view", DESTINATION},
        skippable=True,  # made on DuckDB and PostgreSQL only
    )


@dg.multi_asset(
    name="esms",
    group_name="esms",
    specs=[*map(_table_asset, WRITTEN), *map(_view_asset, VIEWS)],
    pool=POOL,
    # A busy pipeline, an outage or a locked file pass; nothing that was answered is
    # asked again, as a retry first loads what the failed try left pending.
    retry_policy=dg.RetryPolicy(max_retries=4, delay=300),
)
def esms_tables(config: Choice) -> Iterator[dg.MaterializeResult[None]]:
    """Load all callbacks of Zalo messages that are due."""
    try:
        report = sync(
            _pipeline(),
            oa_ids=config.oa_ids,
            repoll=config.repoll,
            since=_moment(config.since),
            until=_moment(config.until),
            max_ref_ids=config.max_ref_ids,
        )
    except (ConfigError, CredentialsError, RefIdTableError) as exc:
        # For somebody to fix: another try would meet it too.
        raise dg.Failure(str(exc), allow_retries=False) from exc
    for table in WRITTEN:
        metadata = {"dagster/row_count": _numbers(ROWS, table=table)[0]}
        if table is REF_IDS:
            metadata |= _figures(report) | {"backlog": _numbers(BACKLOG)[0]}
        yield dg.MaterializeResult(asset_key=_key(table.name), metadata=metadata)
    yield from _views()


def _views() -> Iterator[dg.MaterializeResult[None]]:
    """Tell of each view that is there, with its columns as they came out."""
    with _pipeline().sql_client() as client:
        if client.capabilities.sqlglot_dialect not in DIALECTS:
            return
        rows = client.execute_sql(COLUMNS, client.dataset_name) or ()
    for view in VIEWS:
        columns = [
            dg.TableColumn(name, kind, view.columns.get(name))
            for relation, name, kind in rows
            if relation == view.name
        ]
        if columns:
            schema = {"dagster/column_schema": dg.TableSchema(columns)}
            yield dg.MaterializeResult(asset_key=_key(view.name), metadata=schema)


def _figures(report: Report) -> dict[str, Any]:
    seconds = report.seconds.get("ask")
    return {
        **{
            name: value
            for name, value in report.to_dict().items()
            if isinstance(value, int)
        },
        "requests_per_second": report.attempts / seconds if seconds else 0.0,
        "problems": dict(report.problems),
    }


@dg.asset(
    name="report",
    key_prefix=DATASET,
    group_name="esms",
    deps=[
        *(_key(name) for name in ("ref_ids", "callbacks", "oas", "templates")),
        *(_key(name) for name in ("run_history", "backlog")),
    ],
    kinds={"html"},
    pool=POOL,
    freshness_policy=FRESH,
)
def esms_report() -> dg.MaterializeResult[None]:
    """Write the page of the delivery figures: one HTML file."""
    pipeline = _pipeline()
    with settings_of(pipeline.pipeline_name):
        page = write_report(pipeline, resolve_settings(), REPORT)
    size = page.stat().st_size
    metadata = {"path": dg.MetadataValue.path(str(page)), "bytes": size}
    return dg.MaterializeResult(metadata=metadata)


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "sums_agree",
            asset=_key(REF_IDS.name),
            description="The requests of each load add up to the ledger's rows.",
        ),
        dg.AssetCheckSpec(
            "nothing_overdue",
            asset=_key(REF_IDS.name),
            description=f"Nothing is due for longer than {OVERDUE_AFTER}.",
        ),
        dg.AssetCheckSpec(
            "all_answered",
            asset=_key(REF_IDS.name),
            description="Every RefId that was asked has a usable answer.",
        ),
        dg.AssetCheckSpec(
            "codes_known",
            asset=_key(CALLBACKS.name),
            description=f"At most {MAX_UNKNOWN_SHARE:.0%} of the last day's error codes"
            " are unknown.",
        ),
        dg.AssetCheckSpec(
            "failures_are_free",
            asset=_key(CALLBACKS.name),
            description="eSMS charges what was delivered: no failure has a price.",
        ),
    ],
    pool=POOL,
)
def esms_checks() -> Iterator[dg.AssetCheckResult]:
    """Tell whether the tables agree, and whether runs keep up."""
    now = datetime.now(timezone.utc)
    loads, requests = _numbers(DISAGREEING_LOADS)[0], _numbers(ODD_REQUESTS)[0]
    yield _result(
        REF_IDS, "sums_agree", passed=not loads + requests, loads=loads, odd=requests
    )
    overdue = _numbers(OVERDUE, since=now - OVERDUE_AFTER)[0]
    yield _result(REF_IDS, "nothing_overdue", passed=not overdue, ref_ids=overdue)
    failed = _numbers(UNANSWERED)[0]
    yield _result(REF_IDS, "all_answered", passed=not failed, ref_ids=failed)
    codes, unknown = _numbers(CODES, since=now - timedelta(days=1))
    share = unknown / codes if codes else 0.0
    counts = _rows(UNKNOWN_CODES, since=now - timedelta(days=1)) if unknown else []
    yield _result(
        *(CALLBACKS, "codes_known"),
        passed=share <= MAX_UNKNOWN_SHARE,
        share=share,
        unknown={str(code): messages for code, messages in counts},
    )
    charged, price = _numbers(CHARGED_FAILURES)
    yield _result(
        *(CALLBACKS, "failures_are_free"),
        passed=not charged,
        messages=charged,
        vnd=float(price),
    )


def _result(
    table: Table, name: str, *, passed: bool, **metadata: float | dict[str, int]
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=_key(table.name), check_name=name, passed=passed, metadata=metadata
    )


def _pipeline() -> dlt.Pipeline:
    return dlt.pipeline("esms", destination=DESTINATION, dataset_name=DATASET)


def _numbers(
    sql: str, *, table: Table = REF_IDS, since: datetime | None = None
) -> tuple[int, ...]:
    """Return the one row of a query, as ``_rows`` takes it."""
    rows = _rows(sql, table=table, since=since)
    return tuple(rows[0]) if rows else ()


def _rows(
    sql: str, *, table: Table = REF_IDS, since: datetime | None = None
) -> list[Any]:
    """Return the rows of a query, whose placeholders are names of tables."""
    with _pipeline().sql_client() as client:
        tables = (*(t.name for t in WRITTEN), LOADS)
        names = {name: client.make_qualified_table_name(name) for name in tables}
        rows = client.execute_sql(
            sql.format(**names, table=names[table.name], since=since)
        )
    return list(rows or ())


def _moment(text: str | None) -> datetime | None:
    """Read a time; one that names no zone is in UTC."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


esms_schedule = dg.ScheduleDefinition(
    name="esms_schedule",
    target=dg.AssetSelection.assets(esms_tables, esms_report),
    cron_schedule="*/15 * * * *",
)

defs = dg.Definitions(
    assets=[
        dg.AssetSpec(WAREHOUSE, description="The table that names the RefIds."),
        esms_tables,
        esms_report,
    ],
    asset_checks=[esms_checks],
    schedules=[esms_schedule],
)
