"""What eSMS says was sent, beside the warehouse and the callbacks."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.simulator import sample_row
from esms_source.simulator.rest import GET_SENT, sent_row
from tests.conftest import ref_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow


NOW = datetime.now(timezone.utc).replace(microsecond=0)
PHONE = "0909090909"


@pytest.fixture
def listed(
    esms: Esms, world: Callable[..., Simulator], warehouse: Warehouse
) -> Callable[..., Simulator]:
    """Let eSMS list some messages beside those of the warehouse, sent two hours ago."""

    def one(
        count: int, sent: list[dict[str, Any]], failed: int = 0, **behaviour: Any
    ) -> Simulator:
        bad = {"SendSuccess": 0, "SendFailed": 1, "TotalPrice": 0.0}
        simulator = world(
            count,
            sent=sent,
            scripted={ref_id(n): [sample_row(ref_id(n), **bad)] for n in range(failed)},
            **behaviour,
        )
        warehouse.execute(f"UPDATE sent SET sent_at = '{NOW - timedelta(hours=2)}'")
        esms.set(rest_base_url=simulator.url, sent_messages=True)
        return simulator

    return one


def zns(number: int, **fields: object) -> dict[str, Any]:
    """Return eSMS's row of a message of the warehouse."""
    return sent_row(ref_id(number), NOW - timedelta(hours=2), **fields)


def read_again(esms: Esms, output: Output) -> None:
    """Run as if an hour had passed."""
    output.execute("UPDATE sent_messages SET read_at = read_at - INTERVAL 2 HOUR")
    assert esms().status == 0


def test_the_list_is_loaded_and_compared(
    esms: Esms, listed: Callable[..., Simulator], output: Output
) -> None:
    """Each difference once, by its kind; the content of messages is nowhere."""
    stranger = sent_row("stranger", NOW - timedelta(hours=3), Phone="0911")
    sms = sent_row(
        "sms", NOW - timedelta(hours=1, minutes=30), SmsType=2, Phone=f"84{PHONE[1:]}"
    )
    late = sent_row("late", NOW - timedelta(minutes=5), SmsType=2)
    newest = sent_row("newest", NOW, Phone="1")
    known = [zns(0, SellPrice=0), zns(1, SellPrice=999.5), zns(2)]
    listed(4, [*known, stranger, sms, late, newest], failed=1)
    ended = esms()
    assert ended.status == 0, ended.err
    assert output.rows(
        "SELECT count(*), count(DISTINCT ref_id) FROM sent_messages"
    ) == [(7, 7)]
    prices = "SELECT total_price FROM callbacks WHERE ref_id = "
    found = output.rows(
        "SELECT difference, ref_id, sms_ref_id FROM reconciliation"
        " WHERE difference <> 'price differs' ORDER BY ALL"
    )
    assert found == [
        ("not at eSMS", ref_id(3), None),
        ("not in the warehouse", "newest", None),
        ("not in the warehouse", "stranger", None),
        ("sms after failed zns", ref_id(0), "sms"),
    ]
    differing = output.rows(
        "SELECT ref_id, esms_price FROM reconciliation"
        " WHERE difference = 'price differs'"
    )
    assert (ref_id(1), 999.5) in differing
    assert output.rows(f"{prices}'{ref_id(1)}'") != [999.5]
    assert "Content" not in json.dumps(output.rows("SELECT extra FROM sent_messages"))


def test_the_list_is_read_by_pages_and_days(
    esms: Esms, listed: Callable[..., Simulator], output: Output
) -> None:
    """More than a page, over days; a later run reads the last day again, hourly."""
    sent = [
        sent_row(f"r{n}", NOW - timedelta(hours=2) + timedelta(milliseconds=n))
        for n in range(1_100)
    ]
    simulator = listed(3, sent)
    assert esms().status == 0
    assert output.rows("SELECT count(*) FROM sent_messages") == [1_100]
    asked = simulator.others[GET_SENT].requests
    assert asked >= 3 + 2
    assert esms().status == 0
    assert simulator.others[GET_SENT].requests == asked
    read_again(esms, output)
    assert simulator.others[GET_SENT].requests > asked
    assert output.rows("SELECT count(*) FROM sent_messages") == [1_100]


def test_a_result_that_is_not_known_is_read_again(
    esms: Esms, listed: Callable[..., Simulator], output: Output
) -> None:
    """Losing the place costs reading the list again, and nothing else."""
    row = zns(0, SendResult=2)
    listed(1, [row])
    assert esms().status == 0
    row["SendResult"] = 1
    read_again(esms, output)
    assert output.rows("SELECT send_result FROM sent_messages") == [1]
    output.execute("DELETE FROM sent_messages")
    assert esms().status == 0
    assert output.rows("SELECT count(*) FROM sent_messages") == [1]


def test_odd_rows_are_kept_or_counted(
    esms: Esms, listed: Callable[..., Simulator], output: Output
) -> None:
    """What no column takes stands in extra; a row without RefId is said."""
    odd = zns(0, SellPrice="n/a", SmsId="x", Campaign="\ud83d", Sandbox={"a": 1})
    listed(1, [odd, zns(1, ReferenceId=None), zns(2, ReferenceId=7)])
    ended = esms()
    assert ended.status == 0
    assert "1 sent messages that eSMS lists have no ReferenceId" in ended.err
    extra = output.rows(f"SELECT extra FROM sent_messages WHERE ref_id = '{ref_id(0)}'")
    assert json.loads(extra[0]) == {
        "SellPrice": "n/a",
        "SmsId": "x",
        "Sandbox": {"a": 1},
    }


def test_phones_are_hidden_as_everywhere(
    esms: Esms, listed: Callable[..., Simulator], output: Output
) -> None:
    """Dropped where the settings say so."""
    listed(1, [zns(0)])
    assert esms(phone_number="drop").status == 0
    assert output.rows("SELECT count(phone_number) FROM sent_messages") == [0]


@pytest.mark.parametrize("fault", ["500", "cut", "sample", "refuse_key", "429"])
def test_a_failure_is_a_warning(
    fault: str, esms: Esms, listed: Callable[..., Simulator], output: Output
) -> None:
    """All else is loaded."""
    listed(3, [zns(0)], rest_faults=f"{fault}=1")
    ended = esms()
    assert ended.status == 0
    assert "what eSMS says was sent isn't known" in ended.err
    assert output.rows("SELECT count(*) FROM callbacks") == [3]
    assert not output.rows("SELECT * FROM reconciliation")
