from __future__ import annotations

import random
import threading
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esms_source.polling.rate_limit import MOST_WAIT, RateLimiter, Slot, Window
from esms_source.runtime import Stop

if TYPE_CHECKING:
    from collections.abc import Callable

RATES = [1, 2, 5, 19.5, 20, 100]


class Server:
    """What an API with a limit of its own makes of a stream of requests."""

    def __init__(self, clock, limiter, limit: float) -> None:
        self.arrivals: deque[float] = deque()
        self.all: list[float] = []
        self.refusals: list[float] = []
        self._clock, self._limiter, self._limit = clock, limiter, limit

    def take(self, slot) -> None:
        now = self._clock.monotonic()
        self._limiter.sent(slot)
        self.arrivals.append(now)
        self.all.append(now)
        while self.arrivals[0] <= now - 1:
            self.arrivals.popleft()
        refused = len(self.arrivals) > self._limit
        if refused:
            self.refusals.append(now)
        answer = self._refuse if refused else self._accept
        self._clock.after(0.05, lambda: answer(slot))

    def _refuse(self, slot) -> None:
        self._limiter.refused(slot, 0)

    def _accept(self, _slot) -> None:
        self._limiter.accepted()


def run(clock, limiter, seconds: float, take: Callable[[Any], object]) -> int:
    """Acquire without a pause for some fake seconds; return how often."""
    end, count = clock.now + seconds, 0
    while True:
        slot = limiter.acquire()
        if clock.now >= end:
            return count
        take(slot)
        count += 1


def leave(limiter: RateLimiter) -> Slot:
    """Wait for leave, which must come."""
    slot = limiter.acquire()
    assert slot
    return slot


def refuse(limiter, retry_after: float = 0) -> None:
    """Send one request and have it refused."""
    slot = limiter.acquire()
    limiter.sent(slot)
    limiter.refused(slot, retry_after)


@pytest.mark.parametrize("rate", RATES)
def test_never_more_than_the_rate_in_any_second(rate, fake_clock, most_in_a_second):
    """The window slides: there is no second to hide a burst behind."""
    limiter = RateLimiter(rate, fake_clock)
    sent: list[float] = []

    def take(slot):
        limiter.sent(slot)
        sent.append(fake_clock.now)

    run(fake_clock, limiter, 30, take)
    assert most_in_a_second(sent) <= rate


@pytest.mark.parametrize("rate", [1, 2, 5, 20, 100])
def test_the_rate_is_used(rate, fake_clock):
    """As long as there is work, above 96 % of the rate: section 6.2."""
    limiter = RateLimiter(rate, fake_clock)
    count = run(fake_clock, limiter, 60, limiter.sent)
    assert count / 60 >= 0.96 * rate


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rate=st.integers(1, 40),
    delays=st.lists(st.floats(0, 3), min_size=1, max_size=20),
)
def test_slow_sends_cannot_bunch_requests(rate, delays, request):
    """A slot counts from the moment its request has left, however late."""
    clock = request.getfixturevalue("fake_clock")
    most = request.getfixturevalue("most_in_a_second")
    limiter = RateLimiter(rate, clock)
    sent: list[float] = []
    number = iter(range(10**6))

    def take(slot):
        def leave():
            limiter.sent(slot)
            sent.append(clock.now)

        clock.after(delays[next(number) % len(delays)], leave)

    run(clock, limiter, 12, take)
    clock.wait(5)
    assert sent
    assert most(sent) <= rate


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6))
def test_uneven_travel_stays_within_the_rate_at_the_server(seed, request):
    """Requests that travel for 0 to 20 ms still arrive at most 20 a second."""
    clock = request.getfixturevalue("fake_clock")
    most = request.getfixturevalue("most_in_a_second")
    dice = random.Random(seed)
    limiter = RateLimiter(20, clock)
    arrived: list[float] = []

    def take(slot):
        limiter.sent(slot)
        arrived.append(clock.now + dice.uniform(0, 0.02))

    run(clock, limiter, 10, take)
    assert most(arrived) <= 20


def test_the_first_note_of_sending_counts(fake_clock):
    """Later notes don't make the window longer."""
    limiter = RateLimiter(1, fake_clock)
    slot = leave(limiter)
    limiter.sent(slot)
    fake_clock.wait(0.5)
    limiter.sent(slot)
    leave(limiter)
    assert fake_clock.now == pytest.approx(1_001.0, abs=0.05)


def test_a_slot_given_back_is_free_again(fake_clock):
    """What wasn't used doesn't count."""
    limiter = RateLimiter(1, fake_clock)
    limiter.release(leave(limiter))
    leave(limiter)
    assert fake_clock.now == 1_000.0


def test_a_slot_given_back_late_leaves_the_others_alone(fake_clock, most_in_a_second):
    """Giving back an older slot doesn't open the window for the newer one."""
    limiter = RateLimiter(2, fake_clock)
    first, second = leave(limiter), leave(limiter)
    limiter.sent(second)
    limiter.release(first)
    sent = [fake_clock.now]
    for _ in range(6):
        limiter.sent(leave(limiter))
        sent.append(fake_clock.now)
    assert most_in_a_second(sent) <= 2


def test_a_slot_given_back_after_a_long_wait_is_no_error(fake_clock):
    """A thread may find out late that there is nothing left to ask."""
    limiter = RateLimiter(2, fake_clock)
    slot = leave(limiter)
    fake_clock.wait(10)
    limiter.sent(leave(limiter))
    limiter.release(slot)
    limiter.sent(leave(limiter))
    assert fake_clock.now < 1_012


