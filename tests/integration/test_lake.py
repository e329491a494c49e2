"""Files in place of a database: events, and the current rows that follow from them."""

from __future__ import annotations

import json
import logging
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt
import duckdb
import pytest

from esms_source import esms_source, sync
from esms_source.cli.query import run_query
from esms_source.config import resolve_settings
from esms_source.exceptions import ConfigError, DestinationError, causes
from esms_source.tables import CALLBACKS, REF_IDS
from tests.conftest import ref_id
from tests.integration.test_crashes import asked_again, assert_whole, odd_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms

PACKAGES = {"delta": "deltalake", "iceberg": "pyiceberg"}
FORMATS = [
    "parquet",
    *(name for name, package in PACKAGES.items() if find_spec(package)),
]
"""Delta and Iceberg have an environment of their own: ``make test-lakes``."""

OF_THE_RUN = {"load_id", "polled_at", "first_polled_at", "last_polled_at"} | {
    *("next_poll_at", "first_answered_at", "final_at", "failed_since")
}
"""Columns that differ between two runs of the same, being times."""

MESSAGES = (
    "SELECT outcome, error_meaning_en, campaign, count(*), sum(total_price)"
    " FROM messages GROUP BY ALL ORDER BY ALL"
)

POINTS = (
    ("asking", 2),
    ("before normalising", 1),
    ("at the end of planning", 1),
    ("before the normalised package", 1),
    ("after the normalised package", 1),
    ("before the load", 1),
    ("before a job", 1),
    ("before a job", 4),
    ("after a job", 1),
    ("after a job", 3),
    ("between two tables", 2),
    ("after the data in files", 1),
    ("after the bookkeeping in files", 1),
    ("at the end of the load", 1),
)
"""Where a run into files is killed."""


class Lake:
    """A folder that pipelines write files into."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self._folder = folder
        self.url = url or str(folder / "lake")
        self._read = self.pipeline()

    def pipeline(self, name: str = "lake") -> dlt.Pipeline:
        """Return a pipeline into the files."""
        return dlt.pipeline(
            name,
            destination=dlt.destinations.filesystem(self.url),
            dataset_name="zalo",
            pipelines_dir=str(self._folder / "pipelines"),
        )

    def rows(self, sql: str) -> list[Any]:
        """Return what a query selects; bare values of one column."""
        _, rows = run_query(self._read, resolve_settings(), sql)
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Where files go."""
    return Lake(tmp_path)


def assert_like_duckdb(
    lake: Lake, output: Output, simulate: Callable[..., Simulator], asking: Any
) -> None:
    """Run three times into each, and compare all tables and a view."""
    for pipeline in (lake.pipeline(), output.pipeline()):
        asking["base_url"] = simulate(plain=False).url
        first = sync(pipeline, repoll_after=0, slice_ref_ids=400, **asking)
        assert (first.asked, first.failed) == (900, 0)
        again = sync(pipeline, repoll_after=0, slice_ref_ids=400, **asking)
        assert 0 < again.asked < 900
        by_choice = sync(pipeline, repoll=["final"], max_ref_ids=50, **asking)
        assert by_choice.asked == 50
    queries = [
        "SELECT sum(asked), sum(answered), sum(missing), sum(failed) FROM api_requests",
        'SELECT reason, "row" FROM rejected_rows ORDER BY ALL',
        "SELECT count(*), sum(asked), bool_and(exit_code = 0) FROM runs",
        "SELECT * FROM error_codes ORDER BY ALL",
        MESSAGES,
    ]
    for table in (REF_IDS, CALLBACKS):
        columns = [c.name for c in table.columns if c.name not in OF_THE_RUN]
        carried = ["campaign"] if table is REF_IDS else []
        queries.append(
            f"SELECT {', '.join(columns + carried)} FROM {table.name} ORDER BY ALL"
        )
    for sql in queries:
        assert lake.rows(sql) == output.rows(sql)


@pytest.fixture
def carrying(warehouse) -> None:
    """Three OAs, and a column to carry."""
    warehouse.fill(900, oas=3)
    warehouse.use(oa_id_column="oa_id", sent_at_column="sent_at", carry=["campaign"])


@pytest.mark.usefixtures("carrying")
@pytest.mark.parametrize("table_format", FORMATS)
def test_three_runs_into_files_are_as_those_into_duckdb(
    lake: Lake, output: Output, simulate, asking, table_format: str, caplog
):
    """New messages, open ones asked again, and settled ones asked by choice."""
    caplog.set_level(logging.INFO, "esms_source")
    asking["table_format"] = table_format
    assert_like_duckdb(lake, output, simulate, asking)
    assert "no views are made in files; esms query shows them" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("table_format", FORMATS)
