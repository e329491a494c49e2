from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import time
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dlt
import pytest
import sqlalchemy as sa
from dlt.pipeline.exceptions import PipelineStepFailed

from esms_source import esms_source
from esms_source.databases import Patience
from esms_source.exceptions import PipelineBusyError
from esms_source.load.locks import dataset_lock
from esms_source.simulator import sample_row
from esms_source.tables import RUNS, SMALL, TABLES
from esms_source.views import NAMES
from tests.conftest import ref_id
from tests.integration.test_foreign import mariadb  # noqa: F401  a fixture
from tests.integration.test_report import embedded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse
    from tests.integration.conftest import Ended, Esms

COUNT = 800
KILLS = {"mariadb": 10, "sqlite": 3}

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
    said = '{"error":-118,"message":"It\'s \\"no\\" user: 50% \\\\ 🎉","data":{"a":1}}'
    for number in range(0, COUNT, 40):
        two, late, held, stray, failed = (ref_id(number + step) for step in range(5))
        other = {"Telcoid": 2, "Partnerids": "z", "New": {"a": [":b"]}}
        scripts[two] = [sample_row(two), sample_row(two, **other)]
        scripts[late] = lambda name, n: [sample_row(name)] if moves and n > 1 else []
        scripts[held] = lambda name, n: [
            sample_row(
                name,
                **(pending if n == 1 or not moves else {"TotalPrice": "12345.6789"}),
            )
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
        ours, theirs = (content(look.rows, table, names) for look in (place, output))
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


@pytest.mark.slow
def test_kills_lose_and_double_nothing(
    place: Place,
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
    request: pytest.FixtureRequest,
) -> None:
    """What is killed again and again ends equal to what DuckDB has."""
    kind = request.node.callspec.params["place"]
    kills = int(os.environ.get("ESMS_TEST_KILLS", KILLS[kind]))
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
        "SELECT sum(asked), sum(answered + missing + failed),"
        " count(*) - (SELECT count(*) FROM"
        " (SELECT DISTINCT load_id, request_no FROM api_requests) AS d)"
        " FROM api_requests"
    )
    assert [int(n) for n in place.rows(sums)[0]] == [COUNT, COUNT, 0]
    assert not place.rows(
        "SELECT load_id FROM ref_ids UNION SELECT load_id FROM callbacks UNION"
        " SELECT load_id FROM api_requests EXCEPT SELECT load_id FROM _dlt_loads"
    )


def test_commands_work(
    place: Place, esms: Esms, world: Callable[..., Simulator], tmp_path: Path
) -> None:
    """What reads and changes tables by hand does it here too, or says that it can't."""
    world(COUNT, scripted=scripted(moves=False))
    nothing = place.run("query", "SELECT 1 AS a")
    assert (nothing.status, "nothing is loaded" in nothing.err) == (1, True)
    assert place.run("plan").status == 0
    assert place.run().report["asked"] == COUNT
    found = place.run(
        "query", "SELECT count(*) AS n, ':x %s' AS note FROM ref_ids", "--json"
    )
    assert json.loads(found.out) == [{"n": COUNT, "note": ":x %s"}], found.err
    wrong = place.run("query", "SELECT nothing FROM ref_ids")
    assert (wrong.status, "the SQL is refused" in wrong.err) == (2, True)
    checked = place.run("check")
    assert f"{COUNT} RefIds in the ledger" in checked.out + checked.err
    assert place.run("lookup", ref_id(1)).status == 0
    assert esms().status == 0
    pages = [tmp_path / "ours.html", tmp_path / "theirs.html"]
    made = place.run("report", "--output", str(pages[0]))
    assert made.status == 0, made.err
    assert esms("report", "--output", str(pages[1])).status == 0
    ours, theirs = (embedded(page.read_text("utf-8")) for page in pages)
    assert len(ours["runs"]) == len(theirs["runs"]) == 1
    for figures in (ours, theirs):
        for name in ("generated_at", "local_time", "runs", "backlog"):
            assert figures.pop(name)
    assert ours == theirs
    some = tmp_path / "some.csv"
    some.write_text(f"ref_id\n{ref_id(1)}\n{ref_id(2)}\nnew\n")
    settled = place.run("settle", "--ref-ids", str(some), SOURCES__ESMS__OA_ID="oa0")
    assert settled.out == "3 RefIds are never asked again\n", settled.err
    assert place.rows("SELECT count(*) FROM ref_ids WHERE state = 'expired'") == [3]
    gone = place.run("forget", "--ref-ids", str(some))
    assert gone.status == 0, gone.err
    assert not place.rows(f"SELECT ref_id FROM callbacks WHERE ref_id = '{ref_id(2)}'")
    forgotten = "SELECT count(*) FROM ref_ids WHERE last_error = 'forgotten'"
    assert place.rows(forgotten) == [3]
    assert place.run(SOURCES__ESMS__KEEP_REQUESTS="1").report["asked"] == 0


