from __future__ import annotations

from datetime import datetime, timezone

import pyarrow as pa
import pytest

from esms_source.api.lenient_reader import read_odd
from esms_source.api.request import Request
from esms_source.config import resolve_settings
from esms_source.exceptions import OaRefusedError, TransportError
from esms_source.ledger import WORK
from esms_source.privacy import Privacy
from esms_source.rows.recorder import Recorder
from esms_source.runtime import Counts
from esms_source.simulator import sample_row
from esms_source.tables import POLLED

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


def request(*ref_ids, state=None, **more):
    rows = [{"oa_id": "oa", "ref_id": ref_id, "state": state} for ref_id in ref_ids]
    work = pa.Table.from_pylist(rows, schema=WORK)
    return Request("oa", work, started_at=NOW, polled_at=NOW, **more)


def answered(*ref_ids, rows=(), state=None, **more):
    privacy = Privacy(resolve_settings())
    answer = {"http_status": 200, "code": 100, "message": "Success", "decoding": 0.1}
    made = request(*ref_ids, state=state, attempts=1, **(answer | more))
    read_odd(made, list(rows), privacy)
    return made


def failed(*ref_ids, error=None, outcome="failed", **more):
    error = error or TransportError("HTTP 500", http_status=500)
    return request(*ref_ids, attempts=5, error=error, outcome=outcome, **more)


@pytest.fixture
def record(make_settings):
    """Record groups of requests; return the rows by table of each, and the counts."""

    def one(*groups):
        counts = Counts()
        recorder = Recorder(make_settings(), "load-1", counts)
        polled = [recorder.record(group) for group in groups]
        for tables in polled:
            assert set(tables) == {table.name for table in POLLED}
            for table in POLLED:
                assert tables[table.name].schema.names[: len(table.schema)]
                assert set(tables[table.name]["load_id"].to_pylist()) <= {"load-1"}
        return polled, counts

    return one


def test_no_requests_make_empty_tables(record):
    """All four, in their schema."""
    (tables,), counts = record([])
    assert all(len(table) == 0 for table in tables.values())
    for table in POLLED:
        assert tables[table.name].schema == table.schema
    assert counts.requests == 0


def test_each_ref_id_moves_on_as_its_answer_says(record):
    """Final, pending and missing out of one answer."""
    rows = [sample_row("a"), sample_row("b", SendStatus=2)]
    (tables,), _ = record([answered("a", "b", "c", rows=rows)])
    ledger = tables["ref_ids"].to_pylist()
    assert [row["state"] for row in ledger] == ["final", "pending", "missing"]
    assert [row["last_error"] for row in ledger] == [None] * 3


def test_asked_is_answered_and_missing_and_failed(record):
    """Always: section 5."""
    rows = [sample_row("a"), sample_row("a"), sample_row("x"), None]
    (tables,), counts = record([answered("a", "b", rows=rows), failed("c", "d", "e")])
    first, second = tables["api_requests"].to_pylist()
    names = ("asked", "answered", "missing", "failed", "rows", "rejected")
    assert [first[name] for name in names] == [2, 1, 1, 0, 4, 2]
    assert [second[name] for name in names] == [3, 0, 0, 3, 0, 0]
    assert [getattr(counts, name) for name in names] == [5, 1, 1, 3, 4, 2]
    assert (counts.requests, counts.attempts) == (2, 6)


def test_requests_are_numbered_through_a_load(record):
    """Over all of its groups; rejected rows point to them."""
    polled, _ = record(
        [answered("a"), answered("b")], [answered("c", rows=[None]), failed("d")]
    )
    numbers = [
        number
        for tables in polled
        for number in tables["api_requests"]["request_no"].to_pylist()
    ]
    assert numbers == [1, 2, 3, 4]
    assert polled[1]["rejected_rows"]["request_no"].to_pylist() == [3]


def test_a_split_request_is_in_the_table_and_in_no_sum(record):
    """Its RefIds are in the ledger once, by way of its parts."""
    group = [failed("a", "b", outcome="split"), answered("a"), failed("b")]
    (tables,), counts = record(group)
    assert tables["api_requests"]["outcome"].to_pylist() == [
        "split",
        "answered",
        "failed",
    ]
    assert tables["ref_ids"]["ref_id"].to_pylist() == ["a", "b"]
    assert (counts.asked, counts.missing, counts.failed) == (2, 1, 1)
    assert (counts.requests, counts.attempts) == (3, 11)


def test_why_a_request_failed_is_told(record):
    """In the ledger and in the table of requests."""
    error = OaRefusedError("the API refused OA oa", code=204, http_status=200)
    (tables,), _ = record([failed("a", error=error, outcome="refused")])
    (ledger,), (request,) = (
        tables[name].to_pylist() for name in ("ref_ids", "api_requests")
    )
    assert ledger["last_error"] == "the API refused OA oa"
    assert (request["http_status"], request["api_code"]) == (200, 204)
    assert request["outcome"] == "refused"


def test_times_are_milliseconds(record):
    """waited_ms and latency_ms."""
    (tables,), counts = record([answered("a", waited=1.2345, latency=0.0204)])
    (row,) = tables["api_requests"].to_pylist()
    assert (row["waited_ms"], row["latency_ms"]) == (1234, 20)
    assert counts.seconds["decode"] == pytest.approx(0.1)


def test_final_rows_are_kept(record):
    """A RefId that was final keeps its rows and its state."""
    rows = [sample_row("a", SendStatus=2)]
    (tables,), _ = record([answered("a", rows=rows, state="final")])
    assert len(tables["callbacks"]) == 0
    assert tables["ref_ids"]["state"].to_pylist() == ["final"]


def test_what_a_stop_failed_is_due_at_once(record):
    """retry_immediately."""
    (tables,), _ = record([failed("a", retry_immediately=True)])
    assert tables["ref_ids"]["next_poll_at"].to_pylist() == [NOW]
