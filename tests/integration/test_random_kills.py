"""SIGKILL at any moment: afterwards nothing is lost and nothing doubled.

Runs of ``sync`` and of plain dlt, into DuckDB, PostgreSQL and files; after each
kill dlt's folder is kept or lost, or a pipeline of another name goes on.
ESMS_TEST_KILLS says how often each is killed: once, with ESMS_TEST_LONG=1 fifty times.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from esms_source.simulator import sample_row
from tests.conftest import ref_id
from tests.integration.test_lake import FORMATS, Lake

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


FEW, MANY = "1", "50"
KILLS = int(
    os.environ.get("ESMS_TEST_KILLS", MANY if os.environ.get("ESMS_TEST_LONG") else FEW)
)
SLICE = 400
COUNT = max(1_600, KILLS * SLICE // 2)
ODD = COUNT // 40
LOADS = str(COUNT // SLICE + 2)
NUMBERS = itertools.count()

PLAIN = """
import sys
import dlt
from esms_source import esms_source
destination, name, folder, loads = sys.argv[1:]
pipeline = dlt.pipeline(
    name, destination=destination, dataset_name="zalo", pipelines_dir=folder
)
for _ in range(int(loads)):  # what is pending, then what is due
    pipeline.run(esms_source(max_ref_ids=400))
"""

COMPLETED = "load_id IN (SELECT load_id FROM _dlt_loads)"


def scripted(number: int) -> list[Any] | None:
    """Return odd rows for some RefIds: two, none, one not final, one and a stray."""
    row = sample_row(ref_id(number))
    odd = {
        0: [row, row | {"Telcoid": 2}],
        1: [],
        2: [row | {"SendStatus": 1, "SendSuccess": 0}],
        3: [row, sample_row(f"stranger-{number}")],
    }
    return odd.get(number % 40)


@pytest.fixture
def query(
    kind: str,
    request: pytest.FixtureRequest,
    esms: Esms,
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], list[Any]]:
    """Let commands load into one kind of database; return what a query selects."""
    esms.set(DESTINATION=kind)
    if kind == "duckdb":
        return output.rows
    if kind in FORMATS:
        lake = Lake(esms.folder)
        esms.set(DESTINATION="filesystem", table_format=kind)
        esms.set(DESTINATION__FILESYSTEM__BUCKET_URL=lake.url)
        return lake.rows
    # Its driver isn't everywhere that this is tested.
    from tests.integration.test_postgres import Server  # noqa: PLC0415

    url: str = request.getfixturevalue("postgres")
    server = Server(url, monkeypatch)
    schema = f"zalo_{next(NUMBERS)}"
    server.execute(f"CREATE DATABASE {schema}")
    parts = urlsplit(url)
    server = Server(urlunsplit(parts._replace(path=f"/{schema}")), monkeypatch)
    esms.set(DESTINATION__POSTGRES__CREDENTIALS=server.url)
    return lambda sql: server.rows(f"SET search_path = zalo; {sql}")


def run_sync(esms: Esms, name: str, folder: str) -> subprocess.Popen[str]:
    """Start ``esms run``."""
    words = ["--destination", esms.env["DESTINATION"], "--pipeline", name]
    return subprocess.Popen(
        [sys.executable, "-m", "esms_source", "run", *words],
        env=os.environ | esms.env | {"PIPELINES_DIR": folder},
        cwd=esms.folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_plain(esms: Esms, name: str, folder: str) -> subprocess.Popen[str]:
    """Start plain dlt, some loads of a slice each."""
    return subprocess.Popen(
        [sys.executable, "-c", PLAIN, esms.env["DESTINATION"], name, folder, LOADS],
        env=os.environ | esms.env,
        cwd=esms.folder,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (run_sync, "duckdb"),
        (run_sync, "postgres"),
        *((run_sync, table_format) for table_format in FORMATS),
        (run_plain, "duckdb"),
        (run_plain, "postgres"),
    ],
)
def test_kills_at_random_moments_lose_and_double_nothing(
    start: Callable[[Esms, str, str], subprocess.Popen[str]],
    query: Callable[[str], list[Any]],
    esms: Esms,
    world: Callable[..., Simulator],
    record_property: Callable[[str, object], None],
) -> None:
    """What is killed again and again ends whole, whatever becomes of its state."""
    odd = {
        ref_id(number): rows
        for number in range(COUNT)
        if (rows := scripted(number)) is not None
    }
    simulator = world(COUNT, scripted=odd, latency=0.1)
    esms.set(slice_ref_ids=SLICE, max_in_flight=1)
    dice = random.Random(11)
    name, folders, kills = "esms", 0, 0
    for _ in range(KILLS):
        process = start(esms, name, str(esms.folder / f"state-{folders}"))
        try:
            process.communicate(timeout=dice.uniform(0.5, 5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        fate = dice.randrange(3)
        folders += fate == 1
        name = f"other_{folders}_{kills}" if fate == 2 else name
    for _ in range(2):
        quiet = start(esms, name, str(esms.folder / f"state-{folders}"))
        _, said = quiet.communicate(timeout=120)
        assert quiet.returncode == 0, said
    assert_whole(query)
    asks = simulator.arrivals.asks
    record_property("kills", kills)
    record_property("asked again per kill", (asks.total() - COUNT) / max(kills, 1))
    assert len(asks) == COUNT
    assert asks.total() - COUNT <= kills * SLICE


def assert_whole(query: Callable[[str], list[Any]]) -> None:
    """Check that every RefId stands there once, in every table, with what came."""
    assert query("SELECT count(*), count(DISTINCT ref_id) FROM ref_ids") == [
        (COUNT, COUNT)
    ]
    states = dict(query("SELECT state, count(*) FROM ref_ids GROUP BY 1"))
    assert states == {"final": COUNT - 2 * ODD, "missing": ODD, "pending": ODD}
    assert query(
        "SELECT count(*), count(DISTINCT ref_id), count(DISTINCT (ref_id, telco_id))"
        " FROM callbacks"
    ) == [(COUNT, COUNT - ODD, COUNT)]
    # What of a plain run's load never completed may stand there for a day.
    assert query(
        f"""SELECT count(*), count(DISTINCT "row"::text) FROM rejected_rows
        WHERE {COMPLETED}"""
    ) == [(ODD, ODD)]
    assert query(
        f"""SELECT sum(asked), sum(missing), sum(failed),
        count(*) - count(DISTINCT (load_id, request_no)) FROM api_requests
        WHERE {COMPLETED}"""
    ) == [(COUNT, ODD, 0, 0)]
    assert not query(
        "SELECT load_id FROM ref_ids UNION SELECT load_id FROM callbacks"
        " EXCEPT SELECT load_id FROM _dlt_loads"
    )
    assert not query("SELECT load_id FROM _dlt_loads GROUP BY 1 HAVING count(*) > 1")
