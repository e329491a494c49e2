"""The figures of the page: counted by the destination, folded until they are few."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import duckdb
from dlt.destinations.exceptions import DatabaseUndefinedRelation

from esms_source.databases import translated
from esms_source.databases.alchemy import is_alchemy
from esms_source.exceptions import DestinationError
from esms_source.keeping import is_lake, reading
from esms_source.report.copied import copied
from esms_source.report.folding import AGES, OUTCOMES, fold
from esms_source.sql import text_literal
from esms_source.tables import CALLBACKS, LOADS, OAS, REF_IDS, TEMPLATES
from esms_source.views import (
    carried_columns,
    has_all_columns,
    read_view,
    refresh_views,
    setting_values,
    show_views,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import dlt
    import pyarrow as pa
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.tables import Table

LAST_RUNS: Final = 30

REPORT_MEMORY: Final = "400MB"
THREADS: Final = 2
"""Enough for ten million messages; more threads would need more memory."""

MAX_CARRIED: Final = 2
"""So many carried columns can be filtered and split by: each makes the page larger."""

MAX_VALUES: Final = 200
"""A carried column with more values than that is an id or a name, and is left out."""

WITHOUT_ZALO: Final = (-118, -119, -114)
"""Codes of numbers that no Zalo message reaches: a measure of the list's quality."""


def read_figures(pipeline: dlt.Pipeline, settings: Settings) -> dict[str, Any]:
    """Return what the page shows, as JSON values.

    Cells are columns of equal length, whose keys are indexes into the lists of
    days, OAs, templates, telcos, codes and carried values.

    Raises:
        DestinationError: The dataset has no tables or can't be read.
    """
    with _reporting_errors(pipeline), _opened(pipeline, settings) as client:
        _refuse_earlier_version(client)
        carried = _carried(client)
        facts = _arrow(client, _facts_sql(client, settings, carried))
        backlog = _rows(
            client, f"SELECT * FROM {_relation(client, 'backlog')} ORDER BY oa_id"
        )
        oas = _rows(client, _named_sql(client, OAS, "oa_id"))
        templates = _rows(client, _named_sql(client, TEMPLATES, "zns_temp_id"))
        runs = _rows(
            client,
            f"SELECT * FROM {_relation(client, 'run_history')}"
            f" ORDER BY started_at DESC LIMIT {LAST_RUNS}",
        )
    now = datetime.now(ZoneInfo(settings.timezone))
    return {
        "generated_at": _plain(now),
        "local_time": now.replace(tzinfo=None).isoformat(timespec="seconds"),
        "dataset": pipeline.dataset_name,
        "timezone": settings.timezone,
        "outcomes": OUTCOMES,
        "ages": AGES,
        "without_zalo": WITHOUT_ZALO,
        "asks_missing": settings.asks_missing,
        "oa_names": {row["id"]: row["name"] for row in oas},
        "template_names": {row["id"]: row["name"] for row in templates},
        **fold(facts, list(carried)),
        "backlog": backlog,
        "runs": runs,
    }


@contextmanager
def _opened(pipeline: dlt.Pipeline, settings: Settings) -> Iterator[SqlClientBase[Any]]:
    """Open a dataset whose views speak DuckDB's SQL or PostgreSQL's."""
    is_foreign = is_alchemy(pipeline.sql_client())
    if not is_foreign:
        refresh_views(pipeline, settings)
    opened = copied(pipeline, REPORT_MEMORY) if is_foreign else reading(pipeline)
    with opened as client:
        if is_foreign or is_lake(pipeline):
            show_views(client, settings)
        yield client


def _refuse_earlier_version(client: SqlClientBase[Any]) -> None:
    # A dataset without tables has another remedy: what reads them says so.
    client.execute_sql(f"SELECT 1 FROM {_relation(client, REF_IDS.name)} LIMIT 0")
    if not has_all_columns(client):
        fact = "the dataset's tables are those of an earlier version"
        raise DestinationError(fact, "bring them up to date with esms run")


def _named_sql(client: SqlClientBase[Any], table: Table, key: str) -> str:
    return (
        f"SELECT {key} AS id, max(name) AS name FROM {_relation(client, table.name)}"
        f" WHERE name IS NOT NULL GROUP BY {key}"
    )


