from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from filelock import FileLock

from esms_source.exceptions import ConfigError, EsmsError
from esms_source.polling import shared_rate_limit
from esms_source.polling.shared_rate_limit import SharedRateLimiter, open_limiter
from esms_source.runtime import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from esms_source.config import Settings
    from esms_source.simulator import Simulator

pytestmark = [pytest.mark.slow, pytest.mark.lengthy]


ASKER = Path(__file__).with_name("asker.py")
RATE = 20


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind, without a budget in it so far."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'budget.sqlite'}"
    url: str = request.getfixturevalue("postgres")
    return url


@pytest.fixture
def open_shared(
    make_settings: Callable[..., Settings],
) -> Iterator[Callable[..., SharedRateLimiter]]:
    """Open limiters of one key that only the store joins; let them go afterwards."""
    limiters: list[SharedRateLimiter] = []
    # What the test before has used up counts for a second.
    key = f"key-{uuid4()}"

    def start(
        store: str, stop: Stop | None = None, **settings: object
    ) -> SharedRateLimiter:
        # In one process those of one key and one address share a window as well.
        url = f"http://127.0.0.1:9/{uuid4()}"
        given = {"rate_limit_store": store, "base_url": url, "api_key": key} | settings
        limiter = open_limiter(make_settings(**given), Stop() if stop is None else stop)
        assert isinstance(limiter, SharedRateLimiter)
        limiters.append(limiter)
        return limiter

    yield start
    for limiter in limiters:
        limiter.close()


def used(times: Sequence[float]) -> float:
    """Return the rate that is reached while the machine lets everybody work.

    The median of how long so many requests took leaves out stalls.
    """
    gaps = [b - a for a, b in zip(times, times[RATE:], strict=False)]
    return RATE / median(gaps)


def test_four_processes_share_one_budget(
    store,
    simulate: Callable[..., Simulator],
    most_in_a_second,
    monkeypatch,
    api_key,
    secret_key,
):
    """In sum never above the rate, above 90 % of it, also once one was killed."""
    monkeypatch.setenv("SOURCES__ESMS__API_KEY", api_key)
    monkeypatch.setenv("SOURCES__ESMS__SECRET_KEY", secret_key)
    simulator = simulate(latency=0.2)
    processes = [
        subprocess.Popen(
            [sys.executable, str(ASKER), simulator.url, store, str(number)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    try:
        marks = []
        # All have begun after the first part; one is killed after the second.
        for requests in (60, 50, 20, 50):
            marks.append(len(simulator.arrivals.times))
            while len(simulator.arrivals.times) < marks[-1] + requests:
                assert processes[-1].poll() is None, processes[-1].communicate()
                time.sleep(0.05)
            if len(marks) == 2:
                processes[0].kill()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    times = sorted(simulator.arrivals.times)
    assert most_in_a_second(times) <= RATE
    assert used(times[marks[1] : marks[2]]) > 0.9 * RATE
    assert used(times[marks[3] :]) > 0.9 * RATE


def test_other_keys_have_budgets_of_their_own(store, open_shared):
    """What one key used up leaves the budget of another untouched."""
    one = open_shared(store, requests_per_second=1)
    other = open_shared(store, requests_per_second=1, api_key="another key")
    began = time.monotonic()
    assert one.acquire()
    assert other.acquire()
    assert time.monotonic() - began < 0.9


def test_two_limiters_of_a_key_wait_for_each_other(store, open_shared):
    """A slot that one has taken is gone for the other until its window ends."""
    one, other = (open_shared(store, requests_per_second=1) for _ in range(2))
    assert one.acquire()
    began = time.monotonic()
    assert other.acquire()
    assert time.monotonic() - began > 0.9


def test_slot_that_was_given_back_serves_the_next(store, open_shared):
    """Threads that find nothing to do at the end of a slice cost no slots."""
    limiter = open_shared(store, requests_per_second=1)
    began = time.monotonic()
    for _ in range(20):
        limiter.release(limiter.acquire())
    assert time.monotonic() - began < 10


def test_late_request_counts_from_when_it_left(store, open_shared):
    """A handshake between leave and sending can't bunch requests together."""
    one, other = (open_shared(store, requests_per_second=1) for _ in range(2))
    slot = one.acquire()
    time.sleep(0.5)
    one.sent(slot)
    sent_at = time.monotonic()
    assert other.acquire()
    assert time.monotonic() - sent_at > 0.9


def test_waiting_ends_when_the_run_is_told_to_stop(store, open_shared):
    """A stop doesn't wait for the budget."""
    stop = Stop()
    limiter = open_shared(store, stop, requests_per_second=1)
    assert open_shared(store, requests_per_second=1).acquire()
    timer = threading.Timer(0.1, stop, [EsmsError("enough")])
    timer.start()
    began = time.monotonic()
    assert limiter.acquire() is None
    assert time.monotonic() - began < 0.9
    timer.join()


def test_budget_that_is_lost_ends_the_run_in_order(store, open_shared):
    """A store that is gone stops the run, with the reason in one line."""
    stop = Stop()
    limiter = open_shared(store, stop)
    limiter.close()
    assert limiter.acquire() is None
    assert "the shared budget can't be reached any more" in str(stop.reason)
    assert "\n" not in str(stop.reason)


@pytest.mark.parametrize(
    "store",
    [
        "sqlite:////nowhere/at/all/budget.sqlite",
        "sqlite:////proc/budget.sqlite",
        "postgresql://user:hidden@localhost/db?host=/nowhere",
    ],
)
def test_store_that_cannot_be_reached_is_refused(make_settings, store):
    """Before anything is read or asked, in one line, without the password."""
    with pytest.raises(ConfigError, match="rate_limit_store can't be used") as caught:
        open_limiter(make_settings(rate_limit_store=store), Stop())
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_store_that_somebody_holds_is_not_waited_for_without_end(
    make_settings, tmp_path, monkeypatch
):
    """A process that is stopped or stuck may hold its lock for ever."""
    monkeypatch.setattr(shared_rate_limit, "CONNECT_SECONDS", 0.2)
    path = tmp_path / "budget.sqlite"
    with FileLock(f"{path}.lock"), pytest.raises(ConfigError, match="could not be"):
        open_limiter(make_settings(rate_limit_store=f"sqlite:///{path}"), Stop())
