"""The Airflow DAGs, run for real by ``dag.test()``, one after the other."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from esms_source.polling.poller import OUTAGE_AFTER
from esms_source.tables import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.simulator import Simulator
    from tests.conftest import Output

RUNNER = Path(__file__).with_name("dag_runner.py")
DAG = Path(__file__).parents[2] / "pipelines" / "airflow_dag.py"
ALERTS = ("airflow_alerts.py", "esms_alerts.py")
DELAY = "retry_delay=timedelta(minutes=5)"
PASSED_ON = ("SOURCES__", "DESTINATION__", "PIPELINES_DIR", "AIRFLOW_VAR_")


class Airflow:
    """An Airflow with a database and a process of its own."""

    def __init__(self, home: Path, process: subprocess.Popen[str]) -> None:
        self._home = home
        self._process = process
        self._seen = 0
        self._run_id = ""

    def run(self, dag_id: str, **conf: object) -> str:
        """Run a DAG once in the environment of the test; return how it ended."""
        assert self._process.stdin
        assert self._process.stdout
        passed_on = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}
        asked = {"dag_id": dag_id, "conf": conf, "environment": passed_on}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        self._seen = len(self._log())
        answer = self._process.stdout.readline()
        assert answer, self.log
        self._run_id = json.loads(answer)
        [(state,)] = self.rows("SELECT state FROM dag_run WHERE run_id = ?")
        return str(state)

    @property
    def log(self) -> str:
        """What the last run logged."""
        return self._log()[self._seen :]

    def rows(self, sql: str) -> list[Any]:
        """Return what a query on Airflow's own database selects of the last run."""
        with closing(sqlite3.connect(self._home / "airflow.db")) as connection:
            return connection.execute(sql, [self._run_id]).fetchall()

    def tries(self, task_id: str) -> list[tuple[str, int]]:
        """Return state and number of tries of each instance of a task."""
        sql = "SELECT task_id, state, try_number FROM task_instance WHERE run_id = ?"
        return [
            (state, tries) for name, state, tries in self.rows(sql) if name == task_id
        ]

    def reports(self) -> list[dict[str, Any]]:
        """Return the reports in XCom."""
        sql = (
            "SELECT value FROM xcom WHERE run_id = ? AND task_id = 'load'"
            " AND key = 'return_value'"
        )
        return [json.loads(value) for (value,) in self.rows(sql)]

    def _log(self) -> str:
        return (self._home / "log").read_text("utf-8")


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Start an Airflow in which a retry comes at once."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    source = DAG.read_text("utf-8")
    assert source.count(DELAY) == 1
    source = source.replace(DELAY, "retry_delay=timedelta(seconds=0)")
    (home / "dags" / DAG.name).write_text(source, "utf-8")
    for name in ALERTS:
        source = DAG.with_name(name).read_text("utf-8")
        source = source.replace("retries=3, ", "")
        (home / "dags" / name).write_text(source, "utf-8")
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }
    with (home / "log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=environment,
            stdout=log,
            stderr=log,
            check=True,
        )
        with subprocess.Popen(
            [sys.executable, str(RUNNER)],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process:
            yield Airflow(home, process)


@pytest.fixture
def airflow(
    started: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Airflow:
    """An Airflow whose tasks keep dlt's files in the folder ``kept``."""
    monkeypatch.setenv("PIPELINES_DIR", str(tmp_path / "kept"))
    return started


def test_the_file_imports_without_a_warning(tmp_path: Path) -> None:
    """Python raises every warning as an error, and finds nothing to raise."""
    subprocess.run(
        [sys.executable, "-W", "error", str(DAG)],
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path)},
        check=True,
    )


def test_a_second_run_asks_what_is_due(
    airflow: Airflow,
    serve: Callable[..., Simulator],
    output: Output,
    tmp_path: Path,
    unanswered: set[tuple[str, str]],
    asked_times: Callable[[Simulator, int], set[tuple[str, str]]],
) -> None:
    """Both runs leave a report in XCom, and tell that each table may be new."""
    simulator = serve()
    for asked, answered in ((600, 597), (3, 0)):
        assert airflow.run("esms") == "success", airflow.log
        [report] = airflow.reports()
        assert (report["asked"], report["answered"]) == (asked, answered)
        assert airflow.rows(
            "SELECT count(*) FROM asset_event WHERE source_run_id = ?"
        ) == [(len(TABLES) + 1,)]
    assert asked_times(simulator, 2) == unanswered
    assert len(asked_times(simulator, 1)) == 597
    assert output.rows("SELECT count(*) FROM ref_ids") == [600]
    assert (tmp_path / "kept" / "esms" / "state.json").exists()


