from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from esms_source.simulator import sample_row
from esms_source.tables import RUNS, SMALL, TABLES
from esms_source.views import NAMES
from tests.conftest import ref_id
from tests.integration.test_foreign import mariadb  # noqa: F401  a fixture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Ended, Esms

NUMBERS = itertools.count()
COUNT = 800
KILLS = int(os.environ.get("ESMS_TEST_KILLS", "10"))

POINTS = (
    *("asking", "before normalising", "before the load", "before a job"),
    *("before a merge", "after a merge", "between two tables", "after the data"),
    *("after the bookkeeping", "at the end of the load"),
)
"""Points of ``warm.POINTS`` that loads into any database pass."""

MOMENTARY = {
    *("load_id", "run_id", "waited_ms", "latency_ms", "seconds", "rate_used"),
    *("requests_per_second", "api_hours", "hours_to_final_p50", "hours_to_final_p95"),
}
"""Columns whose values no two runs have in common, as all moments but ``sent_at``."""


class Place:
    """A dataset that SQLAlchemy reaches: for ``esms``, and for a test that looks in.

    Attributes:
        url: Where it is, for dlt.
    """

    def __init__(self, esms: Esms, url: str, look: Callable[[str], Any]) -> None:
        self.url = url
        self._esms = esms
        self._look = look
        esms.set(DESTINATION__SQLALCHEMY__CREDENTIALS=url)

    def run(self, *words: str, **more: Any) -> Ended:
        """Run a command, by default ``run --json``, on it."""
        words = words or ("run", "--json")
        return self._esms(*words, "--destination", "sqlalchemy", **more)

    def rows(self, sql: str) -> list[Any]:
        """Return what SQL of its own selects; bare values of one column."""
        rows = self._look(sql)
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]


@pytest.fixture(
    params=["sqlite", pytest.param("mariadb", marks=pytest.mark.slow)],
)
def place(request: pytest.FixtureRequest, esms: Esms, tmp_path: Path) -> Place:
    """An empty SQLite or MariaDB."""
    if request.param == "sqlite":

        def look(sql: str) -> list[Any]:
            # The dataset's own file, as anybody would open it.
            with closing(sqlite3.connect(tmp_path / "out__zalo.db")) as connection:
                return connection.execute(sql).fetchall()

        return Place(esms, f"sqlite:///{tmp_path / 'out.db'}", look)
    url: str = request.getfixturevalue("mariadb")
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def ask(sql: str, database: str = "zalo") -> list[Any]:
        with engine.begin() as connection:
            if database:
                connection.exec_driver_sql(f"USE {database}")
                connection.exec_driver_sql("SET sql_mode = 'ANSI_QUOTES'")
            # As it is: a per cent begins no parameter.
            found = connection.execute(sa.text(sql.replace(":", r"\:")))
            return list(found) if found.returns_rows else []

    for name in ("zalo", "zalo_staging_esms"):
        ask(f"DROP DATABASE IF EXISTS {name}", "")
    return Place(esms, url.replace("localhost/", "localhost/mysql"), ask)


def scripted(*, moves: bool = True) -> dict[str, Any]:
    """Script what is odd: two rows, none at first, one not final at first, a stray."""
    scripts: dict[str, Any] = {}
    pending = {"SendStatus": 1, "SendSuccess": 0, "SendFailed": 0}
    said = '{"error":-118,"message":"It\'s no \\"Zalo\\" user: 50% \\\\ 🎉","data":{"a":1}}'
    for number in range(0, COUNT, 40):
        two, late, held, stray, failed = (ref_id(number + step) for step in range(5))
        other = {"Telcoid": 2, "Partnerids": "z", "New": {"a": [":b"]}}
        scripts[two] = [sample_row(two), sample_row(two, **other)]
        scripts[late] = lambda name, n: [sample_row(name)] if moves and n > 1 else []
        scripts[held] = lambda name, n: [
            sample_row(name, **(pending if n == 1 or not moves else {"TotalPrice": "12345.6789"}))
        ]
        scripts[stray] = [sample_row(stray), sample_row(f"stranger-{number}")]
        scripts[failed] = [
            sample_row(failed, SendSuccess=0, SendFailed=1, ErrorInfo=said)
        ]
    return scripts


def plain(name: str, value: Any) -> Any:
    """Return a value as it is on every database."""
    if isinstance(value, str) and value[:1] in "{[":
        return json.dumps(json.loads(value), sort_keys=True)
    if name in ("at", "sent_day") or name.endswith("sent_at"):
        return value and str(value)[:19]
    is_moment = isinstance(value, datetime) or name.endswith("_at")
    if is_moment or name in MOMENTARY:
        return value is not None
    if isinstance(value, (bool, int, float, Decimal)):
        return round(float(value), 4)
    return str(value) if isinstance(value, date) else value


