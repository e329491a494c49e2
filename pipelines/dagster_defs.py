"""Dagster: the tables as assets, with checks, a schedule and a pool.

Set PIPELINES_DIR to a folder that outlives runs and workers: what a failed load
left pending, answered and paid for, is loaded from there. Other settings come from
the environment or .dlt, as everywhere.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import dagster as dg
import dlt
from pydantic import Field

from esms_source import Report, sync
from esms_source.exceptions import ConfigError, CredentialsError, RefIdTableError
from esms_source.tables import CALLBACKS, LOADS, REF_IDS, TABLES, Table

DESTINATION: Final = "duckdb"
DATASET: Final = "zalo"

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
CODES: Final = """
    SELECT count(*), count(*) - count(known.code)
    FROM {callbacks} AS rows LEFT JOIN (
        SELECT DISTINCT code FROM {error_codes}
    ) AS known ON known.code = rows.error_code
    WHERE rows.error_code IS NOT NULL
    AND rows.polled_at >= CAST('{since}' AS TIMESTAMP WITH TIME ZONE)
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


def _key(table: Table) -> dg.AssetKey:
    return dg.AssetKey([DATASET, table.name])


def _asset(table: Table) -> dg.AssetSpec:
    columns = [
        dg.TableColumn(column.name, str(column.type), column.description)
        for column in table.columns
    ]
    return dg.AssetSpec(
        _key(table),
        description=table.description,
        kinds={"dlt", DESTINATION},
        metadata={"dagster/column_schema": dg.TableSchema(columns)},
    )


@dg.multi_asset(
    name="esms",
    group_name="esms",
    specs=[_asset(table) for table in TABLES],
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
    for table in TABLES:
        metadata = {"dagster/row_count": _numbers(ROWS, table=table)[0]}
        if table is REF_IDS:
            metadata |= _figures(report) | {"backlog": _numbers(BACKLOG)[0]}
        yield dg.MaterializeResult(asset_key=_key(table), metadata=metadata)


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


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "sums_agree",
            asset=_key(REF_IDS),
            description="The requests of each load add up to the ledger's rows.",
        ),
        dg.AssetCheckSpec(
            "nothing_overdue",
            asset=_key(REF_IDS),
            description=f"Nothing is due for longer than {OVERDUE_AFTER}.",
        ),
        dg.AssetCheckSpec(
            "all_answered",
            asset=_key(REF_IDS),
            description="Every RefId that was asked has a usable answer.",
        ),
        dg.AssetCheckSpec(
            "codes_known",
            asset=_key(CALLBACKS),
            description=f"At most {MAX_UNKNOWN_SHARE:.0%} of the last day's error codes"
            " are unknown.",
        ),
        dg.AssetCheckSpec(
            "failures_are_free",
            asset=_key(CALLBACKS),
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
    yield _result(
        CALLBACKS, "codes_known", passed=share <= MAX_UNKNOWN_SHARE, share=share
    )
    charged, price = _numbers(CHARGED_FAILURES)
    yield _result(
        *(CALLBACKS, "failures_are_free"),
        passed=not charged,
        messages=charged,
        vnd=float(price),
    )


def _result(
    table: Table, name: str, *, passed: bool, **metadata: float
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=_key(table), check_name=name, passed=passed, metadata=metadata
    )


def _pipeline() -> dlt.Pipeline:
    return dlt.pipeline("esms", destination=DESTINATION, dataset_name=DATASET)


def _numbers(
    sql: str, *, table: Table = REF_IDS, since: datetime | None = None
) -> tuple[int, ...]:
    """Return the one row of a query, whose placeholders are names of tables."""
    with _pipeline().sql_client() as client:
        tables = (*(t.name for t in TABLES), LOADS)
        names = {name: client.make_qualified_table_name(name) for name in tables}
        rows = client.execute_sql(
            sql.format(**names, table=names[table.name], since=since)
        )
    return tuple(rows[0]) if rows else ()


def _moment(text: str | None) -> datetime | None:
    """Read a time; one that names no zone is in UTC."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


esms_schedule = dg.ScheduleDefinition(
    name="esms_schedule",
    target=dg.AssetSelection.assets(esms_tables),
    cron_schedule="*/15 * * * *",
)

defs = dg.Definitions(
    assets=[esms_tables], asset_checks=[esms_checks], schedules=[esms_schedule]
)
