"""What the pipelines run against, and which orchestrators there are to run them."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse

PIPELINES = Path(__file__).parents[2] / "pipelines"

ORCHESTRATORS = ("airflow", "dagster")
ABSENT = [name for name in ORCHESTRATORS if find_spec(name) is None]

collect_ignore = ["dag_runner.py"]
collect_ignore_glob = [f"test_{name}*.py" for name in ABSENT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly which orchestrators these tests ran with."""
    for name in ORCHESTRATORS:
        remedy = f"not run: it isn't installed; make test-{name}"
        outcome = remedy if name in ABSENT else "run"
        terminalreporter.write_line(f"tests with {name}: {outcome}")


@pytest.fixture
def pipeline_file() -> Callable[[str], Path]:
    """Find a file of ``pipelines/``."""
    return lambda name: PIPELINES / name


@pytest.fixture
def load_module() -> Callable[[str], ModuleType]:
    """Import a file of ``pipelines/`` as it stands."""

    def load(name: str) -> ModuleType:
        spec = spec_from_file_location(Path(name).stem, PIPELINES / name)
        assert spec
        assert spec.loader
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def unanswered(warehouse: Warehouse) -> set[tuple[str, str]]:
    """Fill the warehouse; name the three of its 600 messages that have no callback."""
    warehouse.fill(600, oas=2)
    return set(
        warehouse.rows("SELECT oa_id, ref_id FROM sent ORDER BY sent_at LIMIT 3")
    )


@pytest.fixture
def serve(
    simulate: Callable[..., Simulator],
    unanswered: set[tuple[str, str]],
    output: Output,
    api_key: str,
    secret_key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Simulator]:
    """Start a simulator; name it, the key and a DuckDB file in the environment.

    What it has no callback for is due again at once.
    """

    def start(**behaviour: Any) -> Simulator:
        scripted = {ref_id: () for _, ref_id in unanswered}
        simulator = simulate(**({"scripted": scripted} | behaviour))
        settings = {
            "SOURCES__ESMS__API_KEY": api_key,
            "SOURCES__ESMS__SECRET_KEY": secret_key,
            "SOURCES__ESMS__BASE_URL": simulator.url,
            "SOURCES__ESMS__REQUESTS_PER_SECOND": "500",
            "SOURCES__ESMS__REPOLL_AFTER": "0",
            "DESTINATION__DUCKDB__CREDENTIALS": str(output.path),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return simulator

    return start


@pytest.fixture
def asked_times() -> Callable[[Simulator, int], set[tuple[str, str]]]:
    """Find what a simulator was asked so many times."""

    def find(simulator: Simulator, times: int) -> set[tuple[str, str]]:
        asks = simulator.arrivals.asks
        return {message for message, count in asks.items() if count == times}

    return find


ROWS_EACH = """
    SELECT DISTINCT count(*) FROM ref_ids LEFT JOIN callbacks USING (oa_id, ref_id)
    GROUP BY oa_id, ref_id
"""
REQUESTS = """
    SELECT sum(asked)::INT, count(*) = count(DISTINCT (load_id, request_no))
    FROM api_requests
"""


@pytest.fixture
def assert_whole(
    output: Output, asked_times: Callable[[Simulator, int], set[tuple[str, str]]]
) -> Callable[[Simulator, int], None]:
    """Find all 600 messages answered and loaded once, though a run was killed.

    No more of them than a number were asked twice, and none more often.
    """

    def check(simulator: Simulator, most_twice: int) -> None:
        once, twice = (asked_times(simulator, times) for times in (1, 2))
        assert len(simulator.arrivals.asks) == len(once | twice) == 600
        assert len(twice) <= most_twice
        states = "SELECT state, count(*) FROM ref_ids GROUP BY ALL"
        assert output.rows(states) == [("final", 600)]
        assert output.rows(ROWS_EACH) == [1]
        assert output.rows(REQUESTS) == [(600, True)]

    return check
