"""What refuses a request: it costs what it refuses, or ends the run with the reason."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from esms_source.exceptions import CredentialsError, OutageError
from esms_source.ledger import WORK
from esms_source.polling.backoff import Backoff
from esms_source.polling.doors import callback_door
from esms_source.polling.poller import Poller
from esms_source.runtime import Clock, Progress, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.api.request import Request
    from esms_source.config import Settings
    from tests.conftest import Answer, Hostile

HASTY = Backoff(whole=0.001, part=0.001, refused=0.001)
Poll = tuple[list["Request"], Stop]


def answer(**envelope: object) -> bytes:
    return json.dumps(envelope).encode()


SOUND = answer(Code=100, Data_callback=[])


@pytest.fixture
def poll(make_settings: Callable[..., Settings]) -> Callable[..., Poll]:
    """Ask a server for so many RefIds, one request after the other."""

    def one(server: Hostile, count: int, **settings: Any) -> Poll:
        fast: dict[str, Any] = {"requests_per_second": 1_000_000, "max_in_flight": 1}
        made = make_settings(**{"base_url": server.url} | fast | settings)
        stop = Stop()
        door = callback_door(made, stop, HASTY, None)
        poller = Poller(made, door, Clock(), stop, Progress(), HASTY)
        rows = [{"oa_id": "oa", "ref_id": f"r{number}"} for number in range(count)]
        work = pa.Table.from_pylist(rows, schema=WORK)
        try:
            groups = list(poller.poll([work]))
        finally:
            poller.close()
        return [request for group in groups for request in group], stop

    return one


REFUSALS: dict[str, Answer] = {
    "HTTP 503": (503, {}, b""),
    "HTTP 503 with Retry-After": (503, {"Retry-After": "0.001"}, b""),
    "HTTP 429": (429, {}, b""),
    "HTTP 403": (403, {}, b""),
    "Code 160": answer(Code=160),
    "HTML": b"<html>",
    "a dropped connection": None,
    "a time-out": (200, {"Content-Length": "99"}, b""),
    "too many rows": answer(Code=100, Data_callback=[[]] * 20_001),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_poisonous_ref_id_fails_alone_whatever_refuses_it(
    refusal: str, poll: Callable[..., Poll], hostile: Callable[..., Hostile]
) -> None:
    """Its 199 neighbours are answered: contract, section 6.4."""
    poisoned = REFUSALS[refusal]
    server = hostile(
        # Before any success a status that leads nowhere would end the run.
        lambda number, ids: poisoned if "r277" in ids and number > 1 else SOUND
    )
    requests, stop = poll(server, 400, max_attempts=1, read_timeout=0.1)
    ended = [r for r in requests if r.outcome != "split"]
    failed = [r for r in ended if r.outcome == "failed"]
    assert [(r.ref_ids, r.alone) for r in failed] == [(["r277"], True)]
    assert sum(len(r.ref_ids) for r in ended if r.outcome == "answered") == 399
    assert not stop


LONG_WAITS: list[Answer] = [
    (429, {"Retry-After": "301"}, b""),
    (503, {"Retry-After": "3600"}, b""),
    (429, {"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, b""),
    (200, {"Retry-After": "3600"}, answer(Code="160")),
]


@pytest.mark.parametrize("refusal", LONG_WAITS, ids=ascii)
def test_a_long_retry_after_ends_the_run(
    refusal: Answer, poll: Callable[..., Poll], hostile: Callable[..., Hostile]
) -> None:
    """It isn't waited for; it is said when to come back: contract, section 6.4."""
    server = hostile(lambda number, _: refusal if number == 2 else SOUND)
    requests, stop = poll(server, 800)
    assert isinstance(stop.reason, OutageError)
    assert "run again after 2" in str(stop.reason)
    assert [r.outcome for r in requests] == ["answered", "failed"]
    assert requests[1].retry_immediately


@pytest.mark.parametrize(
    "date", ["Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "\xc3\xa9", "9" * 400]
)
def test_a_retry_after_that_says_nothing_is_none(
    date: str, poll: Callable[..., Poll], hostile: Callable[..., Hostile]
) -> None:
    """The request is asked again like after any refusal."""
    refusal: Answer = (429, {"Retry-After": date}, b"")
    server = hostile(lambda number, _: refusal if number == 1 else SOUND)
    requests, stop = poll(server, 1)
    assert not stop
    assert [(r.outcome, r.attempts) for r in requests] == [("answered", 2)]


@pytest.mark.parametrize("status", [301, 302, 307, 401, 403, 404, 405])
@pytest.mark.parametrize("content", [b"", b"<html>", answer(error="Invalid request")])
def test_a_dead_end_ends_the_run(
    status: int,
    content: bytes,
    poll: Callable[..., Poll],
    hostile: Callable[..., Hostile],
) -> None:
    """Three attempts, and it is said what to check: contract, section 6.4."""
    server = hostile(lambda *_: (status, {"Location": "http://127.0.0.1:1/"}, content))
    _, stop = poll(server, 4_000)
    assert isinstance(stop.reason, OutageError)
    assert "check base_url" in str(stop.reason)
    assert f"HTTP {status}" in str(stop.reason)
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [302, 403, 404])
def test_after_a_success_no_status_is_a_dead_end(
    status: int, poll: Callable[..., Poll], hostile: Callable[..., Hostile]
) -> None:
    """Something on the way has trouble; asking again helps."""
    refusal: Answer = (status, {}, b"")
    server = hostile(lambda number, _: refusal if 2 <= number <= 5 else SOUND)
    requests, stop = poll(server, 400)
    assert not stop
    assert Counter(r.outcome for r in requests) == {"answered": 2}


def test_dead_ends_count_only_in_a_row(
    poll: Callable[..., Poll], hostile: Callable[..., Hostile]
) -> None:
    """Another fault between them says that somebody is there."""
    kinds: list[Answer] = [(403, {}, b""), (403, {}, b""), (500, {}, b"")]
    server = hostile(lambda number, _: kinds[(number - 1) % 3])
    _, stop = poll(server, 4_000, max_attempts=1)
    assert "in a row" in str(stop.reason)
    assert len(server.asked) == 60


@pytest.mark.parametrize(
    ("code", "error"), [(101, CredentialsError), (160, OutageError), (99, None)]
)
@pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 429])
def test_an_answer_with_a_code_is_judged_by_its_code(
    code: int,
    error: type[Exception] | None,
    status: int,
    poll: Callable[..., Poll],
    hostile: Callable[..., Hostile],
) -> None:
    """Whatever the HTTP status says: contract, sections 6.4 and 6.5."""
    headers = {"Retry-After": "999"} if code == 160 else {}
    server = hostile(lambda *_: (status, headers, answer(Code=code)))
    _, stop = poll(server, 4, max_attempts=1)
    assert type(stop.reason) is (error or type(None))
    assert len(server.asked) == (1 if error else 7)
