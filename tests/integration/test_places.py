"""Two projects, two destinations, one machine: nothing of one gets into the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms

COUNT = 400


def _kill_before_loading(esms: Esms) -> None:
    """Leave what was answered as a package that waits."""
    esms.killed_at("before normalising", 1)


def _counted(path: Path) -> int:
    with duckdb.connect(path) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM zalo.ref_ids").fetchall()
        return int(count)


@pytest.fixture
def other(esms: Esms) -> Path:
    """Another destination than ``esms`` has."""
    return esms.folder / "other.duckdb"


def test_what_waits_for_one_destination_never_gets_into_another(
    esms: Esms, other: Path, output: Output, world: Callable[..., Simulator]
) -> None:
    """Each destination has a working folder of its own."""
    world(COUNT)
    _kill_before_loading(esms)
    ended = esms(DESTINATION__DUCKDB__CREDENTIALS=other)
    assert (ended.status, ended.report["asked"]) == (0, COUNT)
    assert _counted(other) == COUNT
    ended = esms()
    assert ended.status == 0
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM ref_ids") == [
        (COUNT, COUNT)
    ]


def test_one_folder_for_two_destinations_ends_in_one_line(
    esms: Esms, other: Path, output: Output, world: Callable[..., Simulator]
) -> None:
    """Exit code 2 before anything is asked; what waits is loaded where it belongs."""
    simulator = world(COUNT)
    esms.set(PIPELINES_DIR=esms.folder / "pipelines")
    _kill_before_loading(esms)
    asked = simulator.arrivals.requests
    ended = esms(DESTINATION__DUCKDB__CREDENTIALS=other)
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert "another destination" in ended.err
    assert simulator.arrivals.requests == asked
    assert esms().status == 0
    assert output.rows("SELECT count(*) FROM ref_ids") == [COUNT]


def test_two_projects_under_one_home_do_not_meet(
    esms: Esms, output: Output, world: Callable[..., Simulator]
) -> None:
    """With the same names of everything, and relative paths."""
    world(COUNT)
    home = esms.folder
    esms.set(DESTINATION__DUCKDB__CREDENTIALS="out.duckdb")
    for name in ("first", "second"):
        esms.folder = home / name
        esms.folder.mkdir()
        _kill_before_loading(esms)
    for name in ("first", "second"):
        esms.folder = home / name
        assert esms().status == 0
        assert _counted(esms.folder / "out.duckdb") == COUNT
    assert not output.path.exists()
