from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esms_source.ledger import WORK, advance, due_condition
from esms_source.sql import moment_literal, text_list
from esms_source.tables import REF_IDS, SETTLED, STATES, TIMESTAMP, without_load_id

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)


@pytest.fixture
def move(make_settings):
    """Let one ledger row meet one outcome."""

    def one(outcome, *, state=None, attempts=None, first=None, at=NOW, **more):
        retry_immediately = more.pop("retry_immediately", False)
        error, alone = more.pop("error", None), more.pop("alone", True)
        known = {
            name: more.pop(name, None)
            for name in ("first_answered_at", "failed_since", "final_at")
        }
        row = {
            "oa_id": "oa",
            "ref_id": "a",
            "sent_at": NOW - DAY,
            "state": state,
            "attempts": attempts,
            "first_polled_at": first,
            "chosen": False,
            **known,
        }
        table = advance(
            pa.Table.from_pylist([row], schema=WORK),
            pa.array([outcome]),
            pa.array([error], pa.string()),
            pa.array([at], TIMESTAMP),
            pa.array([retry_immediately]),
            pa.array([alone]),
            make_settings(**more),
        )
        assert table.schema == without_load_id(REF_IDS)
        return table.to_pylist()[0]

    return one


@pytest.mark.parametrize("outcome", ["final", "pending", "missing", "failed"])
@pytest.mark.parametrize("state", [None, "pending", "missing", "failed", "expired"])
def test_before_give_up_the_answer_decides(state, outcome, move):
    """Every state moves to what the answer says: section 5."""
    assert move(outcome, state=state, attempts=1, first=NOW - DAY)["state"] == outcome


@pytest.mark.parametrize("outcome", ["pending", "missing"])
@pytest.mark.parametrize("state", ["pending", "missing", "failed", "expired"])
def test_pending_and_missing_expire(state, outcome, move):
    """What was open when give_up_after had passed since its first answer."""
    row = move(outcome, state=state, attempts=9, first_answered_at=NOW - 3 * DAY)
    assert row["state"] == "expired"
    assert row["next_poll_at"] is None


@pytest.mark.parametrize("state", ["pending", "missing", "expired"])
def test_a_ledger_of_0_1_expires_from_the_first_poll(state, move):
    """It knew no first answer: section 5."""
    row = move("missing", state=state, attempts=9, first=NOW - 3 * DAY)
    assert row["state"] == "expired"


@pytest.mark.parametrize("outcome", ["pending", "missing"])
def test_what_long_failed_does_not_expire_at_its_first_answer(outcome, move):
    """A refused OA or an outage costs no RefId its days of asking."""
    row = move(outcome, state="failed", attempts=90, first=NOW - 30 * DAY)
    assert row["state"] == outcome
    assert row["first_answered_at"] == NOW


def test_one_microsecond_earlier_it_does_not_expire(move):
    """The limit is exact."""
    first = NOW - 3 * DAY + timedelta(microseconds=1)
    assert (
        move("missing", state="missing", attempts=9, first=first)["state"] == "missing"
    )


@pytest.mark.parametrize("state", [None, "pending", "missing", "failed", "expired"])
def test_what_fails_with_others_never_expires(state, move):
    """A refused OA or an outage is no statement on the message."""
    row = move(
        "failed",
        state=state,
        attempts=500,
        first=NOW - 900 * DAY,
        error="x",
        alone=False,
        failed_since=NOW - 900 * DAY,
    )
    assert row["state"] == "failed"
    assert row["next_poll_at"] == NOW + timedelta(seconds=21_600)
    assert row["last_error"] == "x"


def test_what_fails_alone_expires(move):
    """From its first failure alone: section 3."""
    first = move("failed", error="x")
    assert (first["state"], first["failed_since"]) == ("failed", NOW)
    since = {"state": "failed", "failed_since": NOW - 3 * DAY}
    assert move("failed", error="x", **since)["state"] == "expired"
    assert move("missing", **since)["failed_since"] is None


def test_final_at_is_never_moved(move):
    """It tells when the row first became final: section 5."""
    assert move("final")["final_at"] == NOW
    assert move("missing")["final_at"] is None
    again = move("final", state="final", final_at=NOW - DAY)
    assert again["final_at"] == NOW - DAY
    assert move("final", state="final")["final_at"] is None


def test_the_first_answer_is_remembered(move):
    """Rows or none; a failure is no answer."""
    assert move("failed")["first_answered_at"] is None
    assert move("missing")["first_answered_at"] == NOW
    again = move("final", first_answered_at=NOW - DAY)
    assert again["first_answered_at"] == NOW - DAY


@pytest.mark.parametrize("outcome", ["final", "pending", "missing", "failed"])
def test_final_stays_final(outcome, move):
    """A final answer is never replaced by one that is not."""
    row = move(outcome, state="final", attempts=1, first=NOW - 9 * DAY)
    assert row["state"] == "final"
    assert row["next_poll_at"] is None


def test_give_up_after_zero_asks_once(move):
    """With give_up_after = 0 nothing is asked twice but what failed with others."""
    assert move("missing", give_up_after=0)["state"] == "expired"
    assert move("failed", give_up_after=0)["state"] == "expired"
    assert move("failed", give_up_after=0, alone=False)["state"] == "failed"


def test_the_first_poll_is_remembered(move):
    """first_polled_at is set once, last_polled_at each time."""
    first = move("pending")
    assert first["first_polled_at"] == first["last_polled_at"] == NOW
    assert first["attempts"] == 1
    again = move("pending", state="pending", attempts=4, first=NOW - DAY)
    assert again["first_polled_at"] == NOW - DAY
    assert again["last_polled_at"] == NOW
    assert again["attempts"] == 5