def test_one_loader_at_a_time(
    place: Place, esms: Esms, world: Callable[..., Simulator]
) -> None:
    """While somebody loads, another waits; the lock is free afterwards."""
    world(COUNT)
    pipeline = dlt.pipeline(
        "other",
        destination=dlt.destinations.sqlalchemy(place.url),
        dataset_name="zalo",
    )
    with dataset_lock(pipeline, Patience()) as is_locked:
        assert is_locked
        with (
            pytest.raises(PipelineBusyError, match="another loader holds"),
            dataset_lock(pipeline, Patience(seconds=0.1)),
        ):
            pass
    with dataset_lock(pipeline, Patience(seconds=0.1)):
        pass
    assert place.run().status == 0


def test_plain_dlt_is_refused(
    place: Place, asking: dict[str, Any], warehouse: Warehouse
) -> None:
    """It would encode JSON twice; nothing is asked."""
    warehouse.fill(3)
    pipeline = dlt.pipeline(
        "plain",
        destination=dlt.destinations.sqlalchemy(place.url),
        dataset_name="zalo",
    )
    with pytest.raises(PipelineStepFailed, match="load by sync"):
        pipeline.run(esms_source(**asking))


@pytest.fixture
def maria(request: pytest.FixtureRequest, esms: Esms) -> Callable[..., list[Any]]:
    """An empty MariaDB that the commands load into; runs SQL there."""
    url: str = request.getfixturevalue("mariadb")
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def execute(*statements: str) -> list[Any]:
        with engine.begin() as connection:
            for statement in statements:
                found = connection.exec_driver_sql(statement)
            return list(found) if found.returns_rows else []

    execute("DROP DATABASE IF EXISTS zalo", "DROP DATABASE IF EXISTS zalo_staging_esms")
    url = url.replace("localhost/", "localhost/mysql")
    esms.set(DESTINATION__SQLALCHEMY__CREDENTIALS=url)
    return execute


@pytest.mark.slow
def test_latin1_is_refused(
    maria: Callable[..., list[Any]], esms: Esms, world: Callable[..., Simulator]
) -> None:
    """Before anything is asked, by its name and with the statement that changes it."""
    simulator = world(3)
    maria("CREATE DATABASE zalo CHARACTER SET latin1")
    ended = esms("run", "--destination", "sqlalchemy")
    assert ended.status == 2
    assert "'zalo' is latin1" in ended.err
    statement = "ALTER DATABASE `zalo` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    assert ended.err.strip().endswith(statement)
    assert simulator.arrivals.requests == 0
    assert not maria("SHOW TABLES IN zalo")
    maria(statement)
    assert esms("run", "--destination", "sqlalchemy").status == 0


@pytest.mark.slow
def test_a_missing_grant_is_told(
    maria: Callable[..., list[Any]], esms: Esms, world: Callable[..., Simulator]
) -> None:
    """Before anything is asked; with it the run loads."""
    simulator = world(3)
    url = esms.env["DESTINATION__SQLALCHEMY__CREDENTIALS"]
    maria("CREATE OR REPLACE USER loader@localhost")
    esms.set(
        DESTINATION__SQLALCHEMY__CREDENTIALS=url.replace("root@", "loader@").replace(
            "/mysql", "/"
        )
    )
    for dataset in ("zalo", "zalo_staging_esms"):
        ended = esms("run", "--destination", "sqlalchemy")
        assert ended.status == 1
        (grant,) = re.findall(r"GRANT .* TO '\w+'", ended.err.splitlines()[-1])
        assert f"`{dataset}`" in grant
        maria(grant + "@localhost")
    assert simulator.arrivals.requests == 0
    assert esms("run", "--destination", "sqlalchemy").status == 0


@pytest.mark.slow
def test_letters_and_long_ids_are_kept_apart(
    maria: Callable[..., list[Any]],
    esms: Esms,
    world: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    """RefIds that differ in case are two; what is too long for a key isn't asked."""
    simulator = world()
    file = tmp_path / "some.csv"
    names = ["Abc", "abc", "ábc", "a\\b:c", "x" * 160, "y" * 161]
    file.write_text("\n".join(["ref_id", *names]) + "\n")
    words = "run", "--json", "--destination", "sqlalchemy", "--ref-ids", str(file)
    ended = esms(*words, oa_id="oa")
    assert ended.report["asked"] == 5
    assert ended.report["skipped"]["no_ref_id"] == 1
    found = maria("SELECT ref_id FROM zalo.ref_ids")
    assert {name for (name,) in found} == set(names[:5])
    assert esms(*words, oa_id="oa").report["asked"] == 0
    assert simulator.arrivals.asks.total() == 5


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg2://u:p@localhost/x", "only MySQL, MariaDB and SQLite"),
        ("mysql+hunter2://u:hunter2@localhost/x", "its driver isn't there"),
        ("mysql+pymysql://u:hunter2@localhost:hunter2/x", "isn't a connection URL"),
        ("sqlite:////nowhere/at/all.db", "there is no folder"),
    ],
)
def test_what_was_not_tried_is_refused(
    esms: Esms, world: Callable[..., Simulator], url: str, said: str
) -> None:
    """Other databases, and URLs that lead nowhere: with exit 2 and nothing of them."""
    simulator = world(3)
    ended = esms(
        *("run", "--destination", "sqlalchemy"),
        DESTINATION__SQLALCHEMY__CREDENTIALS=url,
    )
    assert ended.status == 2, ended.err
    assert said in ended.err
    assert "hunter2" not in ended.err
    assert simulator.arrivals.requests == 0
