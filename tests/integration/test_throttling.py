"""A server slower than the setting: the run settles near what it allows.

With ESMS_TEST_LONG=1 the curve is taken over two minutes and printed.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse
    from tests.integration.conftest import Esms

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


ALLOWED = 12
REQUESTS = 1_300 if os.environ.get("ESMS_TEST_LONG") else 150


@pytest.mark.parametrize("refuse_with", ["429", "code160"])
def test_the_pace_settles_near_what_the_server_allows(
    refuse_with: str,
    esms: Esms,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
    output: Output,
    most_in_a_second: Callable[[Sequence[float]], int],
) -> None:
    """Few requests are refused, none of them fails, and most of the rate is used."""
    warehouse.fill(REQUESTS)
    simulator = simulate(rate=ALLOWED, refuse_with=refuse_with, latency=0.05)
    ended = esms(
        base_url=simulator.url, requests_per_second=20, batch_size=1, max_attempts=10
    )
    assert (ended.status, ended.report["failed"]) == (0, 0)
    arrivals = simulator.arrivals
    times = arrivals.times
    curve = Counter(int(at - times[0]) for at in times)
    print([curve[second] for second in range(max(curve) + 1)])  # noqa: T201  the curve
    assert arrivals.refusals <= 0.05 * len(times) + 3
    assert most_in_a_second(times) <= 20
    settled = [at for at in times if at > times[0] + 5]
    rate = (len(settled) - 1) / (settled[-1] - settled[0])
    assert 0.7 * ALLOWED < rate <= ALLOWED
    assert output.rows("SELECT sum(attempts) FROM api_requests") == [len(times)]
