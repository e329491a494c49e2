"""What merges compare: rows that came since, and all where that isn't sure."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from esms_source import esms_source, sync
from esms_source.load.scope import MARGIN
from esms_source.simulator import sample_row
from tests.conftest import ref_id
from tests.integration.test_postgres import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms

LONG_AGO = "TIMESTAMPTZ '2020-01-01 00:00:00+00'"
NOTE = "SELECT load_id, loads, since FROM zalo._esms_since"
KEYS = "SELECT count(*), count(DISTINCT ref_id) FROM zalo."
NOT_YET = {"SendStatus": 1, "SendSuccess": 0, "SendFailed": 0}


def test_a_merge_compares_what_came_since(
    esms: Esms, world: Callable[..., Simulator], output: Output
) -> None:
    """What came before stays unread: a second row, which no run makes, shows it."""
    world(2, scripted={ref_id(0): lambda name, _: [sample_row(name, **NOT_YET)]})
    began = datetime.now(timezone.utc)
    assert esms("run").status == 0
    ((load_id, loads, since),) = output.rows(NOTE)
    assert (loads, output.rows("SELECT load_id FROM zalo._dlt_loads")) == (0, [load_id])
    assert began - MARGIN <= since <= datetime.now(timezone.utc) - MARGIN
    output.execute(
        "INSERT INTO zalo.ref_ids SELECT * REPLACE ('final' AS state,"
        f" {LONG_AGO} AS first_polled_at) FROM zalo.ref_ids"
        f" WHERE ref_id = '{ref_id(0)}'"
    )
    assert esms("run", "--repoll", "pending").status == 0
    assert output.rows(KEYS + "ref_ids") == [(3, 2)]
    assert output.rows(KEYS + "callbacks") == [(2, 2)]


def test_what_somebody_else_loaded_meanwhile_is_replaced(
    esms: Esms,
    world: Callable[..., Simulator],
    simulate: Callable[..., Simulator],
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two workers ask for one RefId: whatever its row says of time, one row stays."""
    ended: list[int] = []
    theirs = simulate()

    def answer(name: str, _: int) -> list[Any]:
        command = [sys.executable, "-m", "esms_source", "run", "--pipeline", "b"]
        env = os.environ | {"SOURCES__ESMS__BASE_URL": theirs.url}
        done = subprocess.run(command, env=env, cwd=esms.folder, check=False)
        ended.append(done.returncode)
        output.execute(
            f"UPDATE zalo.ref_ids SET first_polled_at = {LONG_AGO}",
            f"UPDATE zalo.callbacks SET polled_at = {LONG_AGO}",
        )
        return [sample_row(name)]

    world(1, scripted={ref_id(0): answer})
    for name, value in esms.env.items():
        monkeypatch.setenv(name, value)
    report = sync(output.pipeline())
    assert (report.asked, ended) == (1, [0])
    assert output.rows(KEYS + "ref_ids") == output.rows(KEYS + "callbacks") == [(1, 1)]
    assert output.rows(f"SELECT polled_at > {LONG_AGO} FROM zalo.callbacks") == [True]


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(days=400)])
def test_a_clock_that_was_ahead_lets_no_callback_stay_twice(
    ahead: timedelta, esms: Esms, world: Callable[..., Simulator], output: Output
) -> None:
    """An answer that seems older than the first poll is replaced like any other."""
    world(2, scripted={ref_id(0): lambda name, _: [sample_row(name, **NOT_YET)]})
    assert esms("run").status == 0
    later = f"first_polled_at + to_seconds({ahead.total_seconds():.0f})"
    output.execute(
        f"UPDATE zalo.ref_ids SET first_polled_at = {later}",
        "UPDATE zalo.callbacks SET polled_at = polled_at - INTERVAL 3 DAY",
    )
    for _ in range(2):
        assert esms("run", "--repoll", "pending").status == 0
        assert output.rows(KEYS + "ref_ids") == [(2, 2)]
        assert output.rows(KEYS + "callbacks") == [(2, 2)]
    is_right = "SELECT first_polled_at <= last_polled_at FROM zalo.ref_ids"
    assert output.rows(f"{is_right} WHERE ref_id = '{ref_id(0)}'") == [True]


def test_a_load_without_a_note_compares_all(
    esms: Esms, world: Callable[..., Simulator], output: Output
) -> None:
    """A killed run's load is loaded by the next one, which doesn't know its ledger."""
    world(3)
    assert esms("run").status == 0
    output.execute(
        f"UPDATE zalo.ref_ids SET first_polled_at = {LONG_AGO}, state = 'pending',"
        " next_poll_at = first_polled_at",
        f"UPDATE zalo.callbacks SET polled_at = {LONG_AGO}",
        "DROP TABLE zalo._esms_since",
    )
    esms.killed_at("after the normalised package", 1)
    assert esms("run").status == 0
    assert output.rows(KEYS + "ref_ids") == output.rows(KEYS + "callbacks") == [(3, 3)]
    assert output.rows(f"SELECT min(polled_at) > {LONG_AGO} FROM zalo.callbacks") == [
        True
    ]


def test_plain_dlt_compares_all_after_a_run(
    esms: Esms,
    world: Callable[..., Simulator],
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What dlt remembers of one means nothing to the other, and nobody is warned."""
    world(2)
    for name, value in esms.env.items():
        monkeypatch.setenv(name, value)
    pipeline = output.pipeline()
    sync(pipeline)
    output.execute(
        f"UPDATE zalo.ref_ids SET first_polled_at = {LONG_AGO}",
        f"UPDATE zalo.callbacks SET polled_at = {LONG_AGO}",
        "DROP TABLE zalo._esms_since",
    )
    pipeline.run(esms_source(repoll=["final"]))
    sync(pipeline, repoll=["final"])
    assert output.rows(KEYS + "ref_ids") == output.rows(KEYS + "callbacks") == [(2, 2)]
    assert output.rows("SELECT min(attempts) FROM zalo.ref_ids") == [3]
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not said


@pytest.mark.slow
def test_postgres_compares_as_duckdb_does(
    postgres: str,
    esms: Esms,
    world: Callable[..., Simulator],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came since is compared, and all where somebody else has loaded meanwhile."""
    server = Server(postgres, monkeypatch)
    server.execute("DROP SCHEMA IF EXISTS zalo CASCADE")
    esms.set(DESTINATION__POSTGRES__CREDENTIALS=postgres)
    argv = ["--destination", "postgres"]
    long_ago = f"UPDATE zalo.callbacks SET polled_at = {LONG_AGO}"
    theirs = world(2)
    ended = []

    def answer(name: str, times_asked: int) -> list[Any]:
        if times_asked == 1:
            command = [sys.executable, "-m", "esms_source", "run", "--pipeline", "b"]
            env = os.environ | esms.env | {"SOURCES__ESMS__BASE_URL": theirs.url}
            done = subprocess.run([*command, *argv], env=env, check=False)
            ended.append(done.returncode)
            first = f"UPDATE zalo.ref_ids SET first_polled_at = {LONG_AGO}"
            server.execute(first, long_ago)
        return [sample_row(name)]

    world(scripted={ref_id(0): answer})
    assert esms("run", *argv).status == 0
    assert ended == [0]
    for table in ("ref_ids", "callbacks"):
        assert server.rows(KEYS + table) == [(2, 2)]
    # No key of the dataset is older than what is noted: nothing is compared but these.
    server.execute(long_ago)
    assert esms("run", "--repoll", "final", *argv).status == 0
    assert server.rows(KEYS + "ref_ids") == [(2, 2)]
    assert server.rows(KEYS + "callbacks") == [(4, 2)]
