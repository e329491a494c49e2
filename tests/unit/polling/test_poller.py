from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pytest

from esms_source.api.held import MAX_READ_BYTES
from esms_source.exceptions import (
    CredentialsError,
    OaRefusedError,
    OutageError,
    RateLimitedError,
    StoppedError,
    TransportError,
)
from esms_source.ledger import WORK
from esms_source.polling import poller as poller_module
from esms_source.polling.backoff import Backoff
from esms_source.polling.doors import callback_door
from esms_source.polling.poller import MOST_UNREAD, Poller, most_ahead
from esms_source.runtime import Clock, Progress, Stop

if TYPE_CHECKING:
    from collections.abc import Generator

    from esms_source.api.client import Client
    from esms_source.api.request import Request


def work(*pairs, **columns):
    """Return planned RefIds as a table, from (oa_id, ref_id)."""
    rows = [{"oa_id": oa, "ref_id": ref, **columns} for oa, ref in pairs]
    return pa.Table.from_pylist(rows, schema=WORK)


def many(count, oa="oa", prefix="r"):
    return work(*[(oa, f"{prefix}{n}") for n in range(count)])


HASTY = Backoff(whole=0.001, part=0.001, refused=0.02)


@pytest.fixture
def poll(make_settings):
    """Poll a simulator for some work; back-offs take next to no time."""

    def one(simulator, *tables, stop=None, progress=None, backoff=HASTY, **more):
        fast = {"requests_per_second": 2_000, "base_url": simulator.url}
        made = make_settings(**(fast | more))
        stop = Stop() if stop is None else stop
        door = callback_door(made, stop, backoff, None)
        poller = Poller(made, door, Clock(), stop, progress or Progress(), backoff)
        try:
            return [request for group in poller.poll(tables) for request in group], stop
        finally:
            poller.close()

    return one


def poller_of(made):
    """Return a poller of GetCallback that hardly waits."""
    stop = Stop()
    door = callback_door(made, stop, HASTY, None)
    return Poller(made, door, Clock(), stop, Progress(), HASTY)


def outcomes(requests):
    return Counter(request.outcome for request in requests)


def asked_by_outcome(requests):
    return {
        outcome: sorted(
            ref_id
            for request in requests
            if request.outcome == outcome
            for ref_id in request.ref_ids
        )
        for outcome in outcomes(requests)
    }


def assert_each_once(requests, count):
    """Each RefId ended in exactly one request that wasn't split."""
    ended = Counter(
        (r.oa_id, ref_id)
        for r in requests
        if r.outcome != "split"
        for ref_id in r.ref_ids
    )
    assert len(ended) == count
    assert set(ended.values()) == {1}


def test_all_work_is_asked(poll, simulate):
    """Batch after batch, each answered once."""
    simulator = simulate()
    requests, stop = poll(simulator, many(450), many(30, "two"))
    assert sorted(len(r.work) for r in requests) == [30, 50, 200, 200]
    assert outcomes(requests) == {"answered": 4}
    assert_each_once(requests, 480)
    assert not stop
    assert all(r.attempts == 1 and r.latency > 0 and r.waited >= 0 for r in requests)
    assert all(r.started_at <= r.polled_at for r in requests)


def test_no_work_ends_at_once(poll, simulate):
    """Nothing is sent."""
    simulator = simulate()
    requests, _ = poll(simulator)
    assert requests == []
    assert simulator.arrivals.requests == 0


@pytest.mark.parametrize(
    "fault", ["500", "drop", "cut", "nocode", "code99", "unknown", "html"]
)
def test_a_fault_is_asked_again(fault, poll, simulate):
    """Section 6.4, up to max_attempts in all."""
    simulator = simulate(on_request=lambda number, *_: fault if number < 3 else None)
    requests, _ = poll(simulator, many(5))
    assert outcomes(requests) == {"answered": 1}
    assert requests[0].attempts == 3
    assert simulator.arrivals.requests == 3


def test_attempts_are_counted_as_the_server_sees_them(poll, simulate):
    """The sum of attempts is what the server saw: section 5."""
    simulator = simulate(faults="500=0.2,drop=0.1,429_bare=0.1", seed=3)
    requests, _ = poll(simulator, many(600), batch_size=10)
    assert sum(r.attempts for r in requests) == simulator.arrivals.requests
    assert_each_once(requests, 600)


def test_a_poisonous_ref_id_fails_alone(poll, simulate):
    """After all attempts a batch is split until one RefId is left: section 6.4."""
    simulator = simulate(faults="poison=r77")
    requests, stop = poll(simulator, many(200), max_attempts=2)
    assert asked_by_outcome(requests)["failed"] == ["r77"]
    assert len(asked_by_outcome(requests)["answered"]) == 199
    assert_each_once(requests, 200)
    assert not stop
    assert all(r.attempts == 2 for r in requests if r.outcome == "split")


def test_two_poisonous_ref_ids_fail_alone(poll, simulate):
    """Wherever they stand."""
    simulator = simulate(faults="poison=r0,poison=r199")
    requests, _ = poll(simulator, many(200), max_attempts=1)
    assert asked_by_outcome(requests)["failed"] == ["r0", "r199"]
    assert_each_once(requests, 200)


