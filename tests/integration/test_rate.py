from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest
import requests

from esms_source.ledger import WORK
from esms_source.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


TRIES = 3
"""A machine that is busy with other things may spoil a run, not all of them."""


@pytest.fixture
def start_server():
    """Start simulators in processes of their own, as the API is elsewhere too."""
    running = []

    def start(latency):
        command = [sys.executable, "-m", "esms_source", "simulate", "--port", "0"]
        server = subprocess.Popen(
            [*command, "--latency", str(latency)], stdout=subprocess.PIPE, text=True
        )
        running.append(server)
        assert server.stdout
        return server.stdout.readline().strip()

    yield start
    for server in running:
        server.terminate()
        server.wait(10)
        assert server.stdout
        server.stdout.close()


@pytest.mark.parametrize(("latency", "seconds"), [(0.05, 3), (0.5, 4), (2.0, 4)])
def test_the_rate_holds_at_the_server_and_is_used(
    latency, seconds, start_server, make_settings
):
    """Section 6.2: at most 20 arrivals in any second, above 96 % of that used."""
    rows = [{"oa_id": "oa", "ref_id": f"r{n}"} for n in range(20 * seconds)]
    work = pa.Table.from_pylist(rows, schema=WORK)
    tries: list[dict[str, float]] = []
    while len(tries) < TRIES:
        url = start_server(latency)
        with Session(make_settings(base_url=url, batch_size=1)) as asking:
            list(asking.ask([[work]], "load"))
        seen = requests.get(f"{url}/stats", timeout=5).json()
        assert asking.counts.attempts == seen["requests"]
        tries.append(seen)
        held = seen["most_in_one_second"] <= 20 and seen["refusals"] == 0
        if held and seen["rate_used"] >= 0.96:
            return
    pytest.fail(f"in no try the rate was held and used: {tries}")
