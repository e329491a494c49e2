from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.simulator import (
    FATES,
    FAULTS,
    GET_CALLBACK_PATH,
    Behaviour,
    Simulator,
    sample_row,
)
from esms_source.simulator.traffic import Arrivals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OA = "1090257973118325189"
IDS = [f"{number:032x}{number:03}" for number in range(1000)]


class Client:
    """One keep-alive connection to a simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._connection = http.client.HTTPConnection(
            simulator.url.removeprefix("http://"), timeout=5
        )

    def send(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method, path, text)
        self.answer = self._connection.getresponse()
        return self.answer.status, self.answer.read()

    def raw(self, ref_ids: object, **fields: object) -> tuple[int, bytes]:
        body = {"ApiKey": "k", "SecretKey": "s", "OAId": OA, "ListRefid": ref_ids}
        return self.send("POST", GET_CALLBACK_PATH, body | fields)

    def ask(self, *ref_ids: str, **fields: object) -> dict[str, Any]:
        answer = json.loads(self.raw(ref_ids, **fields)[1])
        assert isinstance(answer, dict)
        return answer

    def rows(self, *ref_ids: str, **fields: object) -> list[Any]:
        rows = self.ask(*ref_ids, **fields)["Data_callback"]
        assert isinstance(rows, list)
        return rows

    def close(self) -> None:
        self._connection.close()


class Serving:
    """A simulator with a client, closed in the right order."""

    def __init__(self, **settings: object) -> None:
        self.simulator = Simulator(Behaviour(**{"rate": None} | settings))  # type: ignore[arg-type]

    def __enter__(self) -> Client:
        self.simulator.start()
        self.client = Client(self.simulator)
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.simulator.stop()


@pytest.fixture
def plain() -> Iterator[Client]:
    with Serving(plain=True) as client:
        yield client


def code_of(answer: dict[str, Any]) -> str:
    names = ("Code", "CodeResult", "CodeResponse")
    return str(next(answer[name] for name in names if name in answer))


def is_final(row: object) -> bool:
    assert isinstance(row, dict)
    status, success, failed = (
        str(row[name]) for name in ("SendStatus", "SendSuccess", "SendFailed")
    )
    return status == "4" or (status == "5" and (success, failed) != ("0", "0"))


def test_ref_ids_above_200_are_cut_off_silently(plain):
    """The first 200 are answered, the others as if they had not been sent."""
    rows = plain.rows(*IDS[:250])
    assert [row["SMSID"] for row in rows] == IDS[:200]


def test_a_repeated_ref_id_is_answered_once(plain):
    """Repeats in one request give no further rows."""
    assert len(plain.rows("A", "B", "A")) == 2


def test_plain_rows_are_final_and_have_every_field(plain):
    """Plain mode answers each RefId, whatever its text, with one final row."""
    odd = ["", 'quo"te', "Tiếng Việt", "100%s", "\ud800"]
    rows = plain.rows(*odd, *IDS[:195])
    assert [row["SMSID"] for row in rows[:5]] == odd
    assert all(is_final(row) and row.keys() == sample_row("").keys() for row in rows)
    assert {row["SendSuccess"] for row in rows} == {0, 1}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"ApiKey": ""}, "101"),
        ({"ApiKey": None}, "101"),
        ({"SecretKey": "wrong"}, "101"),
        ({"OAId": ""}, "791"),
        ({"OAId": "closed"}, "204"),
        ({"ListRefid": "A"}, "110"),
    ],
)
def test_a_wrong_request_is_refused_inside_http_200(fields, code):
    """Refusals carry their code in one of three fields, as number or text."""
    shapes = set()
    expected = "s"
    with Serving(secret_key=expected, refused_oas=frozenset({"closed"})) as client:
        for _ in range(3):
            answer = client.ask("A", **fields)
            assert client.answer.status == 200
            assert code_of(answer) == code
            shapes.add(frozenset(answer))
    assert len(shapes) == 3


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_gets_an_answer_without_a_code(plain, body):
    """What is not a JSON object is answered like an unreadable request."""
    status, answer = plain.send("POST", GET_CALLBACK_PATH, body)
    assert (status, json.loads(answer)) == (200, {"error": "Invalid request"})


def test_other_paths_are_not_found_and_do_not_count(plain):
    """Only GetCallback requests are arrivals."""
    assert plain.send("GET", GET_CALLBACK_PATH)[0] == 404
    assert plain.send("POST", "/")[0] == 404
    assert json.loads(plain.send("GET", "/stats")[1])["requests"] == 0


def test_the_rate_is_enforced_and_refusals_fill_the_window():
    """What is above the rate gets the refusal until a whole second has passed."""
    with Serving(plain=True, rate=3) as client:
        statuses = [client.raw(["A"])[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert client.answer.headers["Retry-After"] == "1"
        stats = json.loads(client.send("GET", "/stats")[1])
    assert (stats["requests"], stats["refusals"]) == (5, 2)
    assert (stats["ref_ids_asked"], stats["ref_ids_answered"]) == (5, 3)
    assert stats["rate_used"] > 1


def test_refusals_come_in_the_style_asked_for():
    """A refusal may be any fault, such as Code 160 in HTTP 200."""
    with Serving(plain=True, rate=1, refuse_with="code160") as client:
        client.ask("A")
        assert code_of(client.ask("A")) == "160"
        assert client.answer.status == 200


def test_the_window_is_half_open():
    """An arrival one whole second later is in another window."""
    arrivals = Arrivals(2, record_ref_ids=False)
    refused = [arrivals.arrive(at)[1] for at in (0.0, 0.5, 1.0, 1.25, 3.0)]
    assert refused == [False, False, False, True, False]
    assert arrivals.most_in_one_second == 3
    assert arrivals.rate_used(2) == pytest.approx(4 / 3 / 2)


def test_arrivals_out_of_order_are_kept_in_order():
    """The record is sorted by time, whichever head was complete first."""
    arrivals = Arrivals(None, record_ref_ids=False)
    for at in (2.0, 1.0, 3.0):
        arrivals.arrive(at)
    assert arrivals.times == [1.0, 2.0, 3.0]


def test_no_arrivals_have_no_rate():
    """Figures of an unused simulator are zero or null."""
    arrivals = Arrivals(20, record_ref_ids=True)
    stats = arrivals.stats()
    assert (stats["requests"], stats["most_in_one_second"]) == (0, 0)
    assert stats["rate_used"] is None


def test_stats_and_arrivals_are_told_over_http_and_reset():
    """Another process can read the figures and clear them."""
    serving = Serving(plain=True, record_ref_ids=True)
    with serving as client:
        client.ask("A", "B")
        client.ask("A")
        stats = json.loads(client.send("GET", "/stats")[1])
        times = json.loads(client.send("GET", "/arrivals")[1])
        client.send("POST", "/reset")
        after = json.loads(client.send("GET", "/stats")[1])
    assert times == sorted(times)
    assert len(times) == stats["requests"] == 2
    assert stats["most_in_flight"] == 1
    assert stats["distinct_ref_ids_answered"] == 2
    assert stats["most_answers_for_one_ref_id"] == 2
    assert after["requests"] == after["ref_ids_asked"] == 0
    assert '"A"' not in json.dumps(stats)


def test_asks_and_answers_are_counted_per_ref_id():
    """Asks count every request, answers only those a client could use."""
    serving = Serving(plain=True, record_ref_ids=True, on_request=first_gets("500"))
    with serving as client:
        client.raw(["A"])
        client.raw(["A"])
    arrivals = serving.simulator.arrivals
    assert arrivals.asks == {(OA, "A"): 2}
    assert arrivals.answers == {(OA, "A"): 1}
    assert (arrivals.requests, arrivals.refusals) == (2, 0)
    assert arrivals.faults == {"500": 1}


def answers(seed: int, *, plain: bool) -> list[bytes]:
    with Serving(seed=seed, plain=plain) as client:
        return [client.raw(IDS[:200])[1] for _ in range(2)]


@pytest.mark.parametrize("plain", [True, False])
def test_the_same_seed_gives_the_same_answers(plain):
    """Answers are a function of the seed and of what was asked before."""
    assert answers(1, plain=plain) == answers(1, plain=plain)
    assert answers(1, plain=plain) != answers(2, plain=plain)


def test_a_fate_does_not_depend_on_the_other_ref_ids_asked():
    """A RefId's row is the same alone and in company; another OA differs."""
    with Serving() as client:
        alone = {row["PhoneNumber"] for row in client.rows(IDS[0])}
        together = [row for row in client.rows(*IDS[:9]) if row["SMSID"] == IDS[0]]
        other = {row["PhoneNumber"] for row in client.rows(IDS[0], OAId="1")}
    assert alone == {row["PhoneNumber"] for row in together} != other


