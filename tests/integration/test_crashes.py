"""SIGKILL at a named point: nothing is lost, nothing doubled, little asked again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.simulator import sample_row
from tests.conftest import ref_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms
    from tests.integration.test_lake import Lake

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


SLICE = 400

POINTS = (
    ("reading ledger and warehouse", 1),
    ("asking", 2),
    ("before normalising", 1),
    ("at the end of planning", 1),
    ("reading ledger and warehouse", 2),
    ("before the normalised package", 1),
    ("after the normalised package", 1),
    ("before the load", 2),
    ("before a job", 3),
    ("after a copy", 2),
    ("before a merge", 2),
    ("after a merge", 1),
    ("between two tables", 4),
    ("between two tables", 7),
    ("after the data", 2),
    ("after the bookkeeping", 1),
    ("at the end of the load", 1),
)
LOSING = 8
"""Of these, the kills while asking, or once something was written."""


def odd_rows(count: int) -> dict[str, list[Any]]:
    """Script RefIds with two rows, none, one not final and one beside a stranger."""
    pending = {"SendStatus": 1, "SendSuccess": 0, "SendFailed": 0}
    odd: dict[str, list[Any]] = {}
    for number in range(0, count, 40):
        two, none, held, stray = (ref_id(number + step) for step in range(4))
        odd[two] = [sample_row(two), sample_row(two, Telcoid=2)]
        odd[none] = []
        odd[held] = [sample_row(held, **pending)]
        odd[stray] = [sample_row(stray), sample_row(f"stranger-{number}")]
    return odd


@pytest.fixture
def send_odd(esms: Esms, world: Callable[..., Simulator]) -> Callable[..., Simulator]:
    """Let the commands ask a server that has odd rows."""

    def one(count: int, latency: float = 0, **more: object) -> Simulator:
        esms.set(**({"slice_ref_ids": SLICE} | more))
        return world(count, scripted=odd_rows(count), latency=latency)

    return one


def asked_again(simulator: Simulator, count: int) -> int:
    """Return how many RefIds were asked more often than once, each time counted."""
    asks = simulator.arrivals.asks
    assert len(asks) == count
    return asks.total() - count


def assert_whole(output: Output | Lake, count: int) -> None:
    """Check that every RefId stands there once, in every table, with what came."""
    odd = count // 40
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM ref_ids") == [
        (count, count)
    ]
    states = dict(output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1"))
    assert states == {"final": count - 2 * odd, "missing": odd, "pending": odd}
    assert output.rows(
        "SELECT count(*), count(DISTINCT ref_id), count(DISTINCT (ref_id, telco_id))"
        " FROM callbacks"
    ) == [(count, count - odd, count)]
    assert output.rows("SELECT count(*), count(DISTINCT row) FROM rejected_rows") == [
        (odd, odd)
    ]
    assert output.rows(
        "SELECT sum(asked), sum(missing), sum(failed),"
        " count(*) - count(DISTINCT (load_id, request_no)),"
        " count(*) FILTER (asked <> answered + missing + failed) FROM api_requests"
    ) == [(count, odd, 0, 0, 0)]
    assert not output.rows(
        "SELECT load_id FROM ref_ids UNION SELECT load_id FROM callbacks UNION"
        " SELECT load_id FROM api_requests UNION SELECT load_id FROM rejected_rows"
        " EXCEPT SELECT load_id FROM _dlt_loads"
    )
    assert not output.rows(
        "SELECT load_id FROM _dlt_loads GROUP BY 1 HAVING count(*) > 1"
    )


def test_a_kill_at_any_named_point_loses_and_doubles_nothing(
    esms: Esms,
    send_odd: Callable[..., Simulator],
    output: Output,
) -> None:
    """Each run is killed at another point, the last one ends what is left."""
    count = 4_000
    simulator = send_odd(count)
    # Where no dataset is yet, dlt forgets a pending load: that costs its slice too.
    assert esms("run", "--max-ref-ids", "400").status == 0
    for point in POINTS:
        esms.killed_at(*point)
    quiet = esms()
    assert quiet.status == 0, quiet.err
    assert_whole(output, count)
    # What had not begun to be written is loaded; all else costs its slice.
    assert asked_again(simulator, count) <= LOSING * SLICE


PLAIN = """
import dlt
from esms_source import esms_source
pipeline = dlt.pipeline("esms", destination="duckdb", dataset_name="zalo")
for _ in range(2):  # what is pending, then what is due
    pipeline.run(esms_source())