def test_a_kill_at_any_named_point_loses_and_doubles_nothing_in_files(
    esms: Esms, world: Callable[..., Simulator], table_format: str
):
    """Each run is killed at another point, the last one ends what is left."""
    count, slice_ref_ids = 4_000, 400
    lake = Lake(esms.folder)
    esms.set(slice_ref_ids=slice_ref_ids, table_format=table_format)
    esms.set(DESTINATION__FILESYSTEM__BUCKET_URL=lake.url)
    simulator = world(count, scripted=odd_rows(count))
    argv = ("run", "--destination", "filesystem")
    points = [("after a job", 1), *POINTS]  # the first one before any load completed
    for point in points:
        esms.killed_at(*point, *argv)
    quiet = esms(*argv)
    assert quiet.status == 0, quiet.err
    assert_whole(lake, count)
    assert asked_again(simulator, count) <= len(points) * slice_ref_ids


def count_in(relation: str) -> int:
    """Count rows of files."""
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT count(*) FROM {relation}").fetchall()
    return int(found[0][0])


@pytest.fixture
def loaded(esms: Esms, world: Callable[..., Simulator]) -> Lake:
    """A lake with the messages of a run, which commands know."""
    lake = Lake(esms.folder)
    esms.set(
        DESTINATION__FILESYSTEM__BUCKET_URL=lake.url, ref_ids__carry='["campaign"]'
    )
    world(600, scripted=odd_rows(600))
    done = esms("run", "--destination", "filesystem")
    assert done.status == 0, done.err
    return lake


def test_commands_read_files_by_the_names_of_tables(esms: Esms, loaded: Lake):
    """Of check, plan, query, lookup and report, none knows of events."""
    into = ("--destination", "filesystem")
    checked = esms("check", *into)
    assert f"file://{loaded.url}/zalo/" in checked.out
    assert "600 RefIds in the ledger" in checked.out
    assert "600 rows, 0 of them not in the ledger" in checked.out
    planned = json.loads(esms("plan", *into, "--json").out)
    assert [(oa["due"], oa["settled"], oa["waiting"]) for oa in planned["oas"]] == [
        (0, 570, 30)
    ]
    sql = "SELECT state, count(*) AS n FROM ref_ids GROUP BY state ORDER BY state"
    found = json.loads(esms("query", sql, *into, "--json").out)
    assert found[0] == {"state": "final", "n": 570}
    assert esms("lookup", ref_id(5), *into).status == 0
    page = esms.folder / "page.html"
    assert esms("report", *into, "--output", str(page)).status == 0
    assert '"=c1"' in page.read_text()


def test_settling_by_hand_adds_an_event(esms: Esms, loaded: Lake):
    """What is settled isn't due, carries what it carried, and stays answered."""
    missing = loaded.rows("SELECT min(ref_id) FROM ref_ids WHERE state = 'missing'")
    path = esms.folder / "settled.csv"
    path.write_text("\n".join(["ref_id", *missing, "never-asked"]))
    esms.set(oa_id="oa0")
    settled = esms("settle", "--destination", "filesystem", "--ref-ids", str(path))
    assert settled.out == "2 RefIds are never asked again\n", settled.err
    assert loaded.rows(
        "SELECT attempts, next_poll_at, last_error, campaign IS NULL FROM ref_ids"
        " WHERE state = 'expired' ORDER BY attempts"
    ) == [(0, None, "settled by hand", True), (1, None, "settled by hand", False)]
    assert loaded.rows("SELECT count(*) FROM ref_ids") == [601]
    assert loaded.rows("SELECT count(DISTINCT ref_id) FROM callbacks") == [585]


def test_compact_writes_current_rows_as_plain_tables(esms: Esms, loaded: Lake):
    """Twice: the second time in place of the first; runs go on by the events."""
    for _ in range(2):
        done = esms("compact", "--destination", "filesystem")
        assert done.out == "ref_ids: 600 rows\ncallbacks: 600 rows\n", done.err
        folder = Path(loaded.url, "zalo")
        for table, rows in (("ref_ids", 600), ("callbacks", 600)):
            files = f"read_parquet('{folder / table}/*.parquet')"
            assert count_in(files) == rows
        assert loaded.rows("SELECT count(*) FROM ref_ids") == [600]
    again = esms("run", "--destination", "filesystem", "--repoll", "missing")
    assert again.status == 0, again.err
    assert loaded.rows("SELECT count(*) FROM ref_id_events") == [615]
    assert loaded.rows("SELECT count(*) FROM ref_ids") == [600]


