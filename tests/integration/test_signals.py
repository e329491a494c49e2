"""SIGINT and SIGTERM in any phase: the run ends in order, and says what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow


COUNT = 1_200
SLICE = 400

PHASES = (
    ("reading ledger and warehouse", 1, signal.SIGINT),
    ("asking", 2, signal.SIGTERM),
    ("before normalising", 1, signal.SIGINT),
    ("before the load", 1, signal.SIGTERM),
    ("after a copy", 2, signal.SIGINT),
    ("after the data", 1, signal.SIGTERM),
)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase[0])
def test_a_signal_in_any_phase_ends_the_run_in_order(
    phase: tuple[str, int, int],
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """What was answered is loaded, the exit code is 1, and the next run goes on."""
    simulator = world(COUNT)
    esms.set(slice_ref_ids=SLICE, RUNTIME__LOG_LEVEL="CRITICAL")
    stopped = esms(signal_at=phase)
    name = signal.Signals(phase[2]).name
    left = COUNT - simulator.arrivals.asks.total()
    assert stopped.status == 1
    assert left >= COUNT - SLICE
    said = stopped.err.splitlines()
    assert [line for line in said if not line.startswith("stopping … (")] == [
        f"{left} RefIds were not reached; they stay due",
        f"esms: stopped by {name}; what was answered is loaded",
    ]
    assert stopped.report["left"] == left
    if left < COUNT:
        assert output.rows("SELECT count(*) FROM callbacks") == [COUNT - left]
    if phase[0] == "after a copy":
        assert esms().report["answered"] == left
        assert simulator.arrivals.asks.total() == COUNT


def test_what_was_asked_while_a_slice_was_loaded_is_loaded_too(
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """A signal in the load costs no answer that came meanwhile."""
    simulator = world(COUNT)
    esms.set(slice_ref_ids=SLICE, requests_per_second=2_000)
    esms.set(batch_size=1, max_in_flight=1)
    stopped = esms(signal_at=("after the data", 1, signal.SIGTERM))
    asked = simulator.arrivals.asks.total()
    assert stopped.status == 1
    assert SLICE - 81 < asked <= SLICE
    assert (stopped.report["asked"], stopped.report["answered"]) == (asked, asked)
    assert output.rows("SELECT count(*) FROM callbacks") == [asked]


def test_requests_under_way_still_end(
    esms: Esms,
    output: Output,
    wait_until: Callable[[Callable[[], object]], None],
    world: Callable[..., Simulator],
) -> None:
    """What the server was asked before the signal is loaded too."""
    simulator = world(COUNT, latency=1.0)
    running = esms.start(max_in_flight=2)
    wait_until(lambda: simulator.arrivals.requests == 2)
    running.send(signal.SIGTERM)
    stopped = running.wait()
    assert (stopped.status, stopped.report["left"]) == (1, COUNT - 400)
    assert stopped.err.startswith("stopping … (asking)\n")
    assert simulator.arrivals.requests == 2
    assert output.rows("SELECT count(*) FROM callbacks") == [400]


def test_waits_end_at_the_signal(
    esms: Esms,
    output: Output,
    wait_until: Callable[[Callable[[], object]], None],
    world: Callable[..., Simulator],
) -> None:
    """Neither back-off nor Retry-After holds the run; what failed is due at once."""
    simulator = world(COUNT, faults="503=1")
    running = esms.start()
    wait_until(lambda: simulator.arrivals.requests >= 12)
    running.send(signal.SIGINT)
    stopped = running.wait()
    assert stopped.status == 1
    assert stopped.report["failed"] == stopped.report["asked"]
    assert not output.rows(
        "SELECT ref_id FROM ref_ids WHERE state <> 'failed' OR next_poll_at > now()"
    )


def test_a_real_process_ends_without_a_traceback(
    esms: Esms,
    wait_until: Callable[[Callable[[], object]], None],
    world: Callable[..., Simulator],
) -> None:
    """The same holds for ``python -m esms_source run`` as it is installed."""
    simulator = world(COUNT, latency=0.3)
    esms.set(max_in_flight=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "esms_source", "run"],
        env=dict(os.environ) | esms.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: simulator.arrivals.requests >= 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stopped by SIGINT" in err
    assert "Traceback" not in out + err