def content(rows: Callable[[str], list[Any]], table: str, names: list[str]) -> Any:
    """Return a table's rows in a form that doesn't depend on the database."""
    columns = ", ".join(f'"{name}"' for name in names)
    selected = rows(f"SELECT {columns} FROM {table}")
    tupled = [row if isinstance(row, tuple) else (row,) for row in selected]
    return sorted(
        repr([plain(name, value) for name, value in zip(names, row, strict=True)])
        for row in tupled
    )


def assert_same(place: Place, output: Output, tables: list[str]) -> None:
    """Check that tables and views hold what DuckDB's do."""
    for table in tables:
        names = output.rows(
            "SELECT column_name FROM information_schema.columns"
            f" WHERE table_schema = 'zalo' AND table_name = '{table}'"
        )
        # A request's number depends on which answer came first.
        names = [name for name in names if name != "request_no"]
        ours, theirs = (
            content(look.rows, table, names) for look in (place, output)
        )
        assert ours == theirs, table


LOADED = [table.name for table in (*TABLES, RUNS)]


def test_three_runs_equal_those_into_duckdb(
    place: Place, esms: Esms, output: Output, world: Callable[..., Simulator]
) -> None:
    """Tables and views are DuckDB's; what isn't due is asked by no further run."""
    esms.set(slice_ref_ids=300, max_in_flight=1, repoll_after=3_600)
    esms.set(SOURCES__ESMS__REF_IDS__CARRY='["campaign", "price", "at", "ok"]')
    odd = COUNT // 40
    for destination in ("duckdb", "sqlalchemy"):
        is_first = destination == "duckdb"
        simulator = world(COUNT if is_first else 0, scripted=scripted())
        if is_first:
            add_columns(esms)
        reports = [
            esms("run", "--json", *words, "--destination", destination).report
            for words in ([], [], ["--repoll", "pending,missing"])
        ]
        assert [report["asked"] for report in reports] == [COUNT, 0, 2 * odd]
        assert simulator.arrivals.asks.total() == COUNT + 2 * odd
    assert_same(place, output, LOADED)
    assert_same(place, output, list(NAMES))


def add_columns(esms: Esms) -> None:
    """Give the warehouse columns of other types to carry."""
    import duckdb  # noqa: PLC0415

    with duckdb.connect(esms.folder / "warehouse.duckdb") as connection:
        connection.execute(
            "CREATE TABLE more AS SELECT *, (extract(epoch FROM sent_at) % 1000 / 8)"
            "::DECIMAL(12, 3) AS price, sent_at AS at, epoch(sent_at) % 2 = 0 AS ok"
            " FROM sent; DROP TABLE sent; ALTER TABLE more RENAME TO sent"
        )


def test_ten_kills_lose_and_double_nothing(
    place: Place,
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
    request: pytest.FixtureRequest,
) -> None:
    """What is killed again and again ends equal to what DuckDB has."""
    kills = KILLS if "mariadb" in request.node.name else 3
    esms.set(slice_ref_ids=100, max_in_flight=1, repoll_after=36_000)
    world(COUNT, scripted=scripted(moves=False))
    assert esms().status == 0
    simulator = world(scripted=scripted(moves=False), latency=0.05)
    dice = random.Random(5)
    for number in range(kills):
        if number % 2:
            place.run(signal_at=(dice.choice(POINTS), 1 + number % 3, signal.SIGKILL))
            continue
        running = esms.start("run", "--destination", "sqlalchemy")
        time.sleep(dice.uniform(0.3, 3))
        running.end()
    assert place.run().status == 0
    assert place.run().report["asked"] == 0
    asks = simulator.arrivals.asks
    assert asks.total() - COUNT <= 100 * kills
    assert_same(place, output, ["callbacks", "rejected_rows", *(t.name for t in SMALL)])
    columns = ["ref_id", "sent_at", "last_error"]
    for state in ("final", "pending", "missing"):
        table = f"ref_ids WHERE state = '{state}'"
        ours, theirs = (content(x.rows, table, columns) for x in (place, output))
        assert ours == theirs
    sums = (
        "SELECT sum(asked), sum(answered + missing + failed), count(*) - (SELECT count(*)"
        " FROM (SELECT DISTINCT load_id, request_no FROM api_requests) AS d)"
        " FROM api_requests"
    )
    assert [int(n) for n in place.rows(sums)[0]] == [COUNT, COUNT, 0]
    assert not place.rows(
        "SELECT load_id FROM ref_ids UNION SELECT load_id FROM callbacks UNION"
        " SELECT load_id FROM api_requests EXCEPT SELECT load_id FROM _dlt_loads"
    )