def test_an_alert_that_finds_something_fails_its_task(
    airflow: Airflow, serve: Callable[..., Simulator], output: Output
) -> None:
    """All is well after a run; a run that failed is told, and nothing else."""
    serve()
    assert airflow.run("esms") == "success", airflow.log
    assert airflow.run("esms_alerts") == "success", airflow.log
    output.execute("UPDATE runs SET exit_code = 1, error = 'said why'")
    assert airflow.run("esms_alerts") == "failed"
    tasks = "SELECT task_id FROM task_instance WHERE run_id = ? AND state = 'failed'"
    assert airflow.rows(tasks) == [("run_failed",)]
    assert "said why" in airflow.log


def test_a_run_can_be_limited_and_repeated_by_params(
    airflow: Airflow, serve: Callable[..., Simulator]
) -> None:
    """The params of a run choose among settled RefIds what to ask again."""
    serve()
    airflow.run("esms", max_ref_ids=400)
    assert airflow.reports()[0]["asked"] == 400
    moments = {"since": "2026-01-05T00:05:00Z", "until": "2026-01-05T00:06:00"}
    airflow.run("esms", repoll=["final"], **moments)
    assert airflow.reports()[0]["asked"] == 60


def test_each_oa_has_a_task_and_a_pipeline_of_its_own(
    airflow: Airflow,
    serve: Callable[..., Simulator],
    output: Output,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mapped tasks share the dataset, and each asks for its OA only."""
    monkeypatch.setenv("AIRFLOW_VAR_ESMS_OA_IDS", '["oa0", "oa1"]')
    simulator = serve()
    assert airflow.run("esms_per_oa") == "success", airflow.log
    assert [report["asked"] for report in airflow.reports()] == [300, 300]
    assert set(simulator.arrivals.asks.values()) == {1}
    assert output.rows("SELECT count(*) FROM ref_ids") == [600]
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names >= {"esms_oa0", "esms_oa1"}


def test_failed_ref_ids_fail_the_run_for_somebody_to_see(
    airflow: Airflow, serve: Callable[..., Simulator]
) -> None:
    """What was answered is loaded by one task, and another fails with the reason."""
    serve(refused_oas=frozenset({"oa1"}))
    assert airflow.run("esms") == "failed"
    assert airflow.tries("load") == [("success", 1)]
    assert airflow.tries("confirm") == [("failed", 1)]
    assert airflow.reports()[0]["failed"] == 300
    assert "RefIds failed, with how many" in airflow.log


def test_what_somebody_must_fix_is_not_tried_again(
    airflow: Airflow, serve: Callable[..., Simulator], secret_key: str
) -> None:
    """A refused key fails the task at once, and the log says the remedy."""
    serve(api_key="another key")
    assert airflow.run("esms") == "failed"
    assert airflow.tries("load") == [("failed", 1)]
    assert "check api_key and secret_key" in airflow.log
    assert secret_key not in airflow.log


def test_a_busy_pipeline_is_tried_again(
    airflow: Airflow, serve: Callable[..., Simulator], tmp_path: Path
) -> None:
    """A pipeline that another run holds is tried four times more, and asks nothing."""
    simulator = serve()
    (tmp_path / "kept").mkdir()
    with FileLock(tmp_path / "kept" / "esms.esms.lock"):
        assert airflow.run("esms") == "failed"
    assert airflow.tries("load") == [("failed", 5)]
    assert "another run holds the pipeline" in airflow.log
    assert simulator.arrivals.requests == 0


def test_a_retry_asks_nothing_again_that_was_answered(
    airflow: Airflow,
    serve: Callable[..., Simulator],
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage after five requests ends the first try; the second does the rest."""
    limits = {"BATCH_SIZE": "10", "MAX_IN_FLIGHT": "1", "MAX_ATTEMPTS": "1"}
    for name, value in limits.items():
        monkeypatch.setenv(f"SOURCES__ESMS__{name}", value)
    simulator = serve(
        scripted={},
        on_request=lambda number, *_: "500" if 5 < number <= 5 + OUTAGE_AFTER else None,
    )
    assert airflow.run("esms") == "success", airflow.log
    assert airflow.tries("load") == [("success", 2)]
    assert airflow.reports()[0]["asked"] == 550
    answers = simulator.arrivals.answers
    assert (len(answers), set(answers.values())) == (600, {1})
    assert output.rows("SELECT count(*) FROM ref_ids WHERE state = 'final'") == [600]