@pytest.fixture(scope="module")
def rounds() -> list[list[object]]:
    """The rows of 6 000 RefIds, asked three times."""
    ids = [f"{number:036}" for number in range(6000)]
    with Serving(seed=4) as client:
        return [
            [
                row
                for start in range(0, len(ids), 200)
                for row in client.rows(*ids[start : start + 200])
            ]
            for _ in range(3)
        ]


def by_ref_id(rows: Sequence[object]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        if isinstance(row, dict) and str(row.get("SMSID")).isdecimal():
            found.setdefault(row["SMSID"], []).append(row)
    return found


def test_what_is_held_or_late_is_final_within_three_answers(rounds):
    """Rows turn final and late RefIds turn up; some never do."""
    first, _, last = map(by_ref_id, rounds)
    waiting = [row for rows in first.values() for row in rows if not is_final(row)]
    assert {str(row["SendStatus"]) for row in waiting} == {"1", "2", "5", "7"}
    assert all(is_final(row) for rows in last.values() for row in rows)
    assert len(first) < len(last) < 6000


def test_fates_are_realistic(rounds):
    """About 88 in 100 are delivered at once and few are odd."""
    delivered = [
        rows
        for rows in by_ref_id(rounds[0]).values()
        if len(rows) == 1
        and str(rows[0]["SendSuccess"]) == "1"
        and str(rows[0]["SendFailed"]) == "0"
    ]
    assert sum(FATES.values()) == 1000
    assert 0.86 < len(delivered) / 6000 < 0.90


def test_the_oddities_of_real_answers_occur(rounds):
    """Texts for numbers, several rows, every kind of phone and error text."""
    found = by_ref_id(rounds[0])
    rows = [row for rows in found.values() for row in rows]
    errors = [row["ErrorInfo"] for row in rows if isinstance(row["ErrorInfo"], str)]
    assert {1, 2, 3} == {len(rows) for rows in found.values()}
    assert {5, "5"} <= {row["SendStatus"] for row in rows}
    assert {int, str, float} <= {type(row["TotalPrice"]) for row in rows}
    assert {10, 11, 15, 19} <= {len(str(row["PhoneNumber"])) for row in rows}
    assert {24, 25, 26, 27} <= {row["TypeId"] for row in rows}
    assert any("Telcoid" not in row for row in rows)
    assert any(row.keys() - sample_row("").keys() for row in rows)
    assert {None, ""} <= {row["RequestId"] for row in rows}
    for start in ('{"error":', '"{', "%7B", "%257B", "[{", "-", "Zalo"):
        assert any(text.startswith(start) for text in errors), start
    for end in ("instance of an object.", "____24/04/2024 16:58:01"):
        assert any(text.endswith(end) for text in errors), end


def test_some_rows_cannot_be_placed(rounds):
    """Now and then a row has no SMSID, a foreign one, or is no object."""
    strays = [
        row
        for row in rounds[0] + rounds[1] + rounds[2]
        if not isinstance(row, dict) or not str(row.get("SMSID")).isdecimal()
    ]
    assert 3 <= len(strays) <= 20
    assert len({type(row) for row in strays}) > 1


def test_letter_case_changes_only_where_it_stays_clear():
    """An SMSID may come in other case, yet never when a twin is asked too."""
    ids = [f"Ab{number}" for number in range(400)]
    with Serving() as client:
        alone = Counter(client_id for client_id in smsids(client, ids[:200]))
        twins = [name for text in ids[:100] for name in (text, text.swapcase())]
        together = set(smsids(client, twins))
    assert {text[:2] for text in alone} >= {"Ab"}
    assert {text[:2] for text in alone} & {"AB", "ab"}
    assert {text for text in together if text[:2] in {"AB", "ab"}} == set()


def smsids(client: Client, ref_ids: Sequence[str]) -> Iterator[str]:
    for row in client.rows(*ref_ids):
        if isinstance(row, dict) and row.get("SMSID"):
            yield row["SMSID"]


@pytest.mark.parametrize("plain", [True, False])
def test_scripted_rows_replace_a_fate(plain):
    """Rows in a script come as they stand, or from a function of the turn."""

    def by_turn(ref_id: str, times_asked: int) -> list[object]:
        return [sample_row(ref_id, SendStatus=2)] if times_asked == 1 else []

    scripted = {"A": [sample_row("A", TotalPrice="?"), None], "B": by_turn}
    with Serving(plain=plain, scripted=scripted) as client:
        assert sample_row("A", TotalPrice="?") in client.rows("A", "X")
        assert client.rows("B") == [sample_row("B", SendStatus=2)]
        assert client.rows("B") == []
        assert None in client.rows("A", "X")


def test_an_answer_that_is_spoilt_does_not_age_what_is_held():
    """Only answers that a client could read move a RefId on."""
    turns = []

    def note_turn(_ref_id: str, times_asked: int) -> list[object]:
        turns.append(times_asked)
        return []

    with Serving(scripted={"A": note_turn}, on_request=first_gets("cut")) as client:
        for _ in range(3):
            client.raw(["A"])
    assert turns == [1, 1, 2]


def first_gets(fault: str) -> Callable[[int, str, Sequence[str]], str | None]:
    return lambda number, _oa_id, _ref_ids: fault if number == 1 else None


REPLIES: dict[str, tuple[int, dict[str, str | None], bytes]] = {
    "429": (429, {"Retry-After": "1"}, b"Too Many Requests"),
    "429_bare": (429, {"Retry-After": None}, b"Too Many Requests"),
    "429_zero": (429, {"Retry-After": "0"}, b"Too Many Requests"),
    "500": (500, {"Content-Type": "text/html"}, b"<html><h1>500</h1></html>"),
    "502": (502, {"Content-Type": "text/html"}, b"<html><h1>502</h1></html>"),
    "503": (503, {"Content-Type": "text/html"}, b"<html><h1>503</h1></html>"),
    "504": (504, {"Content-Type": "text/html"}, b"<html><h1>504</h1></html>"),
    "html": (200, {"Content-Type": "text/html"}, b"<html>Maintenance</html>"),
    "empty": (200, {"Content-Length": "0"}, b""),
    "sample": (
        200,
        {"Content-Type": "application/json; charset=utf-8"},
        b'{"CodeResult":"100","CountTotal":1,"SentData":[{"SendStatus:5}]}',
    ),
}
CODES = {
    "code99": {"Code": "99", "Message": "Unknown error"},
    "code160": {"Code": "160", "Message": "TPS limit exceeded"},
    "unknown": {"Code": 777, "Message": None},
    "nocode": {"error": "Invalid request"},
    "refuse_key": {
        "CodeResult": "101",
        "CountRegenerate": 0,
        "ErrorMessage": "Authorize Failed",
    },
}
OTHERS = {
    "429_date",
    "cut",
    "short",
    "drop",
    "slow",
    "bom",
    "huge",
    "huge_gzip",
    "redirect",
    "redirect_307",
}


def test_every_fault_has_a_test():
    """The tables above and the tests below name every fault."""
    assert set(FAULTS) == REPLIES.keys() | CODES.keys() | OTHERS


@pytest.mark.parametrize("name", REPLIES)
def test_faults_of_http(name):
    """Refusals and gateway errors have their status, headers and body."""
    status, headers, body = REPLIES[name]
    with Serving(faults=f"{name}=1") as client:
        assert client.raw(["A"]) == (status, body)
        assert headers == {key: client.answer.headers[key] for key in headers}


@pytest.mark.parametrize("name", CODES)
def test_faults_inside_http_200(name):
    """Refusals by code come with HTTP 200."""
    with Serving(faults=f"{name}=1") as client:
        assert client.ask("A") == CODES[name]
        assert client.answer.status == 200


def test_429_date_names_a_time_of_day():
    """Retry-After may be a date."""
    with Serving(faults="429_date=1") as client:
        assert client.raw(["A"])[0] == 429
        assert client.answer.headers["Retry-After"].endswith("GMT")


def test_cut_json_has_a_true_length():
    """A cut answer looks whole to HTTP and not to JSON."""
    with Serving(plain=True, faults="cut=1") as client:
        _, body = client.raw(["A"])
    assert body.startswith(b'{"Code":100')
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(body)


def test_short_closes_before_the_promised_length():
    """Fewer bytes come than Content-Length says."""
    with (
        Serving(faults="short=1") as client,
        pytest.raises(http.client.IncompleteRead),
    ):
        client.raw(["A"])


def test_drop_closes_without_an_answer():
    """The connection ends where an answer should be."""
    with (
        Serving(faults="drop=1") as client,
        pytest.raises(http.client.RemoteDisconnected),
    ):
        client.raw(["A"])


def test_slow_answers_late_and_well():
    """A slow answer is sound."""
    begun = time.monotonic()
    with Serving(plain=True, faults="slow=1", slow_seconds=0.2) as client:
        assert len(client.rows("A")) == 1
    assert time.monotonic() - begun >= 0.2


def test_bom_stands_before_a_sound_answer():
    """Behind the byte order mark all is well."""
    with Serving(plain=True, faults="bom=1") as client:
        _, body = client.raw(["A"])
    assert body.startswith(b"\xef\xbb\xbf{")
    assert json.loads(body.decode("utf-8-sig"))["Code"] == 100


@pytest.mark.parametrize("name", ["huge", "huge_gzip"])
def test_huge_is_above_16_mib(name):
    """A huge answer is announced as such, or unpacks to it."""
    with Serving(faults=f"{name}=1") as client:
        _, body = client.raw(["A"])
        packed = client.answer.headers["Content-Encoding"] == "gzip"
    assert (len(body) > 16 * 2**20) is not packed
    assert packed is (name == "huge_gzip")


@pytest.mark.parametrize(("name", "status"), [("redirect", 302), ("redirect_307", 307)])
def test_redirects_lead_to_another_host_that_tells(name, status):
    """Who follows a redirect is counted."""
    serving = Serving(faults=f"{name}=1")
    with serving as client:
        assert client.raw(["A"]) == (status, b"")
        target = client.answer.headers["Location"]
        assert target.startswith("http://localhost:")
        assert client.send("GET", "/elsewhere")[0] == 404
        assert serving.simulator.arrivals.stats()["redirects_followed"] == 1


def test_poison_breaks_every_request_that_holds_it():
    """Only requests with a poisonous RefId fail."""
    with Serving(plain=True, faults="poison=P,poison=Q=1") as client:
        assert [client.raw(ids)[0] for ids in (["A", "P"], ["Q=1"], ["A"])] == [
            500,
            500,
            200,
        ]


def test_the_key_is_refused_from_the_nth_request_on():
    """Requests before the N-th are answered."""
    with Serving(plain=True, faults="refuse_key_after=3") as client:
        codes = [code_of(client.ask("A")) for _ in range(4)]
    assert codes == ["100", "100", "101", "101"]


def test_faults_strike_by_seed_and_number():
    """The same requests of two simulators fail, at about the rate asked for."""

    def statuses(seed: int) -> list[int]:
        with Serving(plain=True, seed=seed, faults="500=0.2,503=0.3") as client:
            return [client.raw(["A"])[0] for _ in range(200)]

    counts = Counter(statuses(1))
    assert statuses(1) == statuses(1) != statuses(2)
    assert 20 <= counts[500] <= 60
    assert 40 <= counts[503] <= 80


def test_a_hook_breaks_one_request():
    """The hook sees number, OA and RefIds, and its fault goes first."""
    seen = []

    def hook(number: int, oa_id: str, ref_ids: Sequence[str]) -> str | None:
        seen.append((number, oa_id, list(ref_ids)))
        return "html" if number == 2 else None

    with Serving(plain=True, on_request=hook, faults="poison=B") as client:
        statuses = [client.raw(ids)[0] for ids in (["A"], ["B"], ["B"])]
    assert statuses == [200, 200, 500]
    assert seen == [(1, OA, ["A"]), (2, OA, ["B"]), (3, OA, ["B"])]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("fire=1", "'fire=1' is not a known fault"),
        ("500", "'500' needs a chance"),
        ("500=2", "'500=2' needs a chance"),
        ("500=nan", "'500=nan' needs a chance"),
        ("poison=", "'poison=' is not a known fault"),
        ("refuse_key_after=x", "'refuse_key_after=x' is not a known fault"),
        ("500=0.6,502=0.6", "add up to more than 1"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line_with_the_names(spec, text):
    """The message says what is wrong and lists what is known."""
    with pytest.raises(ValueError, match=text) as caught:
        Behaviour(faults=spec)
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in [*FAULTS, "poison", "refuse_key_after"])


@pytest.mark.parametrize(
    "settings", [{"latency": -1}, {"rate": -1}, {"refuse_with": "fire"}]
)
def test_a_behaviour_that_makes_no_sense_is_refused(settings):
    """The message begins with the setting's name."""
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}: "):
        Behaviour(**settings)


