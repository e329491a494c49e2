"""Who else is there: a second run, a held file, a destination that fails or refuses."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import dlt
import duckdb
import psycopg2
import pytest
from click.testing import CliRunner

from esms_source.cli.commands import main
from esms_source.load.locks import pipeline_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow


COUNT = 40

MANY = 20_000
"""RefIds whose rows make any file grow."""

HOLD = (
    "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(); sys.stdin.read()"
)


def test_a_second_run_of_a_pipeline_ends_at_once(
    esms: Esms,
    world: Callable[..., Simulator],
) -> None:
    """Exit code 75 and one line; another pipeline's run isn't hindered."""
    simulator = world(COUNT)
    folder = str(esms.folder / "pipelines")
    esms.set(PIPELINES_DIR=folder)
    with pipeline_lock(dlt.pipeline("esms", pipelines_dir=folder)):
        second = esms()
        assert second.status == 75
        assert second.err == (
            "esms: another run holds the pipeline 'esms'; wait for its end\n"
        )
        assert simulator.arrivals.requests == 0
        assert esms("run", "--pipeline", "other").status == 0
    assert esms().status == 0


def test_a_file_that_is_held_for_a_while_is_waited_for(
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """At the start of a run as well as when a slice is to be loaded."""
    held = duckdb.connect(output.path)
    threading.Timer(1.0, held.close).start()

    def hold_again(number: int, _oa_id: str, _ref_ids: Sequence[str]) -> None:
        if number == 1:
            again = duckdb.connect(output.path)
            threading.Timer(1.5, again.close).start()

    world(COUNT, on_request=hold_again)
    ended = esms()
    assert (ended.status, ended.report["answered"]) == (0, COUNT)


@pytest.mark.parametrize("which", ["destination", "warehouse"])
def test_a_file_that_stays_held_is_named_in_one_line(
    which: str,
    esms: Esms,
    warehouse: Warehouse,
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
    world: Callable[..., Simulator],
) -> None:
    """After as long as is promised; nothing was asked."""
    output.execute("SELECT 1")
    simulator = world(COUNT)
    monkeypatch.setattr("esms_source.databases.PATIENCE_SECONDS", 0.2)
    path = output.path if which == "destination" else warehouse.path
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        ended = CliRunner().invoke(main, ["run"], env=esms.env)
        holder.communicate(b"")
    assert ended.exit_code == 75
    assert ended.stderr.count("\n") == 1
    assert "hold" in ended.stderr or "lock" in ended.stderr
    assert "close it" in ended.stderr or "correct" in ended.stderr
    assert simulator.arrivals.requests == 0


REFUSALS = {
    "a type that doesn't take it": (
        "UPDATE callbacks SET callback_url = NULL",
        "ALTER TABLE callbacks ALTER callback_url TYPE BIGINT",
        "ALTER TABLE callbacks ALTER callback_url TYPE VARCHAR",
    ),
    "a null where none may be": (
        "UPDATE callbacks SET request_id = 'x'",
        "ALTER TABLE callbacks ALTER request_id SET NOT NULL",
        "ALTER TABLE callbacks ALTER request_id DROP NOT NULL",
    ),
    "a table that is gone": (
        "SELECT 1",
        "ALTER TABLE callbacks RENAME TO hidden",
        "ALTER TABLE hidden RENAME TO callbacks",
    ),
    "a column that is gone": (
        "ALTER TABLE callbacks RENAME callback_url TO url",
        "SELECT 1",
        "ALTER TABLE callbacks RENAME url TO callback_url",
    ),
    "a column that is required": (
        "SELECT 1",
        (
            "ALTER TABLE callbacks ADD COLUMN who VARCHAR DEFAULT 'x';"
            " ALTER TABLE callbacks ALTER who SET NOT NULL;"
            " ALTER TABLE callbacks ALTER who DROP DEFAULT"
        ),
        "ALTER TABLE callbacks DROP who",
    ),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_a_load_that_is_refused_for_good_blocks_no_later_run(
    how: str,
    esms: Esms,
    warehouse: Warehouse,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """It is said before anything is asked; once the table is right, all goes on."""
    prepare, spoil, repair = REFUSALS[how]
    simulator = world(COUNT)
    assert esms().status == 0
    output.execute(prepare, spoil)
    warehouse.fill(COUNT, start=COUNT)
    for _ in range(2):
        refused = esms()
        assert refused.status == 1
        assert "callbacks" in refused.err.splitlines()[-1]
        assert "Traceback" not in refused.err
    output.execute(repair)
    after = esms()
    assert (after.status, after.report["asked"]) == (0, COUNT)
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM callbacks") == [
        (2 * COUNT, 2 * COUNT)
    ]
    assert max(simulator.arrivals.asks.values()) == 1


def test_a_destination_that_goes_away_gets_what_was_answered_later(
    esms: Esms,
    tmp_path: Path,
    world: Callable[..., Simulator],
) -> None:
    """The load stays pending, and the next run asks nothing again."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def unmount(number: int, _oa_id: str, _ref_ids: Sequence[str]) -> None:
        if number == 2:
            folder.rename(tmp_path / "unmounted")

    esms.set(DESTINATION__DUCKDB__CREDENTIALS=folder / "out.duckdb")
    world(COUNT, on_request=unmount)
    assert esms("run", "--max-ref-ids", "10").status == 0
    gone = esms()
    assert gone.status == 1
    assert gone.err.splitlines()[-1].endswith("is loaded by the next run")
    assert "Traceback" not in gone.err
    (tmp_path / "unmounted").rename(folder)
    back = esms()
    assert (back.status, back.report["asked"]) == (0, 0)
    with duckdb.connect(folder / "out.duckdb") as connection:
        rows = connection.execute("SELECT count(*) FROM zalo.callbacks").fetchall()
    assert rows == [(COUNT,)]


