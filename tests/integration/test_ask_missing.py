"""QueryZnsStatus settles what GetCallback has no row for: contract, section 8."""

from __future__ import annotations

import json
import signal
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from esms_source import esms_source
from esms_source.simulator.rest import QUERY
from tests.conftest import ref_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow

DELIVERED = {
    "SendStatus": 5,
    "SendSuccess": 1,
    "SendFailed": 0,
    "TotalReceiver": 1,
    "TotalSent": 1,
    "TotalPrice": 330.0,
    "ErrorInfo": "0",
    "FinalStatus": "1",
    "ZaloMsgId": "zalo-1",
}
OFFLINE = DELIVERED | {"SendSuccess": 0, "SendFailed": 1, "ErrorInfo": "1001"}
ONLINE = "Not delivered: the user was not online in time"
OPEN = DELIVERED | {"SendStatus": 2, "SendSuccess": 0, "FinalStatus": 0}


@pytest.fixture
def ask(
    esms: Esms, world: Callable[..., Simulator]
) -> Callable[[int, dict[int, Any]], Simulator]:
    """Let GetCallback have no row of some messages, and QueryZnsStatus have these."""

    def one(count: int, queried: dict[int, Any], **behaviour: Any) -> Simulator:
        simulator = world(
            count,
            scripted={ref_id(number): [] for number in queried},
            queried={ref_id(number): found for number, found in queried.items()},
            **{"query_rate": None} | behaviour,
        )
        esms.set(
            rest_base_url=simulator.url,
            ask_missing=True,
            repoll_after=0,
            query_requests_per_second=2_000,
        )
        return simulator

    return one


def asked_for(simulator: Simulator) -> dict[tuple[str, str], int]:
    """Return how often each type and number was asked."""
    return dict(simulator.others[QUERY].asks)