def test_the_pace_falls_once_per_episode(fake_clock):
    """Twenty refusals of requests that were under way are one: x 0.7."""
    limiter = RateLimiter(20, fake_clock)
    slots: list[Slot] = []

    def take(slot):
        limiter.sent(slot)
        slots.append(slot)

    run(fake_clock, limiter, 0.9, take)
    for slot in slots:
        limiter.refused(slot, 0)
    assert limiter.pace == pytest.approx(14)


def test_a_refusal_of_the_slower_pace_slows_again(fake_clock):
    """What was granted after the fall and refused all the same counts anew."""
    limiter = RateLimiter(20, fake_clock)
    refuse(limiter)
    refuse(limiter)
    assert limiter.pace == pytest.approx(20 * 0.7 * 0.7)


def test_the_pace_never_falls_below_one_a_second(fake_clock):
    """However often the API refuses, it is asked again."""
    limiter = RateLimiter(2, fake_clock)
    for _ in range(20):
        refuse(limiter)
    assert limiter.pace == 1


@pytest.mark.parametrize(("retry_after", "silence"), [(0, 1), (0.2, 1), (1, 1), (7, 7)])
def test_after_a_refusal_there_is_silence(retry_after, silence, fake_clock):
    """Retry-After, at least a second: section 6.3."""
    limiter = RateLimiter(20, fake_clock)
    refuse(limiter, retry_after)
    refused_at = fake_clock.now
    leave(limiter)
    assert fake_clock.now - refused_at == pytest.approx(silence, abs=0.06)


def test_an_absurd_retry_after_does_not_end_the_run(fake_clock):
    """A Retry-After of a year is cut."""
    limiter = RateLimiter(20, fake_clock)
    refuse(limiter, 31_536_000)
    leave(limiter)
    assert fake_clock.now - 1_000 <= MOST_WAIT + 1


def test_a_shorter_silence_does_not_end_a_longer_one(fake_clock):
    """Of several refusals the longest wait holds."""
    limiter = RateLimiter(20, fake_clock)
    first, second = leave(limiter), leave(limiter)
    limiter.refused(first, 9)
    limiter.refused(second, 1)
    began = fake_clock.now
    leave(limiter)
    assert fake_clock.now - began >= 8.9


def test_the_pace_climbs_back_to_the_rate_and_no_further(fake_clock):
    """After one passing refusal the full rate is reached within two minutes."""
    limiter = RateLimiter(20, fake_clock)
    refuse(limiter)
    sent: list[float] = []

    def take(slot):
        limiter.sent(slot)
        sent.append(fake_clock.now)
        limiter.accepted()

    run(fake_clock, limiter, 120, take)
    assert limiter.pace == 20
    late = [at for at in sent if at > fake_clock.now - 20]
    assert len(late) / 20 >= 0.96 * 20


def test_while_slower_the_requests_are_evenly_spread(fake_clock):
    """A slower pace is no burst with a pause behind it."""
    limiter = RateLimiter(20, fake_clock)
    refuse(limiter)
    sent: list[float] = []

    def take(slot):
        limiter.sent(slot)
        sent.append(fake_clock.now)

    run(fake_clock, limiter, 5, take)
    assert min(b - a for a, b in pairwise(sent)) >= 1 / 14 - 1e-9


def test_a_server_of_twelve_a_second_is_found(fake_clock):
    """The pace settles near what the server takes, with few refusals."""
    limiter = RateLimiter(20, fake_clock)
    server = Server(fake_clock, limiter, 12)
    run(fake_clock, limiter, 300, server.take)
    late = [at for at in server.all if at > fake_clock.now - 200]
    assert 10 <= len(late) / 200 <= 12.1
    assert len(server.refusals) / len(server.all) < 0.02


def test_a_server_of_the_same_limit_never_refuses(fake_clock):
    """The server's window and ours agree."""
    limiter = RateLimiter(20, fake_clock)
    server = Server(fake_clock, limiter, 20)
    run(fake_clock, limiter, 60, server.take)
    assert not server.refusals
    assert len(server.all) / 60 >= 0.96 * 20


def test_a_stop_ends_the_wait(fake_clock):
    """A run that is told to stop waits for nothing."""
    limiter = RateLimiter(1, fake_clock)
    run(fake_clock, limiter, 0.5, limiter.sent)
    fake_clock.stopped = True
    assert limiter.acquire() is None


def test_threads_share_one_budget(most_in_a_second):
    """Many threads at once get no more than one would."""
    stop = Stop()
    limiter = RateLimiter(50, stop)
    sent: list[float] = []

    def work():
        while len(sent) < 60 and (slot := limiter.acquire()):
            limiter.sent(slot)
            sent.append(slot.sent_at or 0)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) >= 60
    assert most_in_a_second(sent) <= 50


def test_two_sources_of_a_process_share_one_window(fake_clock, most_in_a_second):
    """Each with its own pace, and both silent after a refusal of either."""
    window = Window()
    first, second = (RateLimiter(20, fake_clock, window=window) for _ in range(2))
    sent: list[float] = []
    for turn in range(200):
        limiter = second if turn % 3 else first
        limiter.sent(leave(limiter))
        sent.append(fake_clock.now)
    assert most_in_a_second(sent) <= 20
    refuse(first, retry_after=30)
    refused_at = fake_clock.now
    leave(second)
    assert fake_clock.now - refused_at >= 30