"""


@pytest.mark.parametrize(
    "point",
    [
        ("before a job", 3),
        ("after a copy", 2),
        ("before a merge", 2),
        ("between two tables", 3),
    ],
)
def test_plain_dlt_meets_nothing_that_a_killed_sync_left(
    point: tuple[str, int],
    esms: Esms,
    send_odd: Callable[..., Simulator],
    output: Output,
) -> None:
    """It asks what was in it, and clears away what it wrote."""
    count = 400
    simulator = send_odd(count)
    assert esms("run", "--max-ref-ids", "40").status == 0
    esms.killed_at(*point)
    subprocess.run(
        [sys.executable, "-c", PLAIN],
        env=os.environ | esms.env,
        cwd=esms.folder,
        check=True,
    )
    assert_whole(output, count)
    assert asked_again(simulator, count) == count - 40


def test_the_state_folder_may_get_lost_between_runs(
    esms: Esms,
    send_odd: Callable[..., Simulator],
    output: Output,
    tmp_path: Path,
) -> None:
    """The ledger is the only state: a killed load costs its slice and no more."""
    count = 1_200
    simulator = send_odd(count)
    assert esms("run", "--max-ref-ids", "400").status == 0
    esms.killed_at("between two tables", 6)
    shutil.rmtree(tmp_path / "dlt")
    assert esms().status == 0
    assert asked_again(simulator, count) == SLICE
    shutil.rmtree(tmp_path / "dlt")
    idle = esms()
    assert (idle.status, idle.report["asked"]) == (0, 0)
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM ref_ids") == [
        (count, count)
    ]
    assert output.rows("SELECT count(*) FROM callbacks") == [count]


def test_what_was_asked_while_a_slice_was_loaded_is_part_of_it(
    esms: Esms,
    send_odd: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    """A crash and a lost state folder together cost at most one slice."""
    count, slice_ref_ids, ahead = 800, 400, 81
    one_by_one = {"batch_size": 1, "max_in_flight": 1, "requests_per_second": 2_000}
    simulator = send_odd(count, slice_ref_ids=slice_ref_ids, **one_by_one)
    assert esms("run", "--max-ref-ids", "40").status == 0
    esms.killed_at("between two tables", 6)
    shutil.rmtree(tmp_path / "dlt")
    assert esms().status == 0
    again = asked_again(simulator, count)
    assert slice_ref_ids - ahead < again <= slice_ref_ids


@pytest.mark.parametrize(
    "killed_at",
    [("before the load", 1), ("after a merge", 1)],
)
def test_a_pending_load_never_replaces_what_another_pipeline_settled_since(
    esms: Esms,
    output: Output,
    killed_at: tuple[str, int],
    world: Callable[..., Simulator],
) -> None:
    """The killed pipeline drops its older answers when it comes back."""
    asked: list[int] = []

    def answer(ref_id: str, times_asked: int) -> list[Any]:
        asked.append(times_asked)
        status = 1 if times_asked == 1 else 5
        return [sample_row(ref_id, SendStatus=status, SendSuccess=1, Telcoid=status)]

    world(40, scripted={ref_id(i): answer for i in range(40)})
    esms.killed_at(*killed_at)
    assert esms("run", "--pipeline", "other").status == 0
    back = esms()
    assert (back.status, back.report["asked"]) == (0, 0)
    assert output.rows("SELECT DISTINCT state FROM ref_ids") == ["final"]
    assert output.rows(
        "SELECT count(*), count(DISTINCT ref_id), min(telco_id) FROM callbacks"
    ) == [(40, 40, 5)]


def test_damaged_files_of_a_pending_load_block_no_later_run(
    esms: Esms,
    output: Output,
    tmp_path: Path,
    world: Callable[..., Simulator],
) -> None:
    """What a power failure left half written is dropped and asked again."""
    world(40)
    assert esms("run", "--max-ref-ids", "10").status == 0
    for point in (("before normalising", 1), ("before the load", 1)):
        esms.killed_at(*point)
        for file in tmp_path.glob("dlt/**/esms_sync/**/callbacks.*.parquet"):
            os.truncate(file, 100)
        refused = esms()
        assert refused.status == 1
        assert "due again" in refused.err
    assert esms().report["answered"] == 30
    assert output.rows("SELECT count(*) FROM callbacks") == [40]


def test_a_file_that_is_gone_blocks_no_later_run(
    esms: Esms,
    send_odd: Callable[..., Simulator],
    output: Output,
    tmp_path: Path,
) -> None:
    """What was half copied into a DuckDB file that got lost is asked again."""
    count = 1_200
    send_odd(count)
    assert esms("run", "--max-ref-ids", "400").status == 0
    esms.killed_at("after a copy", 2)
    for file in tmp_path.glob("out.duckdb*"):
        file.unlink()
    run = esms()
    assert run.status == 0, run.err
    assert_whole(output, count)
