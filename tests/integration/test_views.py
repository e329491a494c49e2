from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import dlt
import pyarrow as pa
import pytest
from dlt.common.schema import Schema
from dlt.extract import DltSource

from esms_source import sync
from esms_source.codes import small_tables
from esms_source.databases import Patience
from esms_source.exceptions import DestinationError
from esms_source.planning.planner import Choice, make_plan
from esms_source.tables import API_REQUESTS, CALLBACKS, REF_IDS, TABLES, Table
from esms_source.views import NAMES, lacks_small_tables, read_view, refresh_views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from esms_source.config import Settings
    from esms_source.simulator import Simulator

COMPLETED = "1"
COMPLETE = """
    INSERT INTO _dlt_loads (load_id, schema_name, status, inserted_at)
    VALUES (%s, 'esms', 0, CURRENT_TIMESTAMP)
"""
"""Stands for the load whose id the rows bear."""

SENT_AT = datetime(2026, 1, 5, 18, tzinfo=timezone.utc)
"""In Vietnam it is the 6th already."""


@pytest.fixture(params=["duckdb", "postgres"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dlt.Pipeline]:
    """An empty dataset on each kind of destination."""
    if request.param == "duckdb":
        destination: Any = dlt.destinations.duckdb(str(tmp_path / "out.duckdb"))
    else:
        destination = dlt.destinations.postgres(request.getfixturevalue("postgres"))
    pipeline = dlt.pipeline(
        "esms",
        destination=destination,
        dataset_name="zalo",
        pipelines_dir=str(tmp_path / "pipelines"),
    )
    yield pipeline
    with pipeline.sql_client() as client:
        if client.has_dataset():
            client.drop_dataset()


def rows_of(pipeline: dlt.Pipeline, sql: str) -> list[tuple[Any, ...]]:
    """Return what a query selects in the dataset."""
    with pipeline.sql_client() as client, client.execute_query(sql) as cursor:
        return [tuple(row) for row in cursor.fetchall()]


def load(pipeline: dlt.Pipeline, rows: dict[Table, list[dict[str, Any]]]) -> None:
    """Load rows, and empty tables of the kinds that have none."""
    polled = [
        dlt.resource(
            [
                pa.Table.from_pylist(
                    [
                        {"row_no": no} | row
                        for no, row in enumerate(rows.get(table, ()))
                    ],
                    schema=table.schema,
                )
            ],
            name=table.name,
            columns=table.to_dlt(),
        )
        for table in TABLES[:4]
    ]
    pipeline.run(DltSource(Schema("esms"), "esms", [*polled, *small_tables()]))
    with pipeline.sql_client() as client:
        client.execute_sql(COMPLETE, COMPLETED)


def ledger_row(ref_id: str, state: str, **values: object) -> dict[str, Any]:
    """Return a row of the ledger."""
    settled = state in ("final", "expired")
    row = {
        "oa_id": "oa",
        "ref_id": ref_id,
        "sent_at": SENT_AT,
        "state": state,
        "attempts": 1,
        "first_polled_at": SENT_AT + timedelta(hours=2),
        "last_polled_at": SENT_AT + timedelta(hours=2),
        "next_poll_at": None if settled else SENT_AT + timedelta(hours=3),
        "load_id": COMPLETED,
    }
    return row | values


def callback(ref_id: str, delivery: str, **values: object) -> dict[str, Any]:
    """Return a row of callbacks."""
    row = {
        "oa_id": "oa",
        "ref_id": ref_id,
        "delivery": delivery,
        "send_status": 5,
        "send_success": int(delivery == "delivered"),
        "send_failed": int(delivery == "failed"),
        "total_price": 300,
        "type_id": 25,
        "telco_id": 1,
        "zns_temp_id": "228386",
        "polled_at": SENT_AT + timedelta(hours=2),
        "load_id": COMPLETED,
    }
    return row | values


def request_row(
    number: int, started_at: datetime = SENT_AT, **values: object
) -> dict[str, Any]:
    """Return a row of api_requests: two RefIds in half a second, unless said."""
    counts = ("answered", "missing", "failed", "rows", "rejected", "waited_ms")
    row: dict[str, Any] = dict.fromkeys(counts, 0) | {
        "request_no": number,
        "oa_id": "oa",
        "started_at": started_at,
        "asked": 2,
        "attempts": 1,
        "latency_ms": 500,
        "outcome": "answered",
        "load_id": COMPLETED,
    }
    return row | values


FANNED_OUT: dict[Table, list[dict[str, Any]]] = {
    REF_IDS: [
        ledger_row("one", "final"),
        ledger_row("three", "final"),
        ledger_row("twice", "final"),
        ledger_row("unripe", "pending"),
        ledger_row("none", "missing"),
        ledger_row("unanswered", "failed"),
        ledger_row("given up", "expired"),
        ledger_row("half loaded", "final"),
        ledger_row("one", "final", oa_id="other oa"),
    ],
    CALLBACKS: [
        callback("one", "delivered"),
        callback("one", "delivered", oa_id="other oa", telco_id=42, type_id=99),
        callback("three", "delivered"),
        callback("three", "failed", error_code=-118, error_message="no account"),
        callback("three", "partial", total_price=None, error_code=0),
        callback("twice", "failed", error_code=-31337, telco_id=None),
        callback("twice", "failed", error_code=-31337, telco_id=None),
        callback("unripe", "pending", send_status=7),
        callback("unripe", "delivered"),
    ],
}
"""RefIds with no row, one row and several, and the same RefId under two OAs."""


@pytest.fixture
def filled(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
) -> dlt.Pipeline:
    """A dataset with data that shows a fan-out, and the views on it."""
    load(pipeline, FANNED_OUT)
    assert refresh_views(pipeline, make_settings())
    return pipeline


def test_columns_of_the_views_are_those_described(filled: dlt.Pipeline):
    """Names and order of the columns are those of the files' comments."""
    for name in NAMES:
        with filled.sql_client() as client:
            sql = f"SELECT * FROM {name} LIMIT 0"
            with client.execute_query(sql) as cursor:
                present = [column[0] for column in cursor.description]
        assert present == list(read_view(name).columns)


def test_messages_has_each_ref_id_once(filled: dlt.Pipeline):
    """Several callback rows don't multiply a RefId, and none don't hide it."""
    rows = rows_of(
        filled,
        "SELECT oa_id, ref_id, callback_rows, delivery, outcome, total_price"
        " FROM messages ORDER BY oa_id, ref_id",
    )
    assert rows == [
        ("oa", "given up", 0, "unknown", "expired", None),
        ("oa", "half loaded", 0, "unknown", "pending", None),
        ("oa", "none", 0, "unknown", "missing", None),
        ("oa", "one", 1, "delivered", "delivered", 300),
        ("oa", "three", 3, "partial", "partial", 300),
        ("oa", "twice", 2, "failed", "failed", 300),
        ("oa", "unanswered", 0, "unknown", "unanswered", None),
        ("oa", "unripe", 2, "pending", "pending", 300),
        ("other oa", "one", 1, "delivered", "delivered", 300),
    ]


def test_labels_say_unknown_where_a_code_is_new(filled: dlt.Pipeline):
    """No label is null: not for a new code, not for none."""
    rows = rows_of(
        filled,
        "SELECT ref_id, message_type_en, telco_vi, error_meaning_en, error_meaning_vi,"
        " error_category, error_who_can_fix, send_status_en FROM messages"
        " WHERE oa_id = 'other oa' OR ref_id IN ('none', 'three', 'twice')"
        " ORDER BY ref_id",
    )
    no_code = ("no code", "không có mã", "unknown", "unknown")
    ended, zns = "Sending ended", "Zalo ZNS, normal"
    known = rows.pop(2)
    assert rows == [
        ("none", "unknown", "không rõ", *no_code, "unknown"),
        ("one", "unknown", "không rõ", *no_code, ended),
        ("twice", zns, "không rõ", "unknown", "không rõ", "unknown", "unknown", ended),
    ]
    assert known[2] == "Viettel"
    assert "Zalo" in known[3]


def test_days_are_cut_in_the_configured_time_zone(
    filled: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """A message late in the evening of UTC belongs to Vietnam's next day."""
    sql = "SELECT DISTINCT CAST(sent_day AS VARCHAR(10)) FROM delivery_daily"
    assert rows_of(filled, sql) == [("2026-01-06",)]
    assert refresh_views(filled, make_settings(timezone="UTC"))
    assert rows_of(filled, sql) == [("2026-01-05",)]


def test_sums_agree_between_views_and_tables(filled: dlt.Pipeline):
    """Neither RefIds nor money are lost or doubled on the way to an aggregate."""
    in_tables = rows_of(
        filled,
        "SELECT (SELECT count(*) FROM ref_ids), (SELECT sum(price) FROM (SELECT"
        " max(total_price) AS price FROM callbacks GROUP BY oa_id, ref_id) AS orders)",
    )
    for view, count in (("messages", "count(*)"), ("delivery_daily", "sum(sent)")):
        price = "total_price" if view == "messages" else "cost"
        sql = f"SELECT {count}, sum({price}) FROM {view}"
        assert rows_of(filled, sql) == in_tables
    assert rows_of(filled, "SELECT sum(sent) FROM maturity") == [(in_tables[0][0],)]


def test_outcomes_add_up_to_what_was_sent(filled: dlt.Pipeline):
    """Every RefId is in one column of delivery_daily."""
    parts = "final + pending + missing + unanswered + expired"
    wrong = f"sent <> {parts} OR final <> delivered + partial + failed"
    assert not rows_of(filled, f"SELECT * FROM delivery_daily WHERE {wrong}")
    assert rows_of(
        filled,
        "SELECT sum(sent), sum(final), sum(delivered), sum(failed), sum(pending),"
        " sum(missing), sum(unanswered), sum(expired) FROM delivery_daily",
    ) == [(9, 4, 2, 1, 2, 1, 1, 1)]


def test_failure_reasons_count_each_failed_ref_id_once(filled: dlt.Pipeline):
    """The failures of delivery_daily are those of failure_reasons."""
    rows = rows_of(
        filled,
        "SELECT error_code, messages, share, meaning_en = 'unknown'"
        " FROM failure_reasons ORDER BY error_code",
    )
    assert rows == [(-31337, 1, 0.5, True), (-118, 1, 0.5, False)]


def test_maturity_shares_are_those_of_the_polls(filled: dlt.Pipeline):
    """Four of nine are final: all of them seen two hours after sending."""
    assert rows_of(
        filled,
        "SELECT sent, final, share_final_1h, share_final_6h, share_final_72h,"
        " hours_to_final_p50, hours_to_final_p95 FROM maturity",
    ) == [(9, 5, 0, 5 / 9, 5 / 9, 2, 2)]


def test_the_backlog_is_what_a_run_would_ask(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """The view knows the same rules of what is due as the plan."""
    now = datetime.now(timezone.utc)
    settings = make_settings(batch_size=2, requests_per_second=1, repoll_max=60)
    load(pipeline, {})
    completed = rows_of(pipeline, "SELECT max(load_id) FROM _dlt_loads")[0][0]
    due_in = {"due": -10, "waiting": 30, "clock was wrong": 7_200, "due too": -20}
    rows = [
        ledger_row(
            name,
            "pending",
            next_poll_at=now + timedelta(seconds=seconds),
            load_id=completed,
        )
        for name, seconds in due_in.items()
    ]
    rows += [
        ledger_row("done", "final", load_id=completed),
        ledger_row("load cut short", "final", load_id="0"),
    ]
    load(pipeline, {REF_IDS: rows})
    refresh_views(pipeline, settings)
    [(due, waiting, requests, seconds)] = rows_of(
        pipeline, "SELECT due, waiting, requests, api_hours * 3600 FROM backlog"
    )
    plan = make_plan(
        pipeline, settings, Choice(), now, [{"ref_id": "done", "oa_id": "oa"}]
    )
    assert (due, waiting, requests) == (plan.total, 1, 2)
    assert seconds == pytest.approx(2)
    plan.close()


def test_run_history_counts_split_requests_once(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """RefIds of a batch that was split count where they were asked at last."""
    requests = [
        request_row(1, attempts=5, outcome="split", failed=2),
        request_row(2, asked=1, outcome="failed", failed=1),
        request_row(
            *(3, SENT_AT + timedelta(seconds=1.5)), asked=1, answered=1, rows=3
        ),
    ]
    unknown = [callback("a", "failed", error_code=code) for code in (-118, -9, 7, None)]
    load(pipeline, {API_REQUESTS: requests, CALLBACKS: unknown})
    refresh_views(pipeline, make_settings(requests_per_second=7))
    assert rows_of(
        pipeline,
        "SELECT load_id, seconds, requests, attempts, retries, requests_per_second,"
        " rate_used, asked, answered, missing, failed, rows, split, unknown_codes,"
        " loaded_at IS NOT NULL FROM run_history",
    ) == [("1", 2, 3, 7, 4, 3.5, 0.5, 2, 1, 0, 1, 3, 1, 2, True)]


def filled_with(
    pipeline: dlt.Pipeline, settings: Settings, ledger: list[Any], callbacks: list[Any]
) -> None:
    """Load rows of two tables and make the views on them."""
    load(pipeline, {REF_IDS: ledger, CALLBACKS: callbacks})
    assert refresh_views(pipeline, settings)


FOLDS: dict[str, tuple[list[tuple[str, dict[str, Any]]], tuple[Any, ...]]] = {
    "equal rows count once": (
        [("delivered", {}), ("delivered", {})],
        ("delivered", 1, 0, 300, None),
    ),
    "the order's price is no sum": (
        [("delivered", {"phone_number": "1"}), ("delivered", {"phone_number": "2"})],
        ("delivered", 2, 0, 300, None),
    ),
    "a failure without a code is no success": (
        [("delivered", {"error_code": 0}), ("failed", {"error_code": None})],
        ("partial", 1, 1, 300, None),
    ),
    "a code explains more than none": (
        [("failed", {"error_code": -118}), ("failed", {"error_code": None})],
        ("failed", 0, 2, 300, -118),
    ),
    "the code is that of what failed": (
        [("delivered", {"error_code": -999}), ("failed", {"error_code": -114})],
        ("partial", 1, 1, 300, -114),
    ),
    "the largest price": (
        [("failed", {"total_price": 0}), ("delivered", {"total_price": 450})],
        ("partial", 1, 1, 450, None),
    ),
    "what waits may change all": (
        [("pending", {}), ("failed", {})],
        ("pending", 0, 1, 300, None),
    ),
    "partly reached": (
        [("partial", {}), ("delivered", {})],
        ("partial", 1, 0, 300, None),
    ),
}
"""Two callbacks each, and delivery, success, failed, price and code of the message."""


def test_several_callbacks_are_folded_into_one_message(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Equal rows count once, no price is added, and the code is of the worst row."""
    callbacks = [
        callback(name, delivery, **values)
        for name, (rows, _) in FOLDS.items()
        for delivery, values in rows
    ]
    ledger = [ledger_row(name, "final") for name in FOLDS]
    filled_with(pipeline, make_settings(), ledger, callbacks)
    found = rows_of(
        pipeline,
        "SELECT ref_id, callback_rows, delivery, send_success, send_failed,"
        " total_price, error_code FROM messages",
    )
    expected = {(name, 2, *folded) for name, (_, folded) in FOLDS.items()}
    assert set(found) == expected


def test_what_describes_a_message_is_of_one_row(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Phone, telco, code and message are those of the receiver that wasn't reached."""
    reached = {"phone_number": "9", "telco_id": 3, "error_code": 0}
    lost = {"phone_number": "1", "error_code": -118, "error_message": "gone"}
    callbacks = [
        callback("a", "delivered", error_message="zzz", **reached),
        callback("a", "failed", **lost),
    ]
    filled_with(pipeline, make_settings(), [ledger_row("a", "final")], callbacks)
    sql = "SELECT phone_number, telco_id, error_code, error_message FROM messages"
    assert rows_of(pipeline, sql) == [("1", 1, -118, "gone")]


def test_a_failure_after_code_0_is_no_success(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Zalo took it and it was not delivered: a reason of its own."""
    filled_with(
        pipeline,
        make_settings(),
        [ledger_row("failed", "final"), ledger_row("fine", "final")],
        [
            callback("failed", "failed", error_code=0),
            callback("fine", "delivered", error_code=0),
        ],
    )
    columns = "meaning_en, meaning_vi, category, who_can_fix, retryable"
    [reason] = rows_of(pipeline, f"SELECT {columns} FROM failure_reasons")
    assert reason == (
        "Taken by Zalo, but not delivered",
        "Zalo đã nhận nhưng tin không tới người nhận",
        "undelivered",
        "unknown",
        None,
    )
    columns = ", ".join(f"error_{name}" for name in columns.split(", "))
    shown = rows_of(pipeline, f"SELECT {columns} FROM messages ORDER BY ref_id")
    assert shown[0] == reason
    assert shown[1] == ("Success", "Thành công", "success", "nobody", False)


def test_cost_is_split_by_what_became_of_the_messages(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """A price on a failed message shows, and so does a message without a price."""
    filled_with(
        pipeline,
        make_settings(),
        [ledger_row(name, "final") for name in "abcd"]
        + [ledger_row("e", "pending"), ledger_row("f", "missing")],
        [
            callback("a", "delivered"),
            callback("b", "partial", total_price=70),
            callback("c", "failed", total_price=5),
            callback("d", "delivered", total_price=None),
            callback("e", "pending", total_price=11),
        ],
    )
    assert rows_of(
        pipeline,
        "SELECT sum(cost), sum(cost_delivered), sum(cost_failed), sum(unpriced)"
        " FROM delivery_daily",
    ) == [(386, 370, 5, 2)]


def test_asking_final_ref_ids_again_does_not_change_maturity(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """It counts from when a RefId became final; version 0.1 knew the last poll only."""
    later = {"last_polled_at": SENT_AT + timedelta(days=9)}
    became = SENT_AT + timedelta(minutes=30)
    ledger = [
        ledger_row("new", "final", final_at=became, **later),
        ledger_row("of 0.1", "final"),
    ]
    filled_with(pipeline, make_settings(), ledger, [])
    assert rows_of(pipeline, "SELECT share_final_1h, share_final_6h FROM maturity") == [
        (0.5, 1)
    ]
    assert rows_of(pipeline, "SELECT min(final_at) FROM messages") == [(became,)]


def test_rows_of_loads_that_never_completed_are_in_no_view(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """They count once their load stands in _dlt_loads; the backlog calls them due."""
    lost = {"load_id": "lost"}
    load(
        pipeline,
        {
            REF_IDS: [
                ledger_row("whole", "final"),
                ledger_row("rows lost", "final"),
                ledger_row("all lost", "final", **lost),
            ],
            CALLBACKS: [
                callback("whole", "delivered"),
                callback("rows lost", "delivered", **lost),
                callback("all lost", "delivered", **lost),
                callback("all lost", "failed", **lost),
            ],
            API_REQUESTS: [request_row(1, endpoint="callback", load_id="lost")],
        },
    )
    assert refresh_views(pipeline, make_settings())
    assert rows_of(
        pipeline, "SELECT ref_id, outcome, callback_rows FROM messages ORDER BY ref_id"
    ) == [("rows lost", "pending", 0), ("whole", "delivered", 1)]
    assert rows_of(pipeline, "SELECT sum(sent) FROM delivery_daily") == [(2,)]
    assert rows_of(pipeline, "SELECT sum(sent) FROM maturity") == [(2,)]
    assert rows_of(pipeline, "SELECT count(*) FROM run_history") == [(0,)]
    assert rows_of(pipeline, "SELECT sum(due) FROM backlog") == [(1,)]


def test_run_history_counts_requests_to_getcallback_only(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Requests of version 0.1 name no endpoint and were all GetCallback's."""
    requests = [
        request_row(number, endpoint=endpoint)
        for number, endpoint in enumerate((None, "callback", "query"))
    ]
    load(pipeline, {API_REQUESTS: requests})
    assert refresh_views(pipeline, make_settings())
    assert rows_of(pipeline, "SELECT requests, asked FROM run_history") == [(2, 4)]


def test_absurd_numbers_do_not_overflow(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Counts near the largest bigint are added up exactly, in all views."""
    most = 2**63 - 1
    names = ("send_success", "send_failed", "total_receiver", "total_sent")
    huge = dict.fromkeys(names, most) | {"total_price": 10**13}
    callbacks = [callback("a", "partial", phone_number=n, **huge) for n in "123"]
    callbacks.append(callback("b", "partial", **huge))
    ledger = [ledger_row("a", "final"), ledger_row("b", "final")]
    filled_with(pipeline, make_settings(), ledger, callbacks)
    columns = ", ".join(f"sum({name})" for name in names)
    assert rows_of(pipeline, f"SELECT {columns} FROM messages") == [(4 * most,) * 4]
    assert rows_of(pipeline, "SELECT sum(cost) FROM delivery_daily") == [(2 * 10**13,)]
    for name in NAMES:
        rows_of(pipeline, f"SELECT * FROM {name}")


def test_a_dataset_of_an_earlier_version_keeps_its_views(
    filled: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Without the columns of this version nothing is made, and nothing fails."""
    with filled.sql_client() as client:
        client.execute_sql("CREATE TABLE old AS SELECT * FROM ref_ids")
        cascade = "CASCADE" if client.capabilities.sqlglot_dialect == "postgres" else ""
        client.execute_sql(f"DROP TABLE ref_ids {cascade}")
        client.execute_sql("ALTER TABLE old DROP COLUMN final_at")
        client.execute_sql("ALTER TABLE old RENAME TO ref_ids")
    assert not refresh_views(filled, make_settings())


def test_views_are_made_once_and_again_only_when_something_changed(
    filled: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """A run without changes leaves the views alone."""
    assert not refresh_views(filled, make_settings())
    assert refresh_views(filled, make_settings(requests_per_second=5))
    assert not refresh_views(filled, make_settings(requests_per_second=5))


def test_a_view_that_was_dropped_comes_back(
    filled: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """The next run makes what somebody took away."""
    with filled.sql_client() as client:
        cascade = "CASCADE" if client.capabilities.sqlglot_dialect == "postgres" else ""
        client.execute_sql(f"DROP VIEW messages {cascade}")
    assert refresh_views(filled, make_settings())
    assert rows_of(filled, "SELECT count(*) FROM messages") == [(9,)]


def test_a_new_carried_column_appears_in_messages(
    filled: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Also one that bears the name of a column of the view."""
    with filled.sql_client() as client:
        client.execute_sql("ALTER TABLE ref_ids ADD COLUMN campaign VARCHAR(9)")
        client.execute_sql("ALTER TABLE ref_ids ADD COLUMN outcome VARCHAR(9)")
        client.execute_sql("UPDATE ref_ids SET campaign = 'sale', outcome = 'x'")
    assert refresh_views(filled, make_settings())
    sql = "SELECT DISTINCT campaign, carried_outcome FROM messages"
    assert rows_of(filled, sql) == [("sale", "x")]


def test_views_with_other_columns_are_made_anew(
    filled: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """A view of an earlier version doesn't stand in the way."""
    with filled.sql_client() as client:
        cascade = "CASCADE" if client.capabilities.sqlglot_dialect == "postgres" else ""
        client.execute_sql(f"DROP VIEW message_facts {cascade}")
        client.execute_sql("CREATE VIEW message_facts AS SELECT 1 AS something")
    assert refresh_views(filled, make_settings())
    assert rows_of(filled, "SELECT count(*) FROM message_facts") == [(9,)]


def test_descriptions_are_in_the_database(filled: dlt.Pipeline):
    """Tables, views and their columns carry their meaning as comments."""
    with filled.sql_client() as client:
        if client.capabilities.sqlglot_dialect == "postgres":
            sql = (
                "SELECT obj_description('messages'::regclass),"
                " col_description('callbacks'::regclass, 2)"
            )
        else:
            sql = (
                "SELECT (SELECT comment FROM duckdb_views()"
                " WHERE view_name = 'messages'), (SELECT comment FROM duckdb_columns()"
                " WHERE table_name = 'callbacks' AND column_index = 2)"
            )
    assert rows_of(filled, sql) == [
        (read_view("messages").description, CALLBACKS.columns[1].description)
    ]


def test_a_name_in_the_way_is_reported(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """A table that bears a view's name stays, and the error says so."""
    load(pipeline, {})
    with pipeline.sql_client() as client:
        client.execute_sql("CREATE TABLE messages (mine INTEGER)")
    with pytest.raises(DestinationError, match=r"views can't be made: .*messages"):
        refresh_views(pipeline, make_settings())
    assert rows_of(pipeline, "SELECT count(*) FROM messages") == [(0,)]


def test_runs_side_by_side_may_make_the_views_together(
    filled: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """Whoever comes second finds them made, or makes them again."""
    with filled.sql_client() as client:
        client.execute_sql("DROP VIEW _esms_views")
    if filled.destination.destination_type.endswith("postgres"):
        with ThreadPoolExecutor(4) as pool:
            for made in [
                pool.submit(refresh_views, filled, make_settings()) for _ in range(4)
            ]:
                made.result()
    else:
        assert refresh_views(filled, make_settings())
    assert not refresh_views(filled, make_settings())


def test_nothing_is_made_before_the_first_load(
    pipeline: dlt.Pipeline, make_settings: Callable[..., Settings]
):
    """An empty destination has no views, and lacks the small tables."""
    pipeline.sync_destination()
    assert not refresh_views(pipeline, make_settings())
    assert lacks_small_tables(pipeline, Patience())


def test_small_tables_are_loaded_when_they_differ(
    pipeline: dlt.Pipeline,
    simulate: Callable[..., Simulator],
    api_key: str,
    secret_key: str,
):
    """A run repairs the small tables, and leaves them alone while they agree."""
    simulator = simulate()

    def run(ref_id: str) -> None:
        sync(
            pipeline,
            ref_ids=[{"ref_id": ref_id, "oa_id": "oa"}],
            api_key=api_key,
            secret_key=secret_key,
            base_url=simulator.url,
        )

    run("a")
    assert not lacks_small_tables(pipeline, Patience())
    with pipeline.sql_client() as client:
        client.execute_sql("DELETE FROM telcos WHERE id = 1")
    assert lacks_small_tables(pipeline, Patience())
    run("b")
    with pipeline.sql_client() as client:
        client.execute_sql("INSERT INTO telcos SELECT * FROM telcos")
    assert lacks_small_tables(pipeline, Patience())
    run("c")
    assert not lacks_small_tables(pipeline, Patience())
    assert rows_of(pipeline, "SELECT count(*) FROM messages") == [(3,)]
