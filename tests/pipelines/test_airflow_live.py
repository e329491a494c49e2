"""The DAG under a live scheduler: its task is killed, and the retry ends the work."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from esms_source.tables import RUNS, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.simulator import Simulator

DAG = Path(__file__).parents[2] / "pipelines" / "airflow_dag.py"
CHANGES = {
    "retry_delay=timedelta(minutes=5)": "retry_delay=timedelta(seconds=0)",
    'SCHEDULE: Final = "*/15 * * * *"': "SCHEDULE: Final = None",
}
PROCESSES = (
    ("api-server",),
    ("scheduler", "--skip-serve-logs"),
    ("dag-processor",),
)
MOST_SECONDS = 60
ENDED = ("success", "failed")

SLICE, HALF = 100, 35
"""RefIds of a load, and the requests, of 60, after which the task is killed."""

LOAD = "FROM task_instance WHERE task_id = 'load'"
NEW_ASSETS = """
    SELECT name, uri FROM asset JOIN asset_event ON asset_id = asset.id ORDER BY name
"""


class LiveAirflow:
    """An Airflow of three processes on loopback, as ``airflow standalone`` starts it.

    Attributes:
        home: Its folder, with database and logs.
    """

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self._url = url
        self._token = ""

    def log_in(self) -> None:
        """Wait for the API, and let it trust us."""
        self.wait_until(self._ask_for_token)

    def call(self, method: str, path: str, **body: object) -> dict[str, Any]:
        """Call Airflow's REST API."""
        answer = requests.request(
            method,
            f"{self._url}/api/v2/{path}",
            json=body or None,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=30,
        )
        assert answer.ok, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def trigger(self, dag_id: str) -> str:
        """Start a run of a DAG, once it is known; return its id."""
        self.wait_until(
            lambda: (
                dag_id in {dag["dag_id"] for dag in self.call("GET", "dags")["dags"]}
            )
        )
        self.call("PATCH", f"dags/{dag_id}", is_paused=False)
        run = self.call("POST", f"dags/{dag_id}/dagRuns", logical_date=None)
        return str(run["dag_run_id"])

    def state_of(self, dag_id: str, run_id: str) -> str:
        """Return what has become of a run."""
        return str(self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def log(self, run_id: str, attempt: int) -> list[str]:
        """Return what the logger ``esms_source`` said in a try of the task ``load``."""
        task = self.home / "logs" / "dag_id=esms" / f"run_id={run_id}" / "task_id=load"
        lines = (task / f"attempt={attempt}.log").read_text("utf-8").splitlines()
        records = map(json.loads, lines)
        return [r["event"] for r in records if r.get("logger") == "esms_source"]

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Return what a query on Airflow's own database selects."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as found:
            return found.execute(sql, values).fetchall()

    def wait_until(self, is_true: Callable[[], object]) -> None:
        """Wait until something is true, for a minute at most."""
        until = time.monotonic() + MOST_SECONDS
        while not is_true():
            assert time.monotonic() < until, self.said()
            time.sleep(0.1)

    def said(self) -> str:
        """Return the end of what each process wrote."""
        return "\n".join(
            f"{path.name}: {path.read_text('utf-8')[-3_000:]}"
            for path in self.home.glob("*.out")
        )

    def _ask_for_token(self) -> bool:
        with suppress(requests.ConnectionError):
            answer = requests.get(f"{self._url}/auth/token", timeout=30)
            if answer.ok:
                self._token = answer.json()["access_token"]
        return bool(self._token)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a new home of Airflow, with the DAG in it, in the environment."""
    home = tmp_path / "airflow"
    (home / "dags").mkdir(parents=True)
    source = DAG.read_text("utf-8")
    for old, new in CHANGES.items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    (home / "dags" / DAG.name).write_text(source, "utf-8")
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "API__BASE_URL": url,
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__WORKERS": 1,
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__PARALLELISM": 2,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 5,
        "USAGE_DATA_COLLECTION__ENABLED": False,
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__{name}", str(value))
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    monkeypatch.setenv("PIPELINES_DIR", str(tmp_path / "kept"))
    return home


@pytest.fixture
def start(environment: Path) -> Iterator[Callable[[], LiveAirflow]]:
    """Start an Airflow in the environment of the test; end its processes afterwards."""
    airflow = [sys.executable, "-m", "airflow"]
    home = environment
    with ExitStack() as stack:

        def begin() -> LiveAirflow:
            with (home / "migrate.out").open("w") as out:
                subprocess.run(
                    [*airflow, "db", "migrate"], stdout=out, stderr=out, check=True
                )
            for words in PROCESSES:
                out = stack.enter_context((home / f"{words[0]}.out").open("w"))
                process = subprocess.Popen(
                    [*airflow, *words], stdout=out, stderr=out, start_new_session=True
                )
                stack.callback(_end, process)
            made = LiveAirflow(home, os.environ["AIRFLOW__API__BASE_URL"])
            made.log_in()
            return made

        yield begin


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process in order, and what it leaves of its own session by force."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_task_that_is_killed_half_way_is_finished_by_its_retry(
    start: Callable[[], LiveAirflow],
    serve: Callable[..., Simulator],
    assert_whole: Callable[[Simulator, int], None],
    monkeypatch: pytest.MonkeyPatch,
    secret_key: str,
) -> None:
    """Nothing is lost or doubled, the log tells of both tries, and assets are new."""
    simulator = serve(scripted={})
    settings = {"BATCH_SIZE": 10, "SLICE_REF_IDS": SLICE, "REQUESTS_PER_SECOND": 20}
    for name, value in settings.items():
        monkeypatch.setenv(f"SOURCES__ESMS__{name}", str(value))
    airflow = start()
    run_id = airflow.trigger("esms")
    airflow.wait_until(lambda: simulator.arrivals.requests >= HALF)
    os.kill(airflow.rows(f"SELECT pid {LOAD}")[0][0], signal.SIGKILL)
    airflow.wait_until(lambda: airflow.state_of("esms", run_id) in ENDED)
    assert airflow.state_of("esms", run_id) == "success", airflow.said()
    assert airflow.rows(f"SELECT state, try_number {LOAD}") == [("success", 2)]

    assert_whole(simulator, SLICE)
    first, second = (airflow.log(run_id, attempt) for attempt in (1, 2))
    assert first[0] == "esms, zalo: 600 RefIds to ask in 60 requests"
    assert first[1].endswith(f"{SLICE} of 600 RefIds asked")
    asked = int(second[-1].split()[1])
    assert second[0].startswith(f"esms, zalo: {asked} RefIds to ask")
    assert 0 < asked < 600
    assert airflow.rows(NEW_ASSETS) == [
        (f"esms_{name}", f"esms://zalo/{name}")
        for name in sorted(table.name for table in (*TABLES, RUNS))
    ]
    written = [path.read_text("utf-8") for path in airflow.home.rglob("*.log")]
    assert len(written) >= 3
    assert not [text for text in written if secret_key in text]