def test_one_poison_per_batch_does_not_look_like_an_outage(poll, simulate):
    """Poison spread over many batches still fails alone."""
    poison = [f"r{n}" for n in range(5, 2_000, 200)]
    simulator = simulate(faults=",".join(f"poison={ref_id}" for ref_id in poison))
    requests, stop = poll(simulator, many(2_000), max_attempts=1)
    assert asked_by_outcome(requests)["failed"] == sorted(poison)
    assert_each_once(requests, 2_000)
    assert not stop


def test_one_attempt_is_no_retry(poll, simulate):
    """max_attempts = 1."""
    simulator = simulate(faults="500=1")
    requests, _ = poll(simulator, many(1), max_attempts=1)
    assert simulator.arrivals.requests == 1
    assert isinstance(requests[0].error, TransportError)


def test_a_refused_oa_fails_and_the_others_go_on(poll, simulate):
    """Code 204: section 6.5; the refused OA isn't asked again in the run."""
    simulator = simulate(refused_oas=frozenset({"bad"}))
    requests, stop = poll(
        simulator, many(30, "bad"), many(30, "good"), batch_size=5, max_in_flight=1
    )
    by_oa = {(r.oa_id, r.outcome) for r in requests}
    assert by_oa == {("bad", "refused"), ("good", "answered")}
    assert_each_once(requests, 60)
    assert not stop
    assert simulator.arrivals.requests == 1 + 6
    errors = [r.error for r in requests if r.outcome == "refused"]
    assert all(isinstance(error, OaRefusedError) for error in errors)
    assert sum(r.attempts for r in requests) == simulator.arrivals.requests


def test_a_refused_key_stops_the_run(poll, simulate):
    """Code 101: no further request; what was answered stays: section 6.5."""
    simulator = simulate(faults="refuse_key_after=4")
    requests, stop = poll(simulator, many(100), batch_size=5, max_in_flight=1)
    assert isinstance(stop.reason, CredentialsError)
    assert outcomes(requests) == {"answered": 3, "refused": 1}
    assert simulator.arrivals.requests == 4
    assert requests[-1].retry_immediately


def test_a_refused_key_is_never_asked_twice(poll, simulate):
    """Even with many requests under way only those end."""
    simulator = simulate(faults="refuse_key=1", latency=0.05)
    requests, stop = poll(simulator, many(500), batch_size=1, max_in_flight=8)
    assert isinstance(stop.reason, CredentialsError)
    assert simulator.arrivals.requests <= 100
    assert all(r.attempts == 1 for r in requests)


def test_an_outage_ends_the_run(poll, simulate):
    """A server that answers nothing isn't asked for hours."""
    simulator = simulate(faults="500=1")
    requests, stop = poll(simulator, many(4_000), batch_size=20, max_attempts=1)
    assert isinstance(stop.reason, OutageError)
    assert "\n" not in str(stop.reason)
    assert simulator.arrivals.requests < 400
    ended = Counter(x for r in requests if r.outcome != "split" for x in r.ref_ids)
    assert set(ended.values()) == {1}


def test_every_second_request_failing_is_no_outage(poll, simulate):
    """As long as something is answered the run goes on."""
    simulator = simulate(faults="500=0.5", seed=1)
    requests, stop = poll(simulator, many(400), batch_size=2, max_attempts=5)
    assert not stop
    assert_each_once(requests, 400)


@pytest.mark.parametrize("fault", ["429", "429_bare", "429_zero", "code160"])
def test_a_refused_rate_is_waited_for(fault, poll, simulate):
    """Section 6.3: the request is asked again, whoever waits."""
    simulator = simulate(on_request=lambda number, *_: fault if number < 3 else None)
    requests, _ = poll(simulator, many(3))
    assert outcomes(requests) == {"answered": 1}
    assert requests[0].attempts == 3
    assert requests[0].waited >= 0.04


def test_a_rate_that_is_always_refused_is_split_too(poll, simulate):
    """One poisonous RefId may hide behind any refusal: section 6.4."""
    simulator = simulate(faults="429_bare=1")
    requests, _ = poll(simulator, many(2), max_attempts=2)
    assert outcomes(requests) == {"split": 1, "failed": 2}
    assert all(isinstance(r.error, RateLimitedError) for r in requests)
    assert all(r.attempts == 2 for r in requests)


def test_a_stop_lets_what_is_under_way_end(poll, simulate):
    """Answers that are paid for are kept; nothing new is sent."""
    stop = Stop()
    simulator = simulate(
        latency=0.1,
        on_request=lambda number, *_: (
            stop(StoppedError("stop")) if number == 3 else None
        ),
    )
    requests, _ = poll(simulator, many(100), stop=stop, batch_size=1, max_in_flight=4)
    assert simulator.arrivals.requests <= 8
    assert outcomes(requests)["answered"] == simulator.arrivals.requests


