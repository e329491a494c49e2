"""The figures of the page: counted by the destination, folded until they are few."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import duckdb
from dlt.destinations.exceptions import DatabaseUndefinedRelation

from esms_source.codes import read_code_table
from esms_source.databases import translated
from esms_source.exceptions import DestinationError
from esms_source.tables import CALLBACKS, ERROR_CODES, REF_IDS, TELCOS
from esms_source.views import read_view, refresh_views, setting_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dlt
    import pyarrow as pa
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.tables import Table

OUTCOMES: Final = (
    "delivered",
    "partial",
    "failed",
    "pending",
    "missing",
    "unanswered",
    "expired",
)
AGES: Final = (1, 6, 24, 72)
"""Hours since sending at which the page says what share was final."""

LAST_RUNS: Final = 30

REPORT_MEMORY: Final = "400MB"
THREADS: Final = 2
"""Enough for ten million messages; more threads would need more memory."""

MAX_BYTES: Final = 2_400_000
"""What all cells may take of the page's 3 MB, reckoned by CELL_BYTES."""

AGED: Final = ("timed", *(f"final_{age}" for age in AGES))
_MEASURES: Final = ("messages", "cost", *AGED)
KEYS: Final = frozenset({"day", "oa", "template", "telco", "code"})
CELL_BYTES: Final = {"reasons": 18, "delivery": 36, "maturity": 26}
"""The tables of cells, and what a row of each takes as text at most."""

CUBES: Final = tuple(CELL_BYTES)


@dataclass(frozen=True)
class Detail:
    """How finely the page tells days and templates apart."""

    unit: str
    templates: int


DETAILS: Final = (
    Detail("day", 40),
    Detail("day", 12),
    Detail("week", 40),
    Detail("week", 12),
    Detail("month", 12),
    Detail("year", 5),
)
"""Tried in this order until the page is small enough; the last one must do."""


def read_figures(pipeline: dlt.Pipeline, settings: Settings) -> dict[str, Any]:
    """Return what the page shows, as JSON values.

    Cells are columns of equal length, whose keys are indexes into the lists of
    days, OAs, templates, telcos and codes.

    Raises:
        DestinationError: The dataset has no tables or can't be read.
    """
    with _reporting_errors(pipeline):
        refresh_views(pipeline, settings)
        with pipeline.sql_client() as client:
            facts = _arrow(client, _facts_sql(client, settings))
            backlog = _rows(
                client, f"SELECT * FROM {_relation(client, 'backlog')} ORDER BY oa_id"
            )
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
        **_fold(facts),
        "backlog": backlog,
        "runs": runs,
    }


def _facts_sql(client: SqlClientBase[Any], settings: Settings) -> str:
    """Count messages once, by everything that the page can tell apart."""
    ages = "".join(
        f", count(*) FILTER (WHERE seconds_to_final <= {age * 3600}) AS final_{age}"
        for age in AGES
    )
    return f"""
        SELECT
            sent_day AS day, oa, zns_temp_id AS template,
            telco_id AS telco, outcome, code, count(*) AS messages,
            CAST(coalesce(sum(total_price), 0) AS DOUBLE PRECISION) AS cost,
            count(sent_at) AS timed{ages}
        FROM (
            SELECT
                sent_day, oa, zns_temp_id, telco_id, outcome, total_price,
                CASE WHEN outcome IN ('failed', 'partial') THEN error_code END AS code,
                sent_at,
                CASE WHEN state = 'final' THEN
                    extract(EPOCH FROM last_polled_at) - extract(EPOCH FROM sent_at)
                END AS seconds_to_final
            FROM ({_messages_sql(client, settings)}) AS facts
        ) AS timed
        GROUP BY 1, 2, 3, 4, 5, 6
    """


def _messages_sql(client: SqlClientBase[Any], settings: Settings) -> str:
    """Return the view ``message_facts`` with a number as its key, and the OA as ``oa``.

    To group and join by two texts takes longer. Two messages of ten million share
    a number with a chance of one in 370 000; their callbacks then count for both.
    """
    return read_view("message_facts").sql.format_map(
        setting_values(settings)
        | {
            "ref_ids": _numbered(client, REF_IDS),
            "callbacks": f"{_numbered(client, CALLBACKS)} AS numbered",
            "carried_from_ledger": ", ledger.oa",
        }
    )


def _numbered(client: SqlClientBase[Any], table: Table) -> str:
    """Return a table with a hash of its key in place of the RefId."""
    is_postgres = client.capabilities.sqlglot_dialect == "postgres"
    number = (
        "hashtextextended(ref_id, hashtextextended(oa_id, 0))"
        if is_postgres
        else "hash(oa_id, ref_id)"
    )
    others = [name for name in table.schema.names if name not in ("oa_id", "ref_id")]
    return (
        f"(SELECT 0 AS oa_id, {number} AS ref_id, oa_id AS oa, {', '.join(others)}"
        f" FROM {_relation(client, table.name)})"
    )