@pytest.mark.parametrize(
    ("attempts", "wait"), [(None, 300), (1, 600), (2, 1_200), (6, 19_200), (7, 21_600)]
)
def test_waits_double_up_to_the_longest(attempts, wait, move):
    """min(repoll_after x backoff^(attempts-1), repoll_max): section 3."""
    row = move("pending", state="pending", attempts=attempts, first=NOW)
    assert row["next_poll_at"] - NOW == timedelta(seconds=wait)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    attempts=st.integers(0, 10**9),
    after=st.just(0.0) | st.floats(1e-6, 1e6),  # below, the wait is no time at all
    backoff=st.floats(1, 10),
    longest=st.floats(0, 1e7),
)
def test_the_wait_is_the_formula_for_any_settings(
    attempts, after, backoff, longest, move
):
    """No number of attempts overflows it."""
    row = move(
        "missing",
        state="missing",
        attempts=attempts,
        first=NOW,
        repoll_after=after,
        repoll_backoff=backoff,
        repoll_max=longest,
    )
    logarithm = math.log(after) + attempts * math.log(backoff) if after else -math.inf
    wait = min(math.exp(min(logarithm, 700)), longest)
    assert (row["next_poll_at"] - NOW).total_seconds() == pytest.approx(wait, abs=1e-5)


def test_what_was_not_its_fault_is_due_at_once(move):
    """RefIds that a stopped run failed need not wait."""
    assert move("failed", retry_immediately=True)["next_poll_at"] == NOW


def test_carried_columns_are_carried(make_settings):
    """Further columns stay as planning handed them out, types included."""
    schema = pa.schema(
        [*WORK, pa.field("campaign", pa.string()), pa.field("n", pa.int8())]
    )
    row = {"oa_id": "o", "ref_id": "r", "campaign": "Tết", "n": 3, "chosen": True}
    table = advance(
        pa.Table.from_pylist([row, row | {"campaign": None}], schema=schema),
        pa.array(["final", "final"]),
        pa.nulls(2, pa.string()),
        pa.array([NOW, NOW], TIMESTAMP),
        pa.array([False, False]),
        pa.array([False, False]),
        make_settings(),
    )
    assert table.column_names[-2:] == ["campaign", "n"]
    assert table["campaign"].to_pylist() == ["Tết", None]
    assert table.schema.field("n").type == pa.int8()
    assert table["chosen"].to_pylist() == [True, True]


def test_every_row_has_its_own_outcome(make_settings):
    """Rows of several requests move on side by side."""
    rows = [{"oa_id": "o", "ref_id": str(n)} for n in range(4)]
    outcomes = ["final", "pending", "missing", "failed"]
    table = advance(
        pa.Table.from_pylist(rows, schema=WORK),
        pa.array(outcomes),
        pa.array([None, None, None, "why"]),
        pa.array([NOW] * 4, TIMESTAMP),
        pa.array([False] * 4),
        pa.array([False] * 4),
        make_settings(),
    )
    assert table["state"].to_pylist() == outcomes
    assert table["last_error"].to_pylist() == [None, None, None, "why"]
    assert [at is None for at in table["next_poll_at"].to_pylist()] == [
        True,
        False,
        False,
        False,
    ]


@pytest.fixture
def is_due():
    """Tell whether a row of a ledger in DuckDB is due."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'America/New_York'")

    def due(state, next_poll_at, load_id="done"):
        sql = due_condition(NOW, 21_600, ["aborted", "it's lost"])
        row = connection.execute(
            f"SELECT {sql} FROM (SELECT ? AS state, ?::TIMESTAMPTZ AS next_poll_at,"
            " ? AS load_id)",
            [state, next_poll_at, load_id],
        ).fetchone()
        assert row
        return row[0]

    yield due
    connection.close()


@pytest.mark.parametrize("state", [state for state in STATES if state not in SETTLED])
def test_what_is_not_settled_is_due_when_its_time_has_come(state, is_due):
    """Due is what is not settled and whose next_poll_at is past: section 1."""
    assert is_due(state, NOW)
    assert is_due(state, NOW - DAY)
    assert not is_due(state, NOW + timedelta(seconds=1))
    assert is_due(state, None)


@pytest.mark.parametrize("state", SETTLED)
def test_what_is_settled_is_never_due(state, is_due):
    """Never asked again by itself."""
    assert not is_due(state, None)
    assert not is_due(state, NOW - DAY)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("load_id", ["it's lost", "aborted"])
def test_what_a_load_never_completed_is_due(state, load_id, is_due):
    """Its callbacks may be lost, whatever the ledger says."""
    assert is_due(state, NOW + timedelta(seconds=1), load_id)


def test_a_time_too_far_ahead_is_due(is_due):
    """A clock that was wrong does not hide a RefId for years."""
    assert is_due("pending", NOW + timedelta(days=365))
    assert not is_due("pending", NOW + timedelta(seconds=21_000))


@given(st.lists(st.text(min_size=1).filter(lambda text: "\0" not in text), min_size=1))
@settings(max_examples=40, deadline=None)
def test_texts_survive_sql(texts):
    """Quotes in an OA or a state can't end the list."""
    with duckdb.connect() as connection:
        row = connection.execute(f"SELECT [{text_list(texts)}]").fetchone()
    assert row
    assert row[0] == texts


def test_times_survive_sql():
    """A UTC time stays that moment in any session."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Ho_Chi_Minh'")
        row = connection.execute(f"SELECT {moment_literal(NOW)} = ?", [NOW]).fetchone()
    assert row == (True,)
