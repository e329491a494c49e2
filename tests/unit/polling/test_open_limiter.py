"""Who shares a window with whom."""

from __future__ import annotations

import threading

from esms_source.exceptions import EsmsError
from esms_source.polling.shared_rate_limit import open_limiter
from esms_source.runtime import Stop

URL = "http://127.0.0.1:9"


def test_one_key_has_one_budget_in_a_process(make_settings, most_in_a_second):
    """A second source, or a run after another, goes on in the same second."""
    settings = make_settings(base_url=URL, requests_per_second=10)
    sent: list[float] = []
    for _ in range(2):
        limiters = [open_limiter(settings, Stop()) for _ in range(2)]
        for limiter in limiters * 3:
            slot = limiter.acquire()
            assert slot
            limiter.sent(slot)
            sent.append(slot.sent_at or 0.0)
    assert most_in_a_second(sent) <= 10


def test_another_key_has_a_budget_of_its_own(make_settings):
    """Two customers' keys in one process don't slow each other."""
    stop = Stop()
    began = stop.monotonic()
    for number in range(8):
        settings = make_settings(
            base_url=URL, requests_per_second=1, api_key=f"key-{number}"
        )
        assert open_limiter(settings, stop).acquire()
    assert stop.monotonic() - began < 1


def test_leave_that_was_never_used_ends_with_its_limiter(make_settings):
    """A run that failed between leave and sending holds nobody back for ever."""
    settings = make_settings(base_url=URL, requests_per_second=1, api_key="left")
    limiter = open_limiter(settings, Stop())
    assert limiter.acquire()
    limiter.close()
    stop = Stop()
    threading.Timer(5, stop, [EsmsError("still closed")]).start()
    assert open_limiter(settings, stop).acquire()
