"""A third of the requests failing, in each way there is: every RefId ends right.

With ESMS_TEST_LONG=1 each kind of fault is tried alone too; it takes minutes.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from esms_source.simulator import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


COUNT = 300
BATCH = 20
KINDS = sorted(set(FAULTS) - {"refuse_key"})
REFUSALS = [kind for kind in KINDS if "429" in kind or kind == "code160"]
TRANSPORT = ["500", "502", "503", "504", "drop", "short", "slow"]
MALFORMED = sorted({*KINDS} - {*REFUSALS} - {*TRANSPORT})


def a_third(*kinds: str) -> str:
    """Return a spec that spoils a third of all requests."""
    return ",".join(f"{kind}={0.34 / len(kinds):.4f}" for kind in kinds)


GROUPS = [a_third(*kinds) for kinds in (REFUSALS, TRANSPORT, MALFORMED, KINDS)]
ALONE = [a_third(kind) for kind in KINDS] if os.environ.get("ESMS_TEST_LONG") else []

ACCOUNTS = """
    SELECT sum(asked) FILTER (outcome <> 'split'),
        sum(answered) FILTER (outcome <> 'split'),
        sum(missing) FILTER (outcome <> 'split'),
        sum(failed) FILTER (outcome <> 'split'), sum(attempts),
        count(*) FILTER (asked <> answered + missing + failed)
    FROM api_requests
"""


def check_accounts(output: Output, simulator: Simulator) -> Counter[str]:
    """Compare requests, ledger, callbacks and server; return RefIds by state."""
    states: Counter[str] = Counter(
        dict(output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1"))
    )
    answered = states["final"] + states["pending"]
    assert output.rows(ACCOUNTS) == [
        (
            states.total(),
            answered,
            states["missing"],
            states["failed"],
            simulator.arrivals.requests,
            0,
        )
    ]
    assert output.rows("SELECT count(DISTINCT ref_id) FROM callbacks") == [answered]
    told = simulator.arrivals.answers
    assert len(told) == answered + states["missing"]
    return states


@pytest.mark.parametrize("faults", [*GROUPS, *ALONE])
def test_a_third_of_the_requests_may_fail_in_any_way(
    faults: str,
    hasty: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """All RefIds are answered, once, and all accounts agree."""
    simulator = world(COUNT, faults=faults, slow_seconds=1.5, seed=5)
    ended = hasty(
        batch_size=BATCH,
        read_timeout=0.5,
        max_attempts=12,
    )
    assert (ended.status, ended.report["failed"]) == (0, 0), ended.err
    assert check_accounts(output, simulator) == {"final": COUNT}
    assert simulator.arrivals.faults
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("faults", [a_third("500"), a_third(*TRANSPORT, *MALFORMED)])
def test_with_few_attempts_what_fails_is_said_and_asked_again(
    faults: str,
    hasty: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """Exit code 1 and states that agree; runs that follow get the rest."""
    simulator = world(COUNT, faults=faults, slow_seconds=1.5, seed=6)
    hasty.set(
        batch_size=BATCH,
        read_timeout=0.5,
        max_attempts=1,
        repoll_after=0,
    )
    first = hasty()
    failed = first.report["failed"]
    assert check_accounts(output, simulator) == Counter(
        {"final": COUNT - failed, "failed": failed}
    )
    assert first.status == (1 if failed else 0)
    for _ in range(10):
        if hasty().status == 0:
            break
    assert output.rows("SELECT DISTINCT state FROM ref_ids") == ["final"]
    assert output.rows("SELECT count(*) FROM callbacks") == [COUNT]


def test_a_redirect_is_never_followed(
    hasty: Esms,
    world: Callable[..., Simulator],
) -> None:
    """The key goes to the configured host and nowhere else."""
    simulator = world(COUNT, faults="redirect=0.4,redirect_307=0.4", seed=5)
    hasty(batch_size=BATCH)
    assert simulator.arrivals.stats()["redirects_followed"] == 0


def test_a_refused_key_stops_the_run_and_keeps_what_was_answered(
    hasty: Esms,
    simulate: Callable[..., Simulator],
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """Exit code 1 with the remedy; the rest stays due, without a wait."""
    simulator = world(COUNT, faults="refuse_key_after=5")
    ended = hasty(batch_size=BATCH, max_in_flight=1)
    assert ended.status == 1
    assert "check api_key and secret_key" in ended.err
    assert simulator.arrivals.requests == 5
    states = check_accounts(output, simulator)
    assert states == {"final": 4 * BATCH, "failed": BATCH}
    assert hasty(base_url=simulate().url).report["answered"] == COUNT - 4 * BATCH


def test_an_outage_ends_the_run_before_it_wears_everything_out(
    hasty: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """With nothing answered, the run gives up and the next one goes on."""
    simulator = world(10_000, faults="503=1")
    ended = hasty(max_attempts=1)
    assert ended.status == 1
    assert "run again later" in ended.err
    assert simulator.arrivals.requests < 200
    assert ended.report["left"] > 0
    assert check_accounts(output, simulator)["final"] == 0
