"""Counts folded until they are few enough for a page, and their keys numbered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from esms_source.codes import read_code_table
from esms_source.tables import ERROR_CODES, TELCOS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    import pyarrow as pa

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

MAX_BYTES: Final = 2_400_000
"""What all cells may take of the page's 3 MB, reckoned by CELL_BYTES."""

FEW: Final = 5
"""Fewer messages than that don't show under a carried value: it may name a person."""

AGED: Final = ("timed", *(f"final_{age}" for age in AGES))
COSTS: Final = ("cost", "cost_failed")
MEASURES: Final = ("messages", *COSTS, "unpriced", *AGED)
CELL_BYTES: Final = {"reasons": 18, "delivery": 44, "maturity": 26, "hours": 20}
"""The tables of cells, and what a row of each takes as text at most."""

CARRIED_BYTES: Final = 3
CUBES: Final = tuple(CELL_BYTES)
KEYS: Final = ("day", "oa", "template", "telco", "code", "hour")

UNDELIVERED: Final = {
    "meaning_en": "Taken by Zalo, but not delivered",
    "meaning_vi": "Zalo đã nhận nhưng tin không tới người nhận",
    "category": "undelivered",
    "retryable": None,
    "who_can_fix": "unknown",
}
"""What code 0 of a failed message means, as the view failure_reasons says it."""


@dataclass(frozen=True)
class Detail:
    """How finely the page tells days, templates and carried values apart."""

    unit: str
    templates: int
    values: int


DETAILS: Final = (
    Detail("day", 40, 40),
    Detail("day", 12, 12),
    Detail("week", 40, 40),
    Detail("week", 12, 12),
    Detail("month", 12, 12),
    Detail("month", 5, 5),
    Detail("year", 5, 2),
)
"""Tried in this order until the page is small enough; the last one must do."""


def fold(facts: pa.Table, carried: Sequence[str]) -> dict[str, Any]:
    """Fold counts into few enough cells, and number their keys.

    Args:
        facts: Counts by all keys; those by hour are apart, with a null day.
        carried: Names of the carried columns, which stand there as carried_0 and on.
    """
    names = [f"carried_{n}" for n in range(len(carried))]
    with duckdb.connect() as connection:
        connection.register("read", facts)
        connection.execute(
            "CREATE TABLE facts AS SELECT * REPLACE (CAST(day AS DATE) AS day,"
            " CAST(telco AS BIGINT) AS telco, CAST(code AS BIGINT) AS code,"
            " CAST(hour AS BIGINT) AS hour, CAST(by_hour AS BIGINT) AS by_hour)"
            " FROM read"
        )
        for detail in DETAILS:
            is_last = detail is DETAILS[-1]
            if _fold_to(connection, detail, names, must_do=is_last):
                break
        return {
            "unit": detail.unit,
            "carried": list(carried),
            **_Numbered(connection, names).to_json(),
        }


def _fold_to(
    connection: duckdb.DuckDBPyConnection,
    detail: Detail,
    carried: Sequence[str],
    *,
    must_do: bool,
) -> bool:
    """Make the tables of cells; tell whether they are small enough."""
    outcomes = ", ".join(
        f"coalesce(sum(messages) FILTER (outcome = '{name}'), 0) AS {name}"
        for name in OUTCOMES
    )
    ages = ", ".join(f"sum({name}) AS {name}" for name in AGED)
    costs = ", ".join(f"round(sum({name}), 2) AS {name}" for name in COSTS)
    for name in carried:
        connection.execute(_top(name, detail.values, FEW))
    connection.execute(_top("template", detail.templates, 1))
    kept = ", ".join(
        f"CASE WHEN {name} IS NULL THEN ''"
        f" WHEN {name} IN (FROM top_{name}) THEN '=' || {name} ELSE 'other' END"
        f" AS {name}"
        for name in ("template", *carried)
    )
    more = "".join(f", {name}" for name in carried)
    connection.execute(f"""
        CREATE OR REPLACE VIEW folded AS
        SELECT * REPLACE (
            CAST(date_trunc('{detail.unit}', day) AS DATE) AS day, {kept}
        ) FROM facts;

        CREATE OR REPLACE TABLE delivery AS
        SELECT day, oa, template, telco{more}, {outcomes}, {costs},
            sum(unpriced) AS unpriced
        FROM folded WHERE by_hour = 0 GROUP BY day, oa, template, telco{more};
    """)
    if not must_do and _bytes_of(connection, carried, "delivery") > MAX_BYTES:
        return False
    connection.execute(f"""
        CREATE OR REPLACE TABLE reasons AS
        SELECT day, oa, template, telco, code{more}, sum(messages) AS messages
        FROM folded WHERE by_hour = 0 AND outcome IN ('failed', 'partial')
        GROUP BY day, oa, template, telco, code{more};

        CREATE OR REPLACE TABLE maturity AS
        SELECT day, oa, template{more}, {ages}
        FROM folded WHERE by_hour = 0 GROUP BY day, oa, template{more};

        CREATE OR REPLACE TABLE hours AS
        SELECT hour, oa, template{more}, sum(messages) AS messages,
            coalesce(sum(messages) FILTER (
                outcome IN ('delivered', 'partial', 'failed')
            ), 0) AS final,
            coalesce(sum(messages) FILTER (outcome = 'delivered'), 0) AS delivered
        FROM folded WHERE by_hour = 1 AND hour IS NOT NULL
        GROUP BY hour, oa, template{more};
    """)
    return _bytes_of(connection, carried, *CUBES) <= MAX_BYTES


def _bytes_of(
    connection: duckdb.DuckDBPyConnection, carried: Sequence[str], *tables: str
) -> int:
    sizes = (
        f"{CELL_BYTES[name] + CARRIED_BYTES * len(carried)}"
        f" * (SELECT count(*) FROM {name})"
        for name in tables
    )
    return int(connection.execute(f"SELECT {' + '.join(sizes)}").fetchall()[0][0])


def _top(name: str, limit: int, few: int) -> str:
    return f"""
        CREATE OR REPLACE TABLE top_{name} AS
        SELECT {name} FROM facts WHERE by_hour = 0 AND {name} IS NOT NULL
        GROUP BY {name} HAVING sum(messages) >= {few}
        ORDER BY sum(messages) DESC, {name} LIMIT {limit};
    """


class _Numbered:
    """Cells whose keys are numbers into lists of what they stand for."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, carried: Sequence[str]
    ) -> None:
        self._connection = connection
        self._carried = carried
        self._values = {key: self._distinct(key) for key in (*KEYS, *carried)}

    def to_json(self) -> dict[str, Any]:
        """Return lists and cells as JSON values."""
        codes = {row["code"]: row for row in _error_codes()} | {0: UNDELIVERED}
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
            "values": [self._values[name] for name in self._carried],
            **{name: self._cells(name) for name in CUBES},
        }

    def _distinct(self, key: str) -> list[Any]:
        table = {"code": "reasons", "hour": "hours"}.get(key, "delivery")
        sql = f"SELECT DISTINCT {key} FROM {table} ORDER BY {key} NULLS LAST"
        return [row[0] for row in self._connection.execute(sql).fetchall()]

    def _cells(self, table: str) -> dict[str, list[Any]]:
        """Return a table's columns."""
        read = self._connection.sql(f"SELECT * FROM {table} ORDER BY ALL")
        columns = read.to_arrow_table().to_pydict()
        for key in self._values.keys() & columns.keys() - {"hour"}:
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