@pytest.mark.parametrize(
    ("phase", "limit"), [("normalize/extracted", 1_000), ("load/normalized", None)]
)
def test_a_full_disk_is_said_and_the_next_run_goes_on(
    phase: str,
    limit: int | None,
    esms: Esms,
    warehouse: Warehouse,
    output: Output,
    tmp_path: Path,
    wait_until: Callable[[Callable[[], object]], None],
    world: Callable[..., Simulator],
) -> None:
    """While asking it may cost the slice, while loading it costs nothing."""
    world(COUNT, latency=0.1)
    assert esms().status == 0
    warehouse.fill(MANY, start=COUNT)
    (packages,) = tmp_path.glob(f"dlt/**/esms_sync/*/esms/{phase}")
    running = esms.start()
    wait_until(lambda: any(packages.iterdir()))
    # A full disk still takes what replaces old blocks.
    bytes_at_most = limit or output.path.stat().st_size
    resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (bytes_at_most,) * 2)
    full = running.wait()
    assert full.status == 1
    assert "Traceback" not in full.err
    assert "failed: " in full.err.splitlines()[-1]
    after = esms()
    assert after.status == 0
    assert after.report["asked"] in (0, MANY)
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM callbacks") == [
        (COUNT + MANY, COUNT + MANY)
    ]


def test_a_locked_table_is_waited_for_and_a_signal_ends_the_wait(
    esms: Esms, postgres: str, world: Callable[..., Simulator], wait_until
) -> None:
    """PostgreSQL's own wait would hear no signal; who waits says what for."""
    esms.set(DESTINATION__POSTGRES__CREDENTIALS=postgres)
    world(COUNT)
    argv = ("run", "--json", "--destination", "postgres")
    assert esms(*argv).status == 0
    again = (*argv, "--repoll", "final")
    with psycopg2.connect(postgres) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE zalo.ref_ids IN ACCESS EXCLUSIVE MODE")
        running = esms.start(*again)
        wait_until(lambda: "holds a lock on a table" in running.said())
        running.send(signal.SIGTERM)
        ended = running.wait()
        assert ended.status == 1
        assert "Traceback" not in ended.err
        waiting = esms.start(*again)
        wait_until(lambda: "holds a lock on a table" in waiting.said())
        holder.rollback()
    ended = waiting.wait()
    assert (ended.status, ended.report["answered"]) == (0, COUNT)
