"""The definitions under a live daemon: a run is killed, and the next one ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.simulator import Simulator

PIPELINES = Path(__file__).parents[2] / "pipelines"
DEFINITIONS = ("-f", str(PIPELINES / "dagster_defs.py"))
AT_ONCE = {"free_slots_after_run_end_seconds": 1, "poll_interval_seconds": 1}
MOST_SECONDS = 60
PID = re.compile(r"\(pid: (\d+)\)")

SLICE, HALF = 100, 35
"""RefIds of a load, and the requests, of 60, after which the run is killed."""


class LiveDagster:
    """A Dagster with a daemon, and with what both keep in a folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.instance: Any = dg.DagsterInstance.get()

    def launch(self) -> None:
        """Put a run of all assets and checks into the queue."""
        command = [sys.executable, "-m", "dagster", "job", "launch", *DEFINITIONS]
        command += ["-j", "__ASSET_JOB"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr

    def runs(self) -> list[Any]:
        """Return all runs, the first one first."""
        return list(reversed(self.instance.get_runs()))

    def said(self, run: Any) -> list[str]:
        """Return the messages of a run's events."""
        return [event.user_message for event in self.instance.all_logs(run.run_id)]

    def materialized(self, run: Any) -> dict[str, Any]:
        """Return the metadata of each asset that a run made."""
        events = (event.dagster_event for event in self.instance.all_logs(run.run_id))
        return {
            event.asset_key.path[-1]: event.materialization.metadata
            for event in events
            if event and event.is_step_materialization
        }

    def checks(self, run: Any) -> Counter[bool]:
        """Return how many checks of a run passed, and how many didn't."""
        events = (event.dagster_event for event in self.instance.all_logs(run.run_id))
        return Counter(
            event.asset_check_evaluation_data.passed
            for event in events
            if event and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )

    def kill(self, run: Any) -> None:
        """Kill the process of a run, and that of its step, as the end of a pod does."""
        pids = dict.fromkeys(map(int, PID.findall("\n".join(self.said(run)))))
        assert len(pids) == 2
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def wait_until(self, is_true: Callable[[], object]) -> None:
        """Wait until something is true, for so many seconds at most."""
        until = time.monotonic() + MOST_SECONDS
        while not is_true():
            assert time.monotonic() < until, (self._home / "out").read_text("utf-8")
            time.sleep(0.1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a folder for Dagster, with ``dagster.yaml`` in it, but hastier."""
    home = tmp_path / "home"
    home.mkdir()
    settings = yaml.safe_load((PIPELINES / "dagster.yaml").read_text("utf-8"))
    settings["run_monitoring"] |= AT_ONCE
    settings["telemetry"] = {"enabled": False}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("PIPELINES_DIR", str(tmp_path / "kept"))
    return home


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], LiveDagster]]:
    """Start the daemon, with a pool of one slot, and end it afterwards."""
    running: list[subprocess.Popen[bytes]] = []

    def begin() -> LiveDagster:
        made = LiveDagster(home)
        made.instance.event_log_storage.set_concurrency_slots("esms", 1)
        with (home / "out").open("w") as out:
            command = [sys.executable, "-m", "dagster._daemon", "run", *DEFINITIONS]
            running.append(
                subprocess.Popen(
                    command, stdout=out, stderr=out, start_new_session=True
                )
            )
        return made

    yield begin
    for process in running:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_run_that_is_killed_half_way_is_finished_by_the_next(
    start: Callable[[], LiveDagster],
    serve: Callable[..., Simulator],
    assert_whole: Callable[[Simulator, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The daemon starts it again; nothing is lost or doubled, and the checks pass."""
    simulator = serve(scripted={})
    settings = {"BATCH_SIZE": 10, "SLICE_REF_IDS": SLICE, "REQUESTS_PER_SECOND": 20}
    for name, value in settings.items():
        monkeypatch.setenv(f"SOURCES__ESMS__{name}", str(value))
    dagster = start()
    dagster.launch()
    dagster.wait_until(lambda: simulator.arrivals.requests >= HALF)
    [killed] = dagster.runs()
    dagster.kill(killed)
    dagster.wait_until(
        lambda: [run.is_finished for run in dagster.runs()] == [True] * 2
    )
    killed, again = dagster.runs()
    assert killed.status is dg.DagsterRunStatus.FAILURE
    assert again.status is dg.DagsterRunStatus.SUCCESS
    assert again.parent_run_id == killed.run_id
    assert_whole(simulator, SLICE)

    first, second = dagster.said(killed), dagster.said(again)
    assert "esms, zalo: 600 RefIds to ask in 60 requests" in first
    assert any(text.endswith(f"{SLICE} of 600 RefIds asked") for text in first)
    report = dagster.materialized(again)["ref_ids"]
    assert 0 < report["asked"].value < 600
    assert any(text.startswith(f"asked {report['asked'].value} R") for text in second)
    assert report["dagster/row_count"].value == 600
    assert dagster.checks(again) == {True: 5}
    assert Path(dagster.materialized(again)["report"]["path"].value).is_file()