def test_what_files_can_not_is_refused_by_name(esms: Esms, loaded: Lake):
    """Before anything is asked or written, with the remedy."""
    into = ("--destination", "filesystem")
    forgotten = esms("forget", "--phone", "0909090909", *into)
    assert (forgotten.status, forgotten.out) == (1, "")
    assert "esms deletes no rows" in forgotten.err
    assert "nothing to compact" in esms("compact").err
    for setting, value, said in (
        ("keep_requests", 30, "keep_requests: no rows are deleted in files"),
        ("table_format", "lance", "use one of parquet, delta, iceberg"),
    ):
        esms.set(**{setting: value})
        refused = esms("run", *into)
        assert refused.status == 2
        assert said in refused.err
        esms.set(keep_requests="", table_format="parquet")
        del esms.env["SOURCES__ESMS__KEEP_REQUESTS"]
    Path(loaded.url, "zalo", "ref_id_events", "_delta_log").mkdir()
    Path(loaded.url, "zalo", "ref_id_events", "_delta_log", "0.json").touch()
    path = esms.folder / "settled.csv"
    path.write_text("ref_id\nnever-asked\n")
    for argv in (("run",), ("compact",), ("settle", "--ref-ids", str(path))):
        assert "is kept as delta; set it to delta" in esms(*argv, *into).err
    shutil.rmtree(Path(loaded.url, "zalo", "ref_id_events"))
    gone = esms("run", *into)
    assert gone.status == 1
    assert "'ref_id_events' is gone, though loads of it are known" in gone.err


def test_plain_dlt_is_refused_before_anything_is_asked(
    warehouse, lake: Lake, asking, simulate
):
    """Its rows would be merged, which files can't."""
    warehouse.fill(10)
    simulator = simulate()
    asking["base_url"] = simulator.url
    with pytest.raises(Exception, match="use sync") as refused:
        lake.pipeline().run(esms_source(**asking))
    assert any(isinstance(link, ConfigError) for link in causes(refused.value))
    assert simulator.arrivals.requests == 0


def test_a_layout_that_hides_the_load_is_refused(
    warehouse, lake: Lake, asking, monkeypatch
):
    """Files of a load that never completed couldn't be told."""
    warehouse.fill(10)
    monkeypatch.setenv(
        "DESTINATION__FILESYSTEM__LAYOUT", "{table_name}/{file_id}.{ext}"
    )
    with pytest.raises(DestinationError, match="leave DESTINATION__FILESYSTEM__LAYOUT"):
        sync(lake.pipeline(), **asking)


def test_a_lake_that_holds_nothing_yet_says_so(lake: Lake):
    """As an empty database does."""
    with pytest.raises(DestinationError, match="nothing is loaded into"):
        lake.rows("SELECT 1")


def test_the_sql_of_the_page_shows_what_is_current(loaded: Lake, monkeypatch):
    """As a DuckDB without the program reads the files."""
    page = Path(__file__).parents[2] / "docs" / "lakes.md"
    (sql,) = re.findall(r"```sql\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(Path(loaded.url, "zalo"))
    with duckdb.connect() as connection:
        connection.execute(sql)
        for table in ("ref_ids", "callbacks"):
            counted = f"SELECT count(*), count(DISTINCT ref_id) FROM {table}"
            assert connection.sql(counted).fetchall() == loaded.rows(counted)


def test_an_event_from_the_future_gives_way_to_one_that_is_not(
    esms: Esms, loaded: Lake
):
    """A host's clock was a year ahead: its RefIds would be asked by each run."""
    events = Path(loaded.url, "zalo", "ref_id_events")
    load_id = "1790000000.5"
    later = ", ".join(
        f"{name} + INTERVAL 1 YEAR AS {name}"
        for name in ("first_polled_at", "last_polled_at")
    )
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * REPLACE ({later}, 'pending' AS state,"
            f" last_polled_at + INTERVAL 1 YEAR AS next_poll_at,"
            f" '{load_id}' AS load_id)"
            f" FROM '{events}/*.parquet' WHERE state = 'final' LIMIT 10)"
            f" TO '{events / load_id}.0a.parquet'"
        )
    loads = Path(loaded.url, "zalo", "_dlt_loads")
    shutil.copy(next(loads.iterdir()), loads / f"esms__{load_id}.jsonl")
    into = ("--destination", "filesystem", "--json")
    assert esms("run", *into).report["asked"] == 0
    assert loaded.rows("SELECT count(*) FROM ref_ids WHERE state = 'final'") == [570]


def test_of_events_of_the_same_moment_one_counts(loaded: Lake):
    """Also where they are alike, in one file or in two."""
    events = Path(loaded.url, "zalo", "ref_id_events")
    load_id = "1790000000.5"
    with duckdb.connect() as connection:
        connection.execute(
            f"CREATE TABLE loaded AS FROM '{events}/*.parquet';"
            f"COPY (SELECT * REPLACE ('{load_id}' AS load_id) FROM loaded"
            f" UNION ALL FROM loaded) TO '{events / load_id}.0a.parquet'"
        )
    loads = Path(loaded.url, "zalo", "_dlt_loads")
    shutil.copy(next(loads.iterdir()), loads / f"esms__{load_id}.jsonl")
    assert loaded.rows("SELECT count(*) FROM ref_id_events") == [1_800]
    counted = "SELECT count(*), count(DISTINCT ref_id) FROM "
    assert loaded.rows(counted + "ref_ids") == [(600, 600)]
    assert loaded.rows(counted + "callbacks") == [(600, 585)]