def test_what_getcallback_does_not_have_is_settled(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """Its row stands beside the others, and the sums stay GetCallback's."""
    simulator = ask(10, {0: DELIVERED, 1: OFFLINE, 2: OPEN, 3: None})
    ended = esms()
    assert ended.status == 0, ended.err
    report = ended.report
    assert (report["asked"], report["answered"], report["missing"]) == (10, 6, 4)
    assert (report["queried"], report["found"]) == (4, 3)
    states = "SELECT ref_id, state, attempts FROM ref_ids"
    assert {ref: (state, n) for ref, state, n in output.rows(states)} == {
        ref_id(number): (
            {2: "pending", 3: "missing"}.get(number, "final"),
            1,
        )
        for number in range(10)
    }
    columns = "ref_id, delivery, send_status, total_price, error_code, partner_ids"
    found = {
        row[0]: row[1:]
        for row in output.rows(
            f"SELECT {columns} FROM callbacks WHERE answered_by = 'query'"
        )
    }
    assert found == {
        ref_id(0): ("delivered", 5, 330, 0, "zalo-1"),
        ref_id(1): ("failed", 5, 330, 1001, "zalo-1"),
        ref_id(2): ("pending", 2, 330, 0, "zalo-1"),
    }
    sums = "sum(asked), sum(answered), sum(missing), sum(failed), sum(attempts)"
    assert output.rows(
        f"SELECT endpoint, {sums}, count(*) FROM api_requests GROUP BY 1 ORDER BY 1"
    ) == [("callback", 10, 6, 4, 0, 1, 1), ("query", 4, 3, 1, 0, 5, 1)]
    assert output.rows("SELECT asked, answered, missing FROM run_history") == [
        (10, 6, 4)
    ]
    assert asked_for(simulator) == {
        ("25", ref_id(0)): 1,
        ("25", ref_id(1)): 1,
        ("25", ref_id(2)): 1,
        ("25", ref_id(3)): 1,
        ("24", ref_id(3)): 1,
    }
    meaning = "SELECT error_meaning_en FROM messages WHERE error_code = 1001"
    assert output.rows(meaning) == [ONLINE]


def test_the_type_comes_from_its_column(
    esms: Esms, ask: Callable[..., Simulator], warehouse: Warehouse, output: Output
) -> None:
    """Where it names none that is known, both are tried."""
    by_type = lambda _, kind: DELIVERED if kind == "24" else None  # noqa: E731
    simulator = ask(3, {0: by_type, 1: by_type, 2: by_type})
    warehouse.execute(
        "ALTER TABLE sent ADD COLUMN kind INTEGER",
        f"UPDATE sent SET kind = CASE ref_id WHEN '{ref_id(0)}' THEN 24"
        f" WHEN '{ref_id(1)}' THEN 25 END",
    )
    esms.set(ref_ids__type_id_column="kind")
    assert esms().report["found"] == 2
    assert asked_for(simulator) == {
        ("24", ref_id(0)): 1,
        ("25", ref_id(1)): 1,
        ("25", ref_id(2)): 1,
        ("24", ref_id(2)): 1,
    }
    rows = output.rows("SELECT kind, state FROM ref_ids ORDER BY kind")
    assert rows == [(24, "final"), (25, "missing"), (None, "final")]


def test_nothing_is_asked_before_its_time(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """What was missing for twice repoll_after is; plan and check say how many."""
    simulator = ask(4, {0: DELIVERED, 1: None})
    esms.set(repoll_after=100)
    assert esms().report["queried"] == 0
    assert simulator.others[QUERY].requests == 0
    for seconds, queries in ((150, 0), (250, 2)):
        output.execute(
            "UPDATE ref_ids SET next_poll_at = now(), first_polled_at ="
            f" now() - INTERVAL {seconds} SECOND WHERE state = 'missing'"
        )
        planned = json.loads(esms("plan", "--json").out)
        assert (planned["requests"], planned["queries"]) == (1, queries)
    assert "2 RefIds are asked of QueryZnsStatus" in esms("check").out
    assert esms().report["queried"] == 2


def test_what_was_pending_becomes_final_when_it_is_asked_again(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """GetCallback is asked first each time, and still has no row."""
    answers = iter([OPEN, DELIVERED])
    ask(1, {0: lambda *_: next(answers)})
    assert esms().report["found"] == 1
    assert output.rows("SELECT state FROM ref_ids") == ["pending"]
    assert esms().report["found"] == 1
    assert output.rows("SELECT state, attempts FROM ref_ids") == [("final", 2)]
    assert output.rows("SELECT delivery FROM callbacks") == ["delivered"]


@pytest.mark.parametrize("code", ["101", "140", "143"])
def test_a_refusal_ends_only_this_asking(
    code: str, esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """With a warning; what wasn't asked stays missing and is due later."""
    refusal = json.dumps({"CodeResult": code, "ErrorMessage": "no"}).encode()
    simulator = ask(30, dict.fromkeys(range(20), refusal))
    esms.set(query_requests_per_second=1, max_in_flight=1)
    ended = esms()
    assert ended.status == 0
    assert "QueryZnsStatus isn't asked any more" in ended.err
    assert f"Code {code}" in ended.err
    assert simulator.others[QUERY].requests == 1
    assert output.rows(
        "SELECT state, count(*), count(next_poll_at) FROM ref_ids GROUP BY 1 ORDER BY 1"
    ) == [("final", 10, 0), ("missing", 20, 20)]
    assert ended.report["warnings"]


@pytest.mark.parametrize("fault", ["500", "html", "drop", "code99", "code160"])
def test_what_has_no_usable_answer_stays_missing(
    fault: str, hasty: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """The main job goes on, and so do the other queries."""
    ask(10, {0: DELIVERED, 1: DELIVERED, 2: DELIVERED}, rest_faults=f"{fault}=0.4")
    hasty.set(max_attempts=20)
    ended = hasty()
    assert (ended.status, ended.report["found"]) == (0, 3), ended.err
    hasty.set(max_attempts=1, rest_base_url="http://127.0.0.1:9")
    again = hasty("run", "--json", "--repoll", "final")
    assert (again.status, again.report["answered"]) == (0, 7)
    assert output.rows("SELECT DISTINCT state FROM ref_ids") == ["final"]


def test_a_signal_ends_the_queries_in_order(
    esms: Esms,
    ask: Callable[..., Simulator],
    output: Output,
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    """What GetCallback said is loaded, and what was not asked yet stays missing."""
    simulator = ask(60, dict.fromkeys(range(50), DELIVERED), latency=0.05)
    esms.set(max_in_flight=1)
    running = esms.start()
    wait_until(lambda: simulator.others[QUERY].requests >= 5)
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert ended.status == 1
    assert "stopped by SIGTERM" in ended.err
    states = dict(output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1"))
    assert states["missing"] >= 40
    assert states["missing"] + states["final"] == 60
    assert esms().report["found"] == states["missing"]
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM callbacks") == [
        (60, 60)
    ]


@pytest.mark.parametrize("code", ["851", "854"])
def test_nothing_under_that_id_leaves_it_missing(
    code: str, esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """Under either type."""
    unknown = json.dumps({"CodeResult": code, "ErrorMessage": "?", "Data": None})
    simulator = ask(2, {0: unknown.encode()})
    ended = esms()
    assert (ended.status, ended.report["warnings"]) == (0, [])
    assert len(asked_for(simulator)) == 2
    assert output.rows("SELECT count(*) FROM ref_ids WHERE state = 'missing'") == [1]


def test_a_message_whose_oa_is_refused_costs_no_other_one(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """QueryZnsStatus is asked for a message; what it refuses is said, and stays."""
    refusal = json.dumps({"CodeResult": "204", "ErrorMessage": "?"}).encode()
    ask(12, {0: refusal} | dict.fromkeys(range(1, 9), DELIVERED))
    esms.set(max_in_flight=1)
    ended = esms()
    assert (ended.status, ended.report["found"]) == (0, 8)
    assert "QueryZnsStatus has no usable answer" in ended.err
    missing = "SELECT ref_id FROM ref_ids WHERE state = 'missing'"
    assert output.rows(missing) == [ref_id(0)]


def test_a_shared_budget_is_one_of_its_own(
    esms: Esms, ask: Callable[..., Simulator], tmp_path: Path
) -> None:
    """Ten queries a second beside twenty requests, by all who use the store."""
    simulator = ask(40, dict.fromkeys(range(25), DELIVERED))
    esms.set(rate_limit_store=f"sqlite:///{tmp_path / 'budget.sqlite'}")
    esms.set(query_requests_per_second=10, requests_per_second=20)
    assert esms().report["found"] == 25
    assert simulator.others[QUERY].most_in_one_second <= 10


def test_a_row_that_the_destination_refuses_costs_itself(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """As of GetCallback's: it is rejected, its RefId failed, all else is loaded."""
    ask(20, dict.fromkeys(range(4), DELIVERED))
    assert esms("run", "--max-ref-ids", "0").status == 0
    columns = "partner_ids VARCHAR CHECK (partner_ids <> 'odd')"
    output.execute("ALTER TABLE callbacks RENAME TO earlier")
    made = output.rows("SELECT sql FROM duckdb_tables() WHERE table_name = 'earlier'")[
        0
    ]
    made = made.replace("zalo.earlier", "zalo.callbacks")
    output.execute(made.replace("partner_ids VARCHAR", columns), "DROP TABLE earlier")
    ask(20, {0: DELIVERED | {"ZaloMsgId": "odd"}, 1: DELIVERED, 2: OPEN, 3: None})
    ended = esms()
    assert (ended.status, ended.report["found"]) == (1, 2), ended.err
    assert "the destination refuses" in ended.err
    assert output.rows("SELECT count(*) FROM callbacks") == [18]
    failed = "SELECT ref_id FROM ref_ids WHERE state = 'failed'"
    assert output.rows(failed) == [ref_id(0)]
    assert output.rows(
        "SELECT asked, answered, missing, failed FROM api_requests"
        " WHERE endpoint = 'query'"
    ) == [(4, 2, 1, 1)]


def test_check_only_warns_where_it_is_refused(
    esms: Esms, ask: Callable[..., Simulator]
) -> None:
    """A run goes on without it."""
    ask(2, {0: DELIVERED}, rest_faults="refuse_key=1")
    checked = esms("check")
    assert checked.status == 0, checked.out
    assert "warn  missing RefIds" in checked.out


def test_odd_answers_cost_themselves(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """Another's row is rejected; what no column takes is kept; nothing stops."""
    stranger = DELIVERED | {"SMSID": "stranger"}
    listed = json.dumps(
        {"CodeResult": "100", "Data": [DELIVERED | {"SMSID": ref_id(3)}]}
    ).encode()
    ask(
        10,
        {
            0: stranger,
            1: DELIVERED | {"TotalPrice": "n/a", "Note": "\ud83d"},
            2: b'{"CodeResult":"100","Data":null}',
            3: listed,
            4: stranger,
        },
    )
    ended = esms()
    assert ended.status == 0, ended.err
    assert (ended.report["found"], ended.report["rejected"]) == (2, 2)
    assert output.rows("SELECT reason, row_no FROM rejected_rows ORDER BY 2") == [
        ("SMSID not asked for", 1),
        ("SMSID not asked for", 2),
    ]
    extra = output.rows(f"SELECT extra FROM callbacks WHERE ref_id = '{ref_id(1)}'")
    kept = json.loads(extra[0])
    assert kept["TotalPrice"] == "n/a"
    assert "d83d" in kept["Note"]


def test_expired_ones_are_asked_where_repoll_names_them(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """And become final."""
    ask(2, {0: DELIVERED})
    esms.set(ask_missing=False)
    assert esms().status == 0
    output.execute("UPDATE ref_ids SET state = 'expired' WHERE state = 'missing'")
    esms.set(ask_missing=True)
    assert esms().report["queried"] == 0
    assert esms("run", "--json", "--repoll", "expired").report["found"] == 1
    assert output.rows("SELECT DISTINCT state FROM ref_ids") == ["final"]


def test_a_kill_doubles_nothing(
    esms: Esms, ask: Callable[..., Simulator], output: Output
) -> None:
    """While asking and while loading."""
    ask(400, dict.fromkeys(range(250), DELIVERED))
    esms.set(max_in_flight=1)
    for point in (("asking", 3), ("after a copy", 2), ("between two tables", 2)):
        esms.killed_at(*point)
    assert esms().report["found"] == 250
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM callbacks") == [
        (400, 400)
    ]
    assert output.rows("SELECT DISTINCT state FROM ref_ids") == ["final"]
    assert output.rows(
        "SELECT sum(asked) FROM api_requests GROUP BY endpoint ORDER BY endpoint"
    ) == [400, 250]


def test_plain_dlt_does_the_same(
    ask: Callable[..., Simulator], output: Output, api_key: str, secret_key: str
) -> None:
    """In one load."""
    simulator = ask(10, {0: DELIVERED, 1: OPEN})
    source = esms_source(
        api_key=api_key,
        secret_key=secret_key,
        base_url=simulator.url,
        rest_base_url=simulator.url,
        ask_missing=True,
        repoll_after=0,
    )
    output.pipeline().run(source)
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1 ORDER BY 1") == [
        ("final", 9),
        ("pending", 1),
    ]


def test_nothing_is_asked_where_no_address_is_known(
    esms: Esms, ask: Callable[..., Simulator]
) -> None:
    """Whoever asks GetCallback elsewhere has the key sent nowhere unawares."""
    simulator = ask(2, {0: DELIVERED})
    del esms.env["SOURCES__ESMS__REST_BASE_URL"]
    ended = esms()
    assert (ended.status, ended.report["queried"]) == (0, 0)
    assert "set rest_base_url" in ended.err
    assert simulator.others[QUERY].requests == 0


def test_the_rate_is_its_own_and_used(
    esms: Esms, ask: Callable[..., Simulator]
) -> None:
    """A hundred a second at the server, and never one more; two per missing one."""
    simulator = ask(150, dict.fromkeys(range(150)), query_rate=100, latency=0.2)
    esms.set(query_requests_per_second=100, max_in_flight=64)
    assert esms().report["queries"] == 300
    seen = simulator.others[QUERY]
    assert (seen.requests, seen.refusals) == (300, 0)
    assert seen.most_in_one_second <= 100
    # The median leaves out where the machine let nobody work.
    times = seen.times
    gaps = [b - a for a, b in zip(times, times[100:], strict=False)]
    assert 100 / median(gaps) > 96
