"""What answers hold is bounded, and whoever waits for room gets it."""

from __future__ import annotations

import threading
import time

import pytest

from esms_source.api.deadlines import attempt
from esms_source.api.held import (
    MAX_ANSWER_BYTES,
    MAX_READ_BYTES,
    MAX_RECEIVED_BYTES,
    ReceivedBytes,
    UnloadedBytes,
    weight,
)
from esms_source.exceptions import TransportError


def test_the_bounds_are_those_of_the_contract() -> None:
    """128 MiB: what is received, one answer more, what is read, one answer more."""
    most = MAX_RECEIVED_BYTES + MAX_READ_BYTES + 2 * MAX_ANSWER_BYTES
    assert most <= 128 * 1024 * 1024


def test_above_the_bound_one_answer_goes_on_and_the_others_wait() -> None:
    """So that not all wait for each other; a wait ends with the attempt."""
    received = ReceivedBytes(most=10)
    with received.share() as first, received.share() as second:
        first.grow(6)
        second.grow(4)
        first.grow(50)
        with attempt(0.05), pytest.raises(TransportError, match="too many"):
            second.grow(1)
        first.grow(50)


def test_room_is_free_again_when_an_answer_ends() -> None:
    """Whoever waited for it goes on."""
    received = ReceivedBytes(most=10)
    went_on = threading.Event()

    def wait() -> None:
        with received.share() as share, attempt(10):
            share.grow(5)
            went_on.set()

    thread = threading.Thread(target=wait)
    with received.share() as first, received.share() as extra:
        first.grow(10)
        extra.grow(1)
        thread.start()
        assert not went_on.wait(0.02)
    thread.join()
    assert went_on.is_set()


def test_reading_waits_for_loading() -> None:
    """Until what was read has become rows."""
    unloaded = UnloadedBytes(most=10)
    unloaded.wait()
    unloaded.add(12)
    thread = threading.Timer(0.05, unloaded.add, [-12])
    thread.start()
    began = time.monotonic()
    unloaded.wait()
    thread.join()
    assert time.monotonic() - began >= 0.04


@pytest.mark.parametrize(
    ("text", "width"), [("x" * 99, 1), ("đ" * 99, 4), ("😀" * 99, 16)]
)
def test_an_answer_weighs_what_python_takes_for_it(text: str, width: int) -> None:
    """Its letters have up to four bytes each, rows come on top."""
    content = bytearray(text, "utf-8")
    assert weight(content, 0) == 99 * width
    assert weight(content, 3) > weight(content, 0)
