"""Windows of OAs: what of a warehouse table is left out, whatever does it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import product
from typing import TYPE_CHECKING

import duckdb
import pytest

from esms_source.planning.candidates import Columns
from esms_source.planning.windows import in_windows, parts_in_windows
from esms_source.sql import quote_name

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = datetime(2026, 1, 5, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)
WINDOWS = {"oa1": NOON, "oa2": NOON - 30 * DAY, "it's": NOON}
COLUMNS = Columns("ref id", "oa", "sent at", {})
TYPES = {"ref id": "VARCHAR", "oa": "VARCHAR", "sent at": "TIMESTAMP WITH TIME ZONE"}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a table with rows of all kinds of OA and time."""
    with duckdb.connect() as connection:
        connection.execute(
            'CREATE TABLE sent ("ref id" INTEGER, oa VARCHAR, "sent at" TIMESTAMPTZ)'
        )
        oa_ids = ["oa1", " oa1", "oa2", "it's", "new", "", None]
        moments = [None, NOON, *(NOON + sign * DAY for sign in (1, -1, -29, -31))]
        rows = enumerate(product(oa_ids, moments))
        connection.executemany(
            "INSERT INTO sent VALUES (?, ?, ?)", [(n, *row) for n, row in rows]
        )
        yield connection


def ref_ids(connection: duckdb.DuckDBPyConnection, sql: str) -> list[int]:
    """Return the RefIds that a relation holds, each as often as it does."""
    rows = connection.execute(f'SELECT "ref id" FROM {sql} ORDER BY 1').fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize("windows", [WINDOWS, {}, dict.fromkeys(WINDOWS, NOON)])
def test_parts_hold_each_row_of_a_window_once(
    windows: dict[str, datetime], connection: duckdb.DuckDBPyConnection
) -> None:
    """The same rows as by one condition: whatever they name, none is read twice."""
    whole = "sent" + in_windows(COLUMNS, TYPES, windows, quote_name)
    parts = parts_in_windows("sent", COLUMNS, TYPES, windows)
    assert ref_ids(connection, parts) == ref_ids(connection, whole)
    assert len(ref_ids(connection, parts)) < 42 or not windows


def test_a_time_in_a_text_leaves_nothing_out(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Only what DuckDB compares as a time can be before another."""
    types = TYPES | {"sent at": "VARCHAR"}
    assert parts_in_windows("sent", COLUMNS, types, WINDOWS) == "sent"
    assert in_windows(COLUMNS, types, WINDOWS, quote_name) == ""


def test_a_time_without_zone_has_a_day_of_slack(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """The zone in which it is meant isn't known to the database."""
    types = TYPES | {"sent at": "TIMESTAMP"}
    zoned = ref_ids(connection, parts_in_windows("sent", COLUMNS, TYPES, WINDOWS))
    wider = ref_ids(connection, parts_in_windows("sent", COLUMNS, types, WINDOWS))
    assert set(zoned) < set(wider)


def test_duckdb_skips_what_is_before_a_window(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """It reads no row group of a table whose rows are all older."""
    connection.execute(
        "CREATE TABLE large AS SELECT range AS \"ref id\", 'oa1' AS oa,"
        " TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_seconds(range) AS \"sent at\""
        " FROM range(500_000)"
    )
    parts = parts_in_windows("large", COLUMNS, TYPES, {"oa1": NOON})
    plan = connection.execute(f"EXPLAIN SELECT * FROM {parts}").fetchall()[0][1]
    assert "Empty Result" in plan or "EMPTY_RESULT" in plan, plan
