"""The script and the command line, as cron or a container run them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse

STATES = "SELECT state, count(*) FROM ref_ids GROUP BY state ORDER BY state"


def _run(*arguments: object) -> str:
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_script_loads_what_is_due(
    serve: Callable[..., Simulator],
    output: Output,
    pipeline_file: Callable[[str], Path],
    unanswered: set[tuple[str, str]],
) -> None:
    """The script of a dlt user loads all, then what is due."""
    serve()
    script = pipeline_file("esms_pipeline.py")
    assert _run(script).startswith("597 of 600 RefIds answered")
    assert output.rows(STATES) == [("final", 597), ("missing", len(unanswered))]
    assert _run(script).startswith("0 of 3 RefIds answered")


def test_a_run_needs_no_pipelines_folder_of_an_earlier_one(
    serve: Callable[..., Simulator],
    warehouse: Warehouse,
    output: Output,
    tmp_path: Path,
    unanswered: set[tuple[str, str]],
    asked_times: Callable[[Simulator, int], set[tuple[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run with a fresh folder, however it is named, asks what is due and new."""
    simulator = serve()
    variables = ("DLT_DATA_DIR", "PIPELINES_DIR", "PIPELINES_DIR")
    for number, variable in enumerate(variables):
        folder = tmp_path / f"pod_{number}"
        monkeypatch.setenv(variable, str(folder))
        _run("-m", "esms_source", "run")
        assert list(folder.glob("**/esms/state.json"))
        warehouse.fill(10, oas=2, start=600 + 10 * number)
    assert asked_times(simulator, 3) == unanswered
    assert asked_times(simulator, 2) == set()
    assert len(asked_times(simulator, 1)) == 597 + 20
    assert output.rows(STATES) == [("final", 617), ("missing", len(unanswered))]
