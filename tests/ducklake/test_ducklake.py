from __future__ import annotations

import random
import signal
import subprocess

import duckdb
import pytest
from filelock import FileLock

from esms_source import esms_source, sync
from esms_source.databases import Patience
from esms_source.exceptions import PipelineBusyError
from esms_source.load.locks import dataset_lock
from esms_source.views import NAMES
from tests.integration.test_crashes import asked_again, assert_whole, odd_rows

KILLS = 12
SLICE = 200
COUNT = 1_600


ODD = odd_rows(COUNT)

FACTS = {
    "ref_ids": "oa_id, ref_id, sent_at, state, attempts, campaign, last_error",
    "callbacks": "oa_id, ref_id, row_no, telco_id, send_status, answered_by",
    "rejected_rows": 'reason, "row"',
    "api_requests": "oa_id, asked, answered, missing, failed, rows, outcome",
    "runs": "planned, asked, answered, missing, exit_code",
    "messages": "oa_id, ref_id, state, send_status_en, attempts, total_sent, campaign",
    "delivery_daily": "COLUMNS(c -> c NOT LIKE '%seconds%')",
    "failure_reasons": "*",
    "error_codes": "code, source, meaning_en",
}
"""Of tables and views what is the same in every database."""


def facts(rows):
    """Return what tables and views say that no clock does."""
    return {
        name: sorted(map(str, rows(f"SELECT {columns} FROM {name}")))
        for name, columns in FACTS.items()
    }


@pytest.fixture
def asking(simulate, api_key, secret_key):
    """Settings that ask a simulator with odd rows, and soon again."""
    return {
        "api_key": api_key,
        "secret_key": secret_key,
        "base_url": simulate(scripted=ODD).url,
        "requests_per_second": 2_000,
        "repoll_after": 0.001,
    }


def test_three_runs_leave_what_they_leave_in_duckdb(
    lake, output, warehouse, asking, monkeypatch
):
    """Tables and views: first, with what came since, and with what is due alone."""
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(output.path))
    for start, count in ((0, 400), (400, 200), (600, 0)):
        warehouse.fill(count, oas=2, start=start)
        warehouse.use(carry=["campaign"])
        in_duckdb = sync(lake.pipeline("duckdb"), **asking)
        in_lake = sync(lake.pipeline(), **asking)
        assert in_lake.asked == in_duckdb.asked > 0
    assert facts(lake.rows) == facts(output.rows)
    assert {name for (name,) in lake.rows("SHOW TABLES")} >= {*NAMES, *FACTS}


def test_plain_dlt_loads_too(lake, warehouse, asking):
    """``pipeline.run`` without ``sync``, twice."""
    warehouse.fill(50)
    for _ in range(2):
        lake.pipeline().run(esms_source(**asking))
    assert lake.rows("SELECT count(*), count(DISTINCT ref_id) FROM ref_ids") == [
        (50, 50)
    ]
    assert lake.rows("SELECT count(DISTINCT ref_id) FROM callbacks") == [(48,)]


def test_looking_makes_no_lake(lake, warehouse, simulate, start):
    """A run makes it; ``plan``, ``check`` and ``query`` do not."""
    warehouse.fill(3)
    url = simulate().url
    for words, status in ((["plan"], 0), (["check"], 0), (["query", "FROM runs"], 1)):
        process = start(*words, SOURCES__ESMS__BASE_URL=url)
        said = process.communicate(timeout=60)
        assert process.returncode == status, said
    assert not lake.catalog.exists()
    assert not lake.files.exists()


def test_a_lake_can_be_the_warehouse(lake, warehouse, asking, output, monkeypatch):
    """RefIds are read from a table of it, and loaded elsewhere."""
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(output.path))
    warehouse.fill(20)
    sync(lake.pipeline(), **asking)
    read = {"destination": "ducklake", "dataset_name": "zalo", "table": "ref_ids"}
    table = {**read, "oa_id_column": "oa_id", "sent_at_column": "sent_at"}
    monkeypatch.delenv("SOURCES__ESMS__REF_IDS__CREDENTIALS")
    report = sync(lake.pipeline("duckdb"), **asking, ref_ids=table)
    assert report.planned == 20


def test_another_loader_is_waited_for(lake, warehouse, asking):
    """Whoever holds the file beside the catalog; with the name of it."""
    warehouse.fill(3)
    sync(lake.pipeline(), **asking)
    with (
        FileLock(f"{lake.catalog}.esms.lock"),
        pytest.raises(PipelineBusyError, match=r"catalog\.duckdb"),
        dataset_lock(lake.pipeline(), Patience(seconds=0.1)),
    ):
        pytest.fail("there were two")


def test_who_reads_the_catalog_is_waited_for(lake, warehouse, asking, start, simulate):
    """DuckDB lets one process open its file: a run says who, and goes on afterwards."""
    warehouse.fill(3)
    sync(lake.pipeline(), **asking)
    with duckdb.connect(lake.catalog):
        process = start("run", SOURCES__ESMS__BASE_URL=simulate().url)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said


def test_kills_at_random_moments_lose_and_double_nothing(
    lake, warehouse, simulate, start, record_property
):
    """What is killed again and again ends whole, whatever becomes of its folder."""
    warehouse.fill(COUNT)
    simulator = simulate(scripted=ODD, latency=0.05)
    settings = {
        "SOURCES__ESMS__BASE_URL": simulator.url,
        "SOURCES__ESMS__SLICE_REF_IDS": str(SLICE),
        "SOURCES__ESMS__MAX_IN_FLIGHT": "1",
    }
    dice = random.Random(7)
    kills = folders = 0
    while kills < KILLS:
        folder = str(lake.catalog.parent / f"state-{folders}")
        process = start("run", **settings, PIPELINES_DIR=folder)
        try:
            _, said = process.communicate(timeout=dice.uniform(1.5, 8))
            assert process.returncode == 0, said
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        folders += dice.randrange(3) == 0
    for _ in range(2):
        process = start("run", **settings, PIPELINES_DIR=folder)
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    assert_whole(lake, COUNT)
    again = asked_again(simulator, COUNT)
    record_property("asked again per kill", again / kills)
    assert again <= kills * SLICE