def test_a_stop_ends_the_retries(poll, simulate):
    """A run that is stopped in a back-off waits no longer."""
    stop = Stop()
    timer = threading.Timer(0.3, stop, [StoppedError("stop")])
    simulator = simulate(faults="500=1", on_request=lambda *_: timer.start())
    began = time.monotonic()
    requests, _ = poll(simulator, many(1), stop=stop, backoff=Backoff(whole=60))
    timer.join()
    assert time.monotonic() - began < 5
    assert requests[0].outcome == "failed"
    assert requests[0].retry_immediately


def test_the_first_reason_of_a_stop_counts():
    """Later ones follow from it."""
    stop, first = Stop(), StoppedError("first")
    stop(first)
    stop(StoppedError("second"))
    assert stop.reason is first
    assert stop
    assert stop.wait(60)


def test_progress_tells_what_is_under_way(poll, simulate):
    """Numbers for whoever watches add up at the end."""
    progress = Progress(total=50)
    simulator = simulate(faults="500=0.3", seed=2)
    poll(simulator, many(50), progress=progress, batch_size=5)
    assert progress.asked == 50
    assert progress.in_flight == 0
    assert progress.sent == simulator.arrivals.requests


def test_a_reader_that_leaves_early_ends_the_crew(make_settings, simulate):
    """No thread outlives a generator that is closed."""
    simulator = simulate(latency=0.01)
    made = make_settings(
        base_url=simulator.url, requests_per_second=2_000, batch_size=1
    )
    poller = poller_of(made)
    groups = cast("Generator[list[Request], None, None]", poller.poll([many(400)]))
    next(groups)
    groups.close()
    poller.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [
        name for name in names if name.startswith("esms-") and name[5:].isdigit()
    ]
    assert simulator.arrivals.requests < 400


def test_asking_goes_on_ahead_of_the_reader_and_not_too_far(make_settings, simulate):
    """As far as is promised; what nobody takes then waits."""
    simulator = simulate()
    made = make_settings(
        base_url=simulator.url,
        requests_per_second=2_000,
        batch_size=1,
        max_in_flight=2,
        slice_ref_ids=400,
    )
    most = most_ahead(made)
    assert most == MOST_UNREAD + 2
    poller = poller_of(made)
    groups = poller.poll([many(400)])
    deadline = time.monotonic() + 10
    while simulator.arrivals.requests < most and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert simulator.arrivals.requests == most
    assert sum(map(len, groups)) == 400
    poller.close()


@pytest.mark.parametrize(
    ("slice_ref_ids", "most"), [(240_000, 28_800), (115_200, 28_800), (115_199, 0)]
)
def test_only_a_large_slice_is_asked_ahead(make_settings, slice_ref_ids, most):
    """At most a quarter of it."""
    assert most_ahead(make_settings(slice_ref_ids=slice_ref_ids)) == most


def test_a_bug_in_a_thread_reaches_the_caller(make_settings, simulate):
    """It doesn't hang the run, nor is it swallowed."""
    simulator = simulate()
    made = make_settings(base_url=simulator.url)

    class Broken:
        def ask(self, *_):
            raise KeyError("bug")

        def wait_for_loading(self):
            """Say at once that there is room."""

        def release(self, requests):
            """Count nothing."""

    door = callback_door(made, Stop(), HASTY, None)
    door = replace(door, client=cast("Client", Broken()))
    poller = Poller(made, door, Clock(), Stop(), Progress(), HASTY)
    with pytest.raises(KeyError, match="bug"):
        list(poller.poll([many(3)]))


def test_requests_under_way_are_bounded(poll, simulate):
    """max_in_flight."""
    simulator = simulate(latency=0.05)
    poll(simulator, many(40), batch_size=1, max_in_flight=5)
    assert simulator.arrivals.stats()["most_in_flight"] == 5


def test_large_answers_wait_for_a_slow_reader_and_none_is_lost(
    make_settings, hostile, monkeypatch
):
    """What is read and not taken is bounded; asking goes on as soon as it is taken."""
    monkeypatch.setattr(poller_module, "GROUP_BYTES", 1)
    large = json.dumps(
        {"Code": 100, "Data_callback": [], "Message": "x" * (MAX_READ_BYTES // 8)}
    ).encode()
    server = hostile(lambda *_: large)
    made = make_settings(
        base_url=server.url,
        requests_per_second=2_000,
        batch_size=1,
        max_in_flight=4,
    )
    poller = poller_of(made)
    groups = poller.poll([many(40)])
    time.sleep(0.7)
    assert len(server.asked) <= 8 + 4
    assert sum(map(len, groups)) == 40
    poller.close()


def test_a_reader_that_leaves_large_answers_behind_ends_the_crew(
    make_settings, hostile
):
    """Threads that wait for room are let go."""
    large = json.dumps(
        {"Code": 100, "Data_callback": [], "Message": "x" * (MAX_READ_BYTES // 3)}
    ).encode()
    server = hostile(lambda *_: large)
    made = make_settings(
        base_url=server.url, requests_per_second=2_000, batch_size=1, max_in_flight=4
    )
    poller = poller_of(made)
    poller.poll([many(40)])
    time.sleep(0.5)
    began = time.monotonic()
    poller.close()
    # Without that it would last for ever.
    assert time.monotonic() - began < 20
