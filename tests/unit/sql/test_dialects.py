from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from decimal import Decimal

import pytest

from esms_source.load.alchemy_types import exact_number
from esms_source.sql import in_dialect, moment_literal
from esms_source.sql.dialects import offsets

NOON = datetime(2026, 1, 5, 5, 0, 0, 7, tzinfo=timezone.utc)


def in_sqlite(sql: str) -> object:
    """Return the one value that SQL of ours selects in SQLite."""
    with closing(sqlite3.connect(":memory:")) as connection:
        return connection.execute(in_dialect(sql, "sqlite")).fetchone()[0]


def test_a_zone_has_all_of_its_offsets():
    """One without changes has one; the others have each change, to the minute."""
    assert [minutes for _, minutes in offsets("Asia/Ho_Chi_Minh")] == [420]
    changes = dict(offsets("Europe/Berlin"))
    assert changes[datetime(2026, 3, 29, 1, tzinfo=timezone.utc)] == 60
    assert changes[datetime(2026, 10, 25, 1, tzinfo=timezone.utc)] == 120


@pytest.mark.parametrize(
    ("at", "zone", "day"),
    [
        ("2026-01-05 16:59:59", "Asia/Ho_Chi_Minh", "2026-01-05"),
        ("2026-01-05 17:00:00", "Asia/Ho_Chi_Minh", "2026-01-06"),
        ("2026-01-05 22:59:59", "Europe/Berlin", "2026-01-05"),
        ("2026-07-05 22:00:00", "Europe/Berlin", "2026-07-06"),
    ],
)
def test_days_are_cut_in_a_zone(at, zone, day):
    """SQLite knows no zones."""
    sql = (
        f"SELECT CAST(at AT TIME ZONE '{zone}' AS DATE) FROM (SELECT '{at}' AS at) AS t"
    )
    assert in_sqlite(sql) == day


def test_moments_are_utc():
    """As SQLAlchemy writes them, with all microseconds."""
    assert in_sqlite(f"SELECT {moment_literal(NOON)}") == "2026-01-05 05:00:00.000007"
    said = in_dialect(f"SELECT {moment_literal(NOON)}", "mysql")
    assert said == "SELECT TIMESTAMP('2026-01-05 05:00:00.000007')"


def test_percentiles_lie_between_neighbours():
    """As percentile_cont has it, without nulls, for each group."""
    values = " UNION ALL ".join(
        f"SELECT {group} AS g, {value} AS v"
        for group, value in [(1, 1), (1, 2), (1, 4), (1, "NULL"), (2, 7)]
    )
    sql = (
        f"WITH t AS ({values}) SELECT percentile_cont(0.75) WITHIN GROUP (ORDER BY v)"
        " AS p FROM t WHERE g = 1 GROUP BY g"
    )
    assert in_sqlite(sql.replace("WHERE g = 1 ", "")) == 3.0
    assert "ROW_NUMBER" in in_dialect(sql, "mysql")


def test_rounding_up_and_ends_of_texts():
    """Not each SQLite has a function for them."""
    assert in_sqlite("SELECT ceil(2.1) / 2") == 1.5
    assert in_sqlite("SELECT ceil(2.0)") == 2
    assert in_sqlite("SELECT right('0909123456', 9)") == "909123456"


def test_filters_and_backslashes_in_mysql():
    """MySQL has no FILTER, reads backslashes in texts, and reserves names."""
    sql = r"SELECT count(*) FILTER (WHERE a = 'b\c') AS rows FROM t"
    assert in_dialect(sql, "mysql") == (
        r"SELECT COUNT(CASE WHEN `a` = 'b\\c' THEN 1 END) AS `rows` FROM `t`"
    )


def test_a_decimal_is_refused_where_sqlite_would_round_it():
    """Fifteen digits are kept, eighteen are not."""
    assert exact_number(Decimal("12345678901.2345")) == 12345678901.2345
    assert exact_number(None) is None
    with pytest.raises(ValueError, match="more digits"):
        exact_number(Decimal("12345678901234.5678"))
