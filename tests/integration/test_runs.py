"""The table ``runs``: who ran when, and whether anything was left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.load.locks import pipeline_lock
from esms_source.simulator import sample_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Hostile, Output, Warehouse
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow


COUNT = 40


def _runs(output: Output, columns: str) -> list[Any]:
    return output.rows(f"SELECT {columns} FROM runs ORDER BY started_at")


def test_every_run_that_began_leaves_a_row(
    esms: Esms, output: Output, world: Callable[..., Simulator]
) -> None:
    """One that asked, one that had nothing to ask, and one whose key was refused."""
    simulator = world(COUNT)
    assert esms().status == 0
    assert esms().status == 0
    assert esms("run", "--repoll", "final", secret_key="wrong").status == 1
    assert esms("run", "--repoll", "final", "--max-ref-ids", "5").status == 0
    columns = "planned, answered, failed, requests, exit_code, error LIKE '%Code 101%'"
    assert _runs(output, columns) == [
        (COUNT, COUNT, 0, 1, 0, None),
        (0, 0, 0, 0, 0, None),
        (COUNT, 0, COUNT, 1, 1, True),
        (5, 5, 0, 1, 0, None),
    ]
    assert (
        _runs(output, "pipeline_name, ended_at >= started_at") == [("esms", True)] * 4
    )
    asking = output.rows("SELECT run_id FROM api_requests ORDER BY started_at")
    first, _, *others = _runs(output, "run_id")
    assert asking == [first, *others]
    assert simulator.arrivals.requests == 3


def test_a_run_that_fails_says_so_and_what_was_skipped(
    esms: Esms,
    output: Output,
    warehouse: Warehouse,
    world: Callable[..., Simulator],
) -> None:
    """With the reason that most RefIds failed for."""
    world(COUNT, refused_oas=frozenset({"oa0"}))
    warehouse.execute("INSERT INTO sent (ref_id, oa_id) VALUES (NULL, 'a'), (' ', 'a')")
    assert esms().status == 1
    columns = "failed, exit_code, error <> '', skipped_no_ref_id"
    assert _runs(output, columns) == [(COUNT, 1, True, 2)]


def test_runs_that_never_began_leave_none(
    esms: Esms, output: Output, world: Callable[..., Simulator]
) -> None:
    """A plan, a wrong setting, and a pipeline that somebody else holds."""
    world(COUNT)
    folder = str(esms.folder / "pipelines")
    esms.set(PIPELINES_DIR=folder)
    assert esms().status == 0
    assert esms("plan").status == 0
    assert esms(batch_size=0).status == 2
    assert esms(secret_key="").status == 2
    with pipeline_lock(output.pipeline()):
        assert esms().status == 75
    assert len(_runs(output, "run_id")) == 1


def test_the_whole_warehouse_is_compared_once_a_day(
    esms: Esms,
    output: Output,
    warehouse: Warehouse,
    world: Callable[..., Simulator],
) -> None:
    """What a row's old time hides is found then, or where ``--all`` asks for it."""
    world(COUNT)
    assert esms().status == 0
    warehouse.execute(
        "INSERT INTO sent (ref_id, oa_id, sent_at) SELECT 'late-' || ref_id, oa_id,"
        " sent_at - INTERVAL 90 DAY FROM sent LIMIT 2"
    )
    assert esms().report["asked"] == 0
    assert esms("run", "--json", "--all").report["asked"] == 2
    warehouse.execute(
        "UPDATE sent SET ref_id = ref_id || 'x' WHERE ref_id LIKE 'late%'"
    )
    assert esms().report["asked"] == 0
    output.execute("UPDATE runs SET started_at = started_at - INTERVAL 25 HOUR")
    assert esms().report["asked"] == 2
    assert _runs(output, "compared_all") == [True, False, True, False, True]


@pytest.mark.parametrize("first", ["pending", "delivered"])
def test_an_answer_without_a_row_takes_none_away(
    first: str,
    esms: Esms,
    output: Output,
    warehouse: Warehouse,
    hostile: Callable[..., Hostile],
) -> None:
    """The ledger says that it is missing now; what once came stands in callbacks."""
    warehouse.fill(1)
    fields = {"SendStatus": 1, "SendSuccess": 0} if first == "pending" else {}

    def answer(number: int, ref_ids: list[str]) -> bytes:
        rows = [sample_row(ref_ids[0], **fields)] if number == 1 else []
        return json.dumps({"Code": 100, "Data_callback": rows}).encode()

    esms.set(base_url=hostile(answer).url, repoll_after=0)
    assert esms().status == 0
    assert output.rows("SELECT delivery FROM callbacks") == [first]
    again = ("run", "--repoll", "pending,final")
    assert esms(*again).status == 0
    state = "missing" if first == "pending" else "final"
    assert output.rows("SELECT state, attempts FROM ref_ids") == [(state, 2)]
    assert output.rows("SELECT delivery FROM callbacks") == [first]
    assert output.rows("SELECT outcome FROM messages") == [
        "missing" if first == "pending" else "delivered"
    ]