def _facts_sql(
    client: SqlClientBase[Any], settings: Settings, carried: Mapping[str, str]
) -> str:
    """Count messages once by everything that the page tells apart, and by hour."""
    ages = "".join(
        f", count(*) FILTER (WHERE seconds_to_final <= {age * 3600}) AS final_{age}"
        for age in AGES
    )
    more = "".join(f", carried_{n}" for n in range(len(carried)))
    return f"""
        SELECT
            day, oa, template, telco, outcome, code, hour{more},
            GROUPING(day) AS by_hour, count(*) AS messages,
            CAST(coalesce(sum(total_price), 0) AS DOUBLE PRECISION) AS cost,
            CAST(coalesce(sum(total_price) FILTER (WHERE outcome = 'failed'), 0)
                AS DOUBLE PRECISION) AS cost_failed,
            count(*) - count(total_price) AS unpriced,
            count(sent_at) AS timed{ages}
        FROM (
            SELECT
                sent_day AS day, oa, zns_temp_id AS template, telco_id AS telco,
                outcome, total_price, sent_at{more},
                CASE WHEN outcome IN ('failed', 'partial') THEN error_code END AS code,
                CASE WHEN sent_at IS NOT NULL THEN hour END AS hour,
                CASE WHEN state = 'final' THEN
                    extract(EPOCH FROM final_at) - extract(EPOCH FROM sent_at)
                END AS seconds_to_final
            FROM ({_messages_sql(client, settings, carried)}) AS facts
        ) AS timed
        GROUP BY GROUPING SETS (
            (day, oa, template, telco, outcome, code{more}),
            (hour, oa, template, outcome{more})
        )
    """


def _messages_sql(
    client: SqlClientBase[Any], settings: Settings, carried: Mapping[str, str]
) -> str:
    """Return the view ``message_facts`` with a number as its key, and the OA as ``oa``.

    To group and join by two texts takes longer. Two messages of ten million share
    a number with a chance of one in 370 000; their callbacks then count for both.
    """
    columns = [
        f"CAST({value} AS VARCHAR) AS carried_{n}"
        for n, value in enumerate(carried.values())
    ]
    # As the view writes the day, so that the database reckons local time once.
    hour = (
        "extract(HOUR FROM coalesce(ledger.sent_at, ledger.first_polled_at)"
        f" AT TIME ZONE {text_literal(settings.timezone)})"
    )
    numbered = {
        "ref_ids": _numbered(client, REF_IDS, columns),
        "callbacks": _numbered(client, CALLBACKS, []),
        LOADS: _relation(client, LOADS),
        "carried_from_ledger": f", ledger.oa, {hour} AS hour"
        + "".join(f", ledger.carried_{n}" for n in range(len(carried))),
    }
    return read_view("message_facts").sql.format_map(
        setting_values(settings) | numbered
    )


def _numbered(client: SqlClientBase[Any], table: Table, more: Sequence[str]) -> str:
    """Return a table with a hash of its key in place of the RefId."""
    is_postgres = client.capabilities.sqlglot_dialect == "postgres"
    number = (
        "hashtextextended(ref_id, hashtextextended(oa_id, 0))"
        if is_postgres
        else "hash(oa_id, ref_id)"
    )
    others = [name for name in table.schema.names if name not in ("oa_id", "ref_id")]
    return (
        f"(SELECT 0 AS oa_id, {number} AS ref_id, oa_id AS oa,"
        f" {', '.join([*others, *more])}"
        f" FROM {_relation(client, table.name)} AS ledger)"
    )


def _carried(client: SqlClientBase[Any]) -> dict[str, str]:
    """Return the carried columns of messages that hold few values, and their SQL."""
    relation = _relation(client, REF_IDS.name)
    with client.execute_query(f"SELECT * FROM {relation} LIMIT 0") as cursor:
        ledger = [column[0] for column in cursor.description]
    found: dict[str, str] = {}
    columns = carried_columns(ledger, client.capabilities.escape_identifier)
    for name, value in columns.items():
        rows = client.execute_sql(
            "SELECT count(*) FROM (SELECT DISTINCT"
            f" {value} FROM {relation} AS ledger LIMIT {MAX_VALUES + 1}) AS found"
        )
        if rows and rows[0][0] <= MAX_VALUES and len(found) < MAX_CARRIED:
            found[name] = value
    return found


@contextmanager
def _reporting_errors(pipeline: dlt.Pipeline) -> Iterator[None]:
    dataset = f"the dataset {pipeline.dataset_name!r}"
    with translated(f"{dataset} can't be read", "check its credentials and grants"):
        try:
            yield
        except (DatabaseUndefinedRelation, duckdb.CatalogException) as exc:
            fact = f"{dataset} has no tables, or no views on them"
            raise DestinationError(fact, "load it with esms run") from exc


def _relation(client: SqlClientBase[Any], name: str) -> str:
    return client.make_qualified_table_name(name)


def _arrow(client: SqlClientBase[Any], sql: str) -> pa.Table:
    connection = client.native_connection
    if isinstance(connection, duckdb.DuckDBPyConnection):
        # What needs more goes to a temporary file next to the database.
        connection.execute(f"SET memory_limit = '{REPORT_MEMORY}'")
        connection.execute(f"SET threads = {THREADS}")
        return connection.sql(sql).to_arrow_table()
    with client.execute_query(sql) as cursor:
        return cursor.arrow()


def _rows(client: SqlClientBase[Any], sql: str) -> list[dict[str, Any]]:
    """Return rows as JSON values."""
    with client.execute_query(sql) as cursor:
        names = [column[0] for column in cursor.description]
        return [
            dict(zip(names, map(_plain, row), strict=True)) for row in cursor.fetchall()
        ]


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat(timespec="seconds")
    return float(value) if isinstance(value, Decimal) else value