def test_the_key_is_not_in_the_representation():
    """A behaviour can be printed without telling its key."""
    key = "abc"
    assert key not in repr(Behaviour(api_key=key, secret_key=key))


def test_128_requests_are_under_way_at_once():
    """Latency is per request and counted from arrival."""
    simulator = Simulator(Behaviour(plain=True, rate=None, latency=1.5))
    with simulator:
        clients = [Client(simulator) for _ in range(128)]
        begun = time.monotonic()
        threads = [threading.Thread(target=one.raw, args=(IDS[:9],)) for one in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begun
        for client in clients:
            client.close()
    assert simulator.arrivals.stats()["most_in_flight"] == 128
    assert 1.5 <= seconds < 6


def test_stopping_is_quick_while_answers_are_due():
    """Requests under way are cut off and no longer counted as such."""
    simulator = Simulator(Behaviour(faults="slow=1", rate=None))
    simulator.start()
    client = Client(simulator)
    failures: list[Exception] = []

    def ask() -> None:
        try:
            client.raw(["A"])
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not simulator.arrivals.requests:
        time.sleep(0.01)
    begun = time.monotonic()
    simulator.stop()
    assert time.monotonic() - begun < 0.5
    thread.join()
    client.close()
    simulator.stop()
    assert len(failures) == 1


def test_a_client_that_hangs_up_gets_no_answer():
    """A request whose client is gone counts as asked, not as answered."""
    serving = Serving(plain=True, latency=0.1)
    with serving as client:
        client._connection.request(  # noqa: SLF001
            "POST", GET_CALLBACK_PATH, json.dumps({"ListRefid": ["A"], "OAId": OA})
        )
        while not serving.simulator.arrivals.stats()["ref_ids_asked"]:
            time.sleep(0.01)
        client.close()
        time.sleep(0.2)
        assert serving.simulator.arrivals.stats()["ref_ids_answered"] == 0


def test_heads_in_pieces_pipelines_and_close_are_understood():
    """Requests may come byte by byte or two at once; close is honoured."""
    simulator = Simulator(Behaviour(plain=True))
    with simulator, socket.create_connection(simulator._address) as raw:  # noqa: SLF001
        first = b"GET /arrivals HTTP/1.1\r\nHost: x\r\n\r\n"
        for byte in first[:-1]:
            raw.sendall(bytes([byte]))
        raw.sendall(first[-1:] + first.replace(b"Host: x", b"Connection: close"))
        with raw.makefile("rb") as answer:
            assert answer.read().count(b"HTTP/1.1 200 OK\r\n") == 2


def test_serve_answers_until_interrupted():
    """Ctrl-C ends the blocking server without a word."""
    script = (
        # A test run in the background passes on that SIGINT is ignored.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from esms_source.simulator import Behaviour, serve\n"
        "serve(Behaviour(), port=0, announce=lambda url: print(url, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().decode().strip()
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
        connection.request("GET", "/stats")
        assert connection.getresponse().status == 200
        connection.close()
        os.kill(process.pid, signal.SIGINT)
        try:
            assert process.wait(5) == 0
        finally:
            process.kill()
        assert process.stderr.read() == b""


def test_a_taken_port_is_an_os_error():
    """Starting fails at once and in the caller's thread."""
    with Simulator() as simulator:
        port = int(simulator.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            Simulator(port=port).start()