def _fold(facts: pa.Table) -> dict[str, Any]:
    """Fold counts into few enough cells, and number their keys."""
    with duckdb.connect() as connection:
        connection.register("read", facts)
        connection.execute(
            "CREATE TABLE facts AS SELECT CAST(day AS DATE) AS day, oa, template,"
            " CAST(telco AS BIGINT) AS telco, outcome, CAST(code AS BIGINT) AS code,"
            f" {', '.join(_MEASURES)} FROM read"
        )
        for detail in DETAILS:
            if _fold_to(connection, detail) <= MAX_BYTES:
                break
        return {"unit": detail.unit, **_Numbered(connection).to_json()}


def _fold_to(connection: duckdb.DuckDBPyConnection, detail: Detail) -> int:
    """Make the three tables of cells; return how many bytes they take."""
    outcomes = ", ".join(
        f"sum(messages) FILTER (outcome = '{name}') AS {name}" for name in OUTCOMES
    )
    ages = ", ".join(f"sum({name}) AS {name}" for name in AGED)
    connection.execute(f"""
        CREATE OR REPLACE TABLE top AS
        SELECT template FROM facts WHERE template IS NOT NULL
        GROUP BY template ORDER BY sum(messages) DESC, template
        LIMIT {detail.templates};

        CREATE OR REPLACE VIEW folded AS
        SELECT * REPLACE (
            CAST(date_trunc('{detail.unit}', day) AS DATE) AS day,
            CASE
                WHEN template IS NULL THEN ''
                WHEN template IN (FROM top) THEN '=' || template
                ELSE 'other'
            END AS template
        ) FROM facts;

        CREATE OR REPLACE TABLE delivery AS
        SELECT day, oa, template, telco, {outcomes}, round(sum(cost), 2) AS cost
        FROM folded GROUP BY ALL;

        CREATE OR REPLACE TABLE reasons AS
        SELECT day, oa, template, telco, code, sum(messages) AS messages
        FROM folded WHERE outcome IN ('failed', 'partial') GROUP BY ALL;

        CREATE OR REPLACE TABLE maturity AS
        SELECT day, oa, template, {ages} FROM folded GROUP BY ALL;
    """)
    sizes = (
        f"{size} * (SELECT count(*) FROM {name})" for name, size in CELL_BYTES.items()
    )
    return int(connection.execute(f"SELECT {' + '.join(sizes)}").fetchall()[0][0])


class _Numbered:
    """Cells whose keys are numbers into lists of what they stand for."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._values = {key: self._distinct(key) for key in KEYS}

    def to_json(self) -> dict[str, Any]:
        """Return lists and cells as JSON values."""
        codes = {row["code"]: row for row in _error_codes()}
        telcos = {row["id"]: row for row in read_code_table(TELCOS).to_pylist()}
        unknown: dict[str, Any] = {}
        return {
            "days": [day.isoformat() for day in self._values["day"]],
            "oas": self._values["oa"],
            "templates": self._values["template"],
            "telcos": [
                {"id": id_} | telcos.get(id_, unknown) for id_ in self._values["telco"]
            ],
            "codes": [
                {"code": code} | codes.get(code, unknown)
                for code in self._values["code"]
            ],
            **{name: self._cells(name) for name in CUBES},
        }

    def _distinct(self, key: str) -> list[Any]:
        table = "reasons" if key == "code" else "delivery"
        sql = f"SELECT DISTINCT {key} FROM {table} ORDER BY {key} NULLS LAST"
        return [row[0] for row in self._connection.execute(sql).fetchall()]

    def _cells(self, table: str) -> dict[str, list[Any]]:
        """Return a table's columns."""
        read = self._connection.sql(f"SELECT * FROM {table} ORDER BY ALL")
        columns = read.to_arrow_table().to_pydict()
        for key in KEYS & columns.keys():
            numbers = {value: n for n, value in enumerate(self._values[key])}
            columns[key] = [numbers[value] for value in columns[key]]
        return {
            name: [_short(value) for value in values]
            for name, values in columns.items()
        }


def _short(value: float | Decimal | None) -> float | int:
    """Return a number with no more digits than it needs."""
    number = float(value or 0)
    return int(number) if number.is_integer() else number


def _error_codes() -> list[dict[str, Any]]:
    """Return the codes that an ErrorInfo may hold, each once."""
    rows: list[dict[str, Any]] = read_code_table(ERROR_CODES).to_pylist()
    return [row for row in rows if (row["source"] == "esms") == (row["code"] > 0)]


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
