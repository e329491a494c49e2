from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import accumulate, chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from esms_source.exceptions import ConfigError
from esms_source.ledger import WORK
from esms_source.planning.planner import Choice, make_plan
from esms_source.planning.skipped import Skipped
from esms_source.planning.work_list import Cutter, OaPlan, Plan, work_in
from esms_source.tables import STATES

NOW = datetime(2026, 3, 10, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

LOADS = "CREATE TABLE IF NOT EXISTS _dlt_loads AS SELECT 'done' load_id, 0 status"
LEDGER = """
CREATE TABLE ref_ids (
    oa_id VARCHAR, ref_id VARCHAR, sent_at TIMESTAMPTZ, state VARCHAR,
    attempts BIGINT, first_polled_at TIMESTAMPTZ, last_polled_at TIMESTAMPTZ,
    next_poll_at TIMESTAMPTZ, last_error VARCHAR, chosen BOOLEAN, load_id VARCHAR,
    campaign VARCHAR
)
"""


class World:
    """A warehouse and a ledger, and what is planned from them."""

    def __init__(self, warehouse, output, make_settings) -> None:
        self.warehouse, self.output, self._make = warehouse, output, make_settings

    def send(self, *rows, table="sent") -> None:
        """Put (oa_id, ref_id, sent_at) into the warehouse."""
        columns = "oa_id VARCHAR, ref_id VARCHAR, sent_at TIMESTAMPTZ, campaign VARCHAR"
        statements = [f"CREATE TABLE IF NOT EXISTS {table} ({columns})"]
        for oa_id, ref_id, sent_at in rows:
            values = ", ".join(
                "NULL" if value is None else f"'{value}'"
                for value in (oa_id, ref_id, sent_at)
            )
            statements.append(f"INSERT INTO {table} VALUES ({values}, 'c')")
        self.warehouse.execute(*statements)
        self.warehouse.use(table, oa_id_column="oa_id", sent_at_column="sent_at")

    def know(self, *rows) -> None:
        """Put rows into the ledger."""
        statements = [
            LOADS,
            LEDGER.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"),
        ]
        for row in rows:
            full = {
                "oa_id": "oa",
                "sent_at": NOW - DAY,
                "state": "final",
                "attempts": 1,
                "first_polled_at": NOW - DAY,
                "last_polled_at": NOW - DAY,
                "chosen": False,
                "load_id": "done",
            } | row
            values = ", ".join(
                "NULL" if value is None else f"'{value}'" for value in full.values()
            )
            statements.append(
                f"INSERT INTO ref_ids ({', '.join(full)}) VALUES ({values})"
            )
        self.output.execute(*statements)

    def plan(self, choice=None, *, rows=None, as_of=NOW, compare_all=False, **settings):
        """Return the RefIds that are planned, in order."""
        self.table = self.work(choice, rows, as_of, settings, compare_all=compare_all)
        return self.table["ref_id"].to_pylist()

    def pairs(self, choice=None, **settings):
        """Return (oa_id, ref_id) of what is planned."""
        self.plan(choice, **settings)
        return [(row["oa_id"], row["ref_id"]) for row in self.table.to_pylist()]

    def times(self, **settings):
        """Return the sent_at of what is planned."""
        self.plan(**settings)
        return [
            at and at.astimezone(timezone.utc)
            for at in self.table["sent_at"].to_pylist()
        ]

    def work(self, choice, rows, as_of, settings, *, compare_all):
        plan = make_plan(
            self.output.pipeline(),
            self._make(**settings),
            choice or Choice(),
            as_of,
            rows,
            compare_all=compare_all,
            slice_ref_ids=3,
        )
        self.skipped, self.oas = plan.skipped, list(plan.oas)
        self.compared_all = plan.compared_all
        try:
            slices = [list(pages) for pages in plan.slices()]
            self.slices = [sum(map(len, pages)) for pages in slices]
            assert all(size <= 3 for size in self.slices)
            tables = list(chain.from_iterable(slices))
            assert sum(map(len, tables)) == plan.total
            empty = pa.table({"oa_id": [], "ref_id": []})
            return pa.concat_tables(tables) if tables else empty
        finally:
            plan.close()


@pytest.fixture
def world(warehouse, output, make_settings):
    """An empty world."""
    return World(warehouse, output, make_settings)


def test_all_is_new_at_first(world):
    """Without a ledger everything that the warehouse has is asked, oldest first."""
    world.send(("oa", "b", NOW - HOUR), ("oa", "a", NOW), ("oa", "c", NOW - DAY))
    assert world.plan() == ["c", "b", "a"]
    assert set(world.table["state"].to_pylist()) == {None}


def test_nothing_is_planned_twice(world):
    """What is known and not due is left alone."""
    world.send(("oa", "a", NOW - DAY), ("oa", "b", NOW - DAY))
    world.know(
        {"ref_id": "a"}, {"ref_id": "b", "state": "pending", "next_poll_at": NOW + HOUR}
    )
    assert world.plan() == []


@pytest.mark.parametrize("state", STATES)
def test_due_is_what_is_not_settled_and_past_its_time(state, world):
    """Section 1: due."""
    world.send()
    world.know({"ref_id": "a", "state": state, "next_poll_at": NOW - HOUR})
    assert world.plan() == ([] if state in ("final", "expired") else ["a"])


def test_due_comes_before_new(world):
    """What waits is asked first, each part oldest first."""
    world.send(("oa", "new", NOW - 20 * HOUR))
    world.know(
        {"ref_id": "d2", "state": "missing", "next_poll_at": NOW, "sent_at": NOW},
        {"ref_id": "d1", "state": "failed", "next_poll_at": NOW},
    )
    assert world.plan() == ["d1", "d2", "new"]


@pytest.mark.parametrize("load_id", ["lost", "half"])
def test_what_an_incomplete_load_left_is_asked_again(load_id, world):
    """Its callbacks may be lost though the ledger says final."""
    world.send()
    world.know({"ref_id": "a", "load_id": load_id}, {"ref_id": "b"})
    world.output.execute("INSERT INTO _dlt_loads VALUES ('half', 1)")
    assert world.plan() == ["a"]


def test_what_an_incomplete_load_says_of_a_ref_id_binds_nothing(world):
    """Its state and final_at are handed out as unknown: any answer is taken."""
    world.send()
    world.know({"ref_id": "a", "load_id": "lost"})
    world.output.execute(
        "ALTER TABLE ref_ids ADD COLUMN final_at TIMESTAMPTZ",
        "UPDATE ref_ids SET final_at = sent_at",
    )
    for choice in (Choice(), Choice(repoll=("final",))):
        world.plan(choice)
        (row,) = world.table.to_pylist()
        assert (row["state"], row["final_at"], row["attempts"]) == (None, None, 1)
    world.plan()
    assert world.oas == [OaPlan("oa", new=0, due=1, settled=0, waiting=0, requests=1)]


def test_due_rows_bring_what_the_ledger_knows(world):
    """State, attempts and the first poll are needed to move on."""
    world.send()
    world.know(
        {
            "ref_id": "a",
            "state": "missing",
            "next_poll_at": NOW,
            "attempts": 4,
            "campaign": "tet",
        }
    )
    world.plan()
    (row,) = world.table.to_pylist()
    assert (row["state"], row["attempts"], row["campaign"]) == ("missing", 4, "tet")
    assert row["first_polled_at"].astimezone(timezone.utc) == NOW - DAY


# Late rows.


def test_a_late_row_within_the_lag_is_found(world):
    """A row may turn up a day behind its OA's newest: lag."""
    world.know({"ref_id": "x", "sent_at": NOW - HOUR})
    world.send(
        ("oa", "late", NOW - HOUR - DAY),
        ("oa", "too late", NOW - HOUR - DAY - timedelta(microseconds=1)),
    )
    assert world.plan() == ["late"]


def test_each_oa_has_its_own_window(world):
    """A busy OA does not hide the rows of a quiet one."""
    world.know({"ref_id": "x", "sent_at": NOW})
    world.send(("quiet", "old", NOW - 300 * DAY))
    assert world.plan() == ["old"]


def test_lag_zero_reads_from_the_newest_on(world):
    """Rows of the same moment are still found."""
    world.know({"ref_id": "x", "sent_at": NOW - HOUR})
    world.send(("oa", "same", NOW - HOUR), ("oa", "old", NOW - 2 * HOUR))
    assert world.plan(ref_ids={"lag": 0}) == ["same"]


def test_a_future_sent_at_hides_nothing(world):
    """One wrong date in the warehouse must not end all asking."""
    world.know({"ref_id": "future", "sent_at": NOW + 400 * DAY})
    world.send(("oa", "a", NOW - HOUR))
    assert world.plan() == ["a"]


def test_a_future_sent_at_is_asked_all_the_same(world):
    """It is a RefId like any other."""
    world.send(("oa", "a", NOW + 400 * DAY))
    assert world.plan() == ["a"]


def test_a_table_without_sent_at_is_read_whole(world):
    """Each time; the ledger says what is known."""
    world.know({"ref_id": "b", "sent_at": None})
    world.warehouse.execute(
        "CREATE TABLE plain AS FROM (VALUES ('oa', 'a'), ('oa', 'b')) t(oa_id, ref_id)"
    )
    world.warehouse.use("plain", oa_id_column="oa_id")
    assert world.plan() == ["a"]
    assert world.skipped.total == 0
    assert world.compared_all


def test_no_order_of_runs_loses_a_row(world):
    """A cap takes the oldest, so that what is left stays in the window."""
    world.send(*[("oa", f"r{n}", NOW - n * 40 * DAY) for n in range(6)])
    seen = []
    for _ in range(6):
        (ref_id,) = world.plan(Choice(max_ref_ids=1))
        sent_at = world.table["sent_at"].to_pylist()[0]
        world.know({"ref_id": ref_id, "sent_at": sent_at})
        seen.append(ref_id)
    assert seen == [f"r{n}" for n in reversed(range(6))]
    assert world.plan() == []


# Choices: none hides a RefId from a later run.


def test_only_some_oas(world):
    """oa_ids limits a run, new and due alike."""
    world.know(
        {"ref_id": "d1", "oa_id": "one", "state": "failed", "next_poll_at": NOW},
        {"ref_id": "d2", "oa_id": "two", "state": "failed", "next_poll_at": NOW},
    )
    world.send(("one", "n1", NOW), ("two", "n2", NOW))
    assert world.plan(Choice(oa_ids=("two",))) == ["d2", "n2"]
    assert world.plan(Choice(oa_ids=("t'wo", "one"))) == ["d1", "n1"]
    assert world.plan() == ["d1", "d2", "n1", "n2"]


@pytest.mark.parametrize(
    "only",
    [
        ["b", "zz"],
        [{"ref_id": "b"}, {"ref_id": "zz"}],
        [{"ref_id": " b\n", "oa_id": "oa"}, {"ref_id": "zz", "oa_id": "oa"}],
        [pa.table({"ref_id": ["b", "zz"]})],
        pa.table({"ref_id": ["b", "zz"]}),
        pa.table({"ref_id": ["b", "zz"]}).to_batches(),
        [{"ref_id": "b"}, "zz", "b"],
        ("b", "zz"),
        iter(["b", "zz"]),
    ],
    ids=[
        "texts",
        "dicts",
        "dicts with blanks",
        "tables",
        "a table",
        "batches",
        "a mix",
        "a tuple",
        "an iterator",
    ],
)
def test_only_some_ref_ids(only, world):
    """In any form; what warehouse and ledger lack goes to the default OA."""
    world.send(("oa", "a", NOW - 9 * DAY), ("oa", "b", NOW - 5 * DAY))
    planned = world.pairs(Choice(only=only), oa_id="oa")
    assert sorted(planned) == [("oa", "b"), ("oa", "zz")]


def test_only_takes_what_is_old(world):
    """A chosen RefId is found however far behind the newest it is."""
    world.know({"ref_id": "x", "sent_at": NOW})
    world.send(("oa", "old", NOW - 500 * DAY))
    assert world.plan(Choice(only=["old"])) == ["old"]


def test_only_leaves_alone_what_is_not_due(world):
    """Choosing is no asking again: that is repoll."""
    world.send(("oa", "a", NOW))
    world.know(
        {"ref_id": "a"}, {"ref_id": "b", "state": "pending", "next_poll_at": NOW + HOUR}
    )
    assert world.plan(Choice(only=["a", "b"]), oa_id="oa") == []


def test_only_knows_the_oa_of_the_ledger(world):
    """A RefId that the ledger has under its OA isn't asked under the default one."""
    world.send()
    world.know({"ref_id": "a", "oa_id": "real", "state": "failed", "next_poll_at": NOW})
    assert world.pairs(Choice(only=["a"]), oa_id="default") == [("real", "a")]


def test_what_was_chosen_does_not_move_the_window(world):
    """A chosen RefId of today leaves last month's rows to be found."""
    world.send(("oa", "old", NOW - 30 * DAY), ("oa", "new", NOW - HOUR))
    assert world.plan(Choice(only=["new"])) == ["new"]
    assert world.table["chosen"].to_pylist() == [True]
    world.know({"ref_id": "new", "sent_at": NOW - HOUR, "chosen": True})
    assert world.plan() == ["old"]


def test_rows_in_place_of_a_table_do_not_move_the_window_either(world):
    """The warehouse is read from where its own reading stopped."""
    world.send(("oa", "old", NOW - 30 * DAY))
    rows = [{"ref_id": "new", "oa_id": "oa", "sent_at": NOW - HOUR}]
    assert world.plan(rows=rows) == ["new"]
    assert world.table["chosen"].to_pylist() == [True]


def test_repoll_asks_states_again(world):
    """Though settled or not yet due, and nothing else."""
    world.send(("oa", "new", NOW))
    world.know(
        {"ref_id": "f", "sent_at": NOW - 3 * DAY},
        {"ref_id": "e", "state": "expired", "sent_at": NOW - 2 * DAY},
        {"ref_id": "p", "state": "pending", "next_poll_at": NOW + HOUR},
    )
    assert world.plan(Choice(repoll=("final", "expired"))) == ["f", "e"]
    assert world.plan(Choice(repoll=("pending",))) == ["p"]


def test_repoll_takes_a_span_of_sent_at(world):
    """From since on, before until."""
    world.send()
    world.know(*[{"ref_id": f"d{n}", "sent_at": NOW - n * DAY} for n in range(5)])
    choice = Choice(repoll=("final",), since=NOW - 3 * DAY, until=NOW - DAY)
    assert world.plan(choice) == ["d3", "d2"]


def test_repoll_needs_no_warehouse(world):
    """The ledger holds what it asks."""
    world.know({"ref_id": "a"})
    assert world.plan(Choice(repoll=("final",))) == ["a"]


def test_repoll_takes_only_the_chosen_ref_ids(world):
    """Both choices hold at once."""
    world.know({"ref_id": "a"}, {"ref_id": "b"})
    assert world.plan(Choice(repoll=("final",), only=["b"])) == ["b"]


def test_repoll_before_the_first_run_plans_nothing(world):
    """There is no ledger yet."""
    assert world.plan(Choice(repoll=("final",))) == []


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"repoll": ("finall",)}, "repoll"),
        ({"since": NOW}, "since"),
        ({"until": NOW}, "until"),
        ({"max_ref_ids": -1}, "max_ref_ids"),
        ({"max_ref_ids": "3"}, "max_ref_ids"),
        ({"max_ref_ids": True}, "max_ref_ids"),
        ({"max_ref_ids": 1.5}, "max_ref_ids"),
        ({"oa_ids": [1]}, "oa_ids"),
        ({"oa_ids": "oa"}, "oa_ids"),
        ({"oa_ids": 7}, "oa_ids"),
        ({"repoll": "final"}, "repoll"),
        ({"repoll": ["final"], "since": "2026-01-01"}, "since"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(choice, name):
    """In one line that names it."""
    with pytest.raises(ConfigError, match=name) as caught:
        Choice(**choice)
    assert "\n" not in str(caught.value)


def test_repoll_reads_a_time_without_zone_as_utc(world):
    """All times are UTC."""
    world.know({"ref_id": "a", "sent_at": NOW})
    naive = NOW.replace(tzinfo=None)
    assert world.plan(Choice(repoll=("final",), since=naive)) == ["a"]
    assert world.plan(Choice(repoll=("final",), until=naive)) == []


def test_repoll_takes_a_date_as_its_midnight_in_the_time_zone(world):
    """Section 4: a day begins where the reader lives."""
    midnight = datetime(2026, 3, 8, 17, tzinfo=timezone.utc)
    world.know(
        {"ref_id": "before", "sent_at": midnight - HOUR},
        {"ref_id": "after", "sent_at": midnight},
    )
    day = midnight.date() + DAY
    assert world.plan(Choice(repoll=("final",), since=day)) == ["after"]
    assert world.plan(Choice(repoll=("final",), until=day)) == ["before"]


@pytest.mark.parametrize("cap", [0, 1, 3, 99])
def test_a_cap_holds(cap, world):
    """At most max_ref_ids; what isn't reached stays due."""
    world.send(*[("oa", f"r{n}", NOW + n * HOUR) for n in range(5)])
    assert len(world.plan(Choice(max_ref_ids=cap))) == min(cap, 5)


# Rows that can't be asked, and odd RefIds.


def counted(skipped):
    """Return how many rows of each kind were skipped."""
    return (skipped.no_ref_id, skipped.no_oa_id, skipped.unreadable)


def test_rows_that_cannot_be_asked_are_counted(world):
    """No RefId, no OA: section 6.7; each kind has an example and a remedy."""
    world.know({"ref_id": "x", "sent_at": NOW})
    world.send(
        ("oa", None, NOW),
        ("oa", "  ", NOW),
        ("oa", "", NOW),
        (None, "secret-of-a", NOW),
        ("  ", "b", NOW),
        ("oa", "c", None),
        ("oa", "ok", NOW),
    )
    assert world.plan() == ["ok"]
    assert counted(world.skipped) == (3, 2, 1)
    assert (world.skipped.total, world.skipped.rows) == (6, 7)
    no_ref_id, no_oa_id, unreadable = world.skipped.remedies()
    assert no_ref_id.startswith("3 rows have no RefId and are not asked, such as OA oa")
    assert no_ref_id.endswith("; fill ref_ids.ref_id_column")
    assert "RefId sec…" in no_oa_id
    assert "secret-of-a" not in no_oa_id
    assert no_oa_id.endswith("; set oa_id or fill ref_ids.oa_id_column")
    assert "asked when the whole table is compared" in unreadable


@pytest.mark.parametrize("ref_id", ["a\0b", "a\ud83d", {"ref_id": "\udc00"}], ids=ascii)
def test_a_ref_id_that_cannot_be_stored_as_it_is_is_not_asked(ref_id, world):
    """Its key would never match again: NUL, or half a surrogate pair."""
    assert world.plan(rows=[ref_id, "ok"], oa_id="oa") == ["ok"]
    assert counted(world.skipped) == (1, 0, 0)


def test_a_ref_id_with_nul_in_the_warehouse_is_not_asked(world):
    """DuckDB keeps a NUL in a text; most databases don't."""
    world.warehouse.execute(
        "CREATE TABLE sent AS SELECT 'a' || chr(0) AS ref_id UNION ALL SELECT 'ok'"
    )
    world.warehouse.use()
    assert world.plan(oa_id="oa") == ["ok"]
    assert counted(world.skipped) == (1, 0, 0)


# The whole table.


def test_what_a_window_hides_is_found_when_the_whole_table_is_compared(world):
    """Rows older than lag, and those without a time, which are asked with none."""
    world.know({"ref_id": "x", "sent_at": NOW})
    world.send(("oa", "old", NOW - 9 * DAY), ("oa", "x", NOW), ("oa", "null", None))
    assert world.plan() == []
    assert not world.compared_all
    assert world.plan(compare_all=True) == ["null", "old"]
    assert world.compared_all
    assert counted(world.skipped) == (0, 0, 1)
    assert world.skipped.total == 0
    assert "asked without it" in world.skipped.remedies()[0]


def test_the_first_plan_compares_the_whole_table(world):
    """There is no window yet."""
    world.send(("oa", "a", NOW), ("oa", "null", None))
    assert world.plan() == ["null", "a"]
    assert world.compared_all


@pytest.mark.parametrize(
    ("choice", "whole"),
    [
        ({"max_ref_ids": 2}, False),
        ({"max_ref_ids": 4}, True),
        ({"oa_ids": ["oa"]}, False),
        ({"only": ["a"]}, False),
        ({"repoll": ["final"]}, False),
    ],
)
def test_a_whole_comparison_counts_only_where_all_it_found_is_planned(
    choice, whole, world
):
    """Neither a cap nor a choice of OAs or RefIds hides anything from the next one."""
    world.send(("oa", "a", NOW), ("oa", "b", NOW), ("two", "c", NOW))
    world.plan(Choice(**choice), compare_all=True)
    assert world.compared_all is whole


def test_a_newest_time_in_the_future_names_the_time_zone(world):
    """A local time that was read as UTC lies hours ahead."""
    world.send(("oa", "a", NOW + 7 * HOUR), ("oa", "b", NOW))
    world.plan()
    assert world.skipped.in_future == NOW + 7 * HOUR
    assert world.skipped.remedies()[0].endswith("; correct ref_ids.sent_at_timezone")
    world.plan(as_of=NOW + 8 * HOUR)
    assert world.skipped.in_future is None


# What is chosen and isn't asked is said.


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"oa_ids": ["oa", "typo"]}, "no RefId of OA 'typo' is known"),
        ({"only": ["done", "new"]}, "1 chosen RefIds are settled or not yet due"),
        (
            {"only": [{"ref_id": "x", "oa_id": "two"}], "oa_ids": ["oa"]},
            "1 chosen RefIds are of another OA",
        ),
        ({"only": ["x"], "oa_ids": ["oa"]}, "1 row has no OA and is not asked"),
        ({"only": ["done"], "repoll": ["failed"]}, "1 chosen RefIds are in another"),
        ({"only": ["x"], "repoll": ["final"]}, "1 chosen RefIds are not in the ledger"),
    ],
)
def test_what_is_chosen_and_not_asked_is_said(choice, words, world):
    """With the remedy, in a line."""
    world.know({"ref_id": "done"})
    world.send(("oa", "new", NOW))
    world.plan(Choice(**choice))
    (line,) = world.skipped.remedies()
    assert words in line
    assert ";" in line


def test_a_choice_that_is_fulfilled_says_nothing(world):
    """No words without need."""
    world.know({"ref_id": "d", "state": "failed", "next_poll_at": NOW})
    world.send(("oa", "new", NOW))
    assert world.plan(Choice(only=["new", "d", "other"]), oa_id="oa") == [
        "d",
        "other",
        "new",
    ]
    assert world.skipped.remedies() == []


def test_the_default_oa_serves_rows_without_one(world):
    """Section 3: oa_id."""
    world.send((None, "a", NOW), ("", "b", NOW), ("own", "c", NOW))
    planned = world.pairs(oa_id="it's")
    assert sorted(planned) == [("it's", "a"), ("it's", "b"), ("own", "c")]


def test_a_default_oa_with_a_quote_serves_chosen_ref_ids_too(world):
    """It goes into SQL as a text."""
    assert world.pairs(Choice(only=["a"]), oa_id="it's") == [("it's", "a")]


def test_the_same_ref_id_twice_under_one_oa_is_one(world):
    """With the earliest sent_at."""
    world.send(("oa", "a", NOW), ("oa", " a ", NOW - HOUR), ("oa", "a", NOW))
    assert world.times() == [NOW - HOUR]


def test_the_same_ref_id_under_two_oas_is_two(world):
    """The key is OA and RefId."""
    world.send(("one", "a", NOW), ("two", "a", NOW))
    world.know({"ref_id": "a", "oa_id": "one"})
    assert world.pairs() == [("two", "a")]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (" a ", "a"),
        ("\ta\n", "a"),
        ("\u00a0a\u3000", "a"),
        ("\ufeffa\u200b", "a"),
        ("ABC", "ABC"),
        ("a b", "a b"),
        ("00123", "00123"),
        ("x" * 10_000, "x" * 10_000),
        ("Đã-gửi", "Đã-gửi"),
        ("it''s", "it's"),
    ],
    ids=lambda text: ascii(text)[:12],
)
def test_a_ref_id_is_opaque_but_for_blanks_around_it(written, read, world):
    """No pattern, no case change: section 1."""
    world.send(("oa", written, NOW))
    assert world.plan() == [read]


def test_case_makes_another_ref_id(world):
    """Two spellings are two RefIds."""
    world.send(("oa", "abc", NOW), ("oa", "ABC", NOW))
    assert sorted(world.plan()) == ["ABC", "abc"]


@pytest.mark.parametrize(
    "kind", ["BIGINT", "UBIGINT", "DECIMAL(20, 0)", "VARCHAR", "HUGEINT"]
)
def test_ids_may_be_numbers(kind, world):
    """An OA of 19 digits keeps every one of them, without a point."""
    world.warehouse.execute(
        f"CREATE TABLE sent AS SELECT '1090257973118325189'::{kind} AS oa_id,"
        f" '29028845'::{kind} AS ref_id"
    )
    world.warehouse.use(oa_id_column="oa_id")
    assert world.pairs() == [("1090257973118325189", "29028845")]


@pytest.mark.parametrize(
    ("kind", "text"), [("DOUBLE", "29028845"), ("DECIMAL(12, 2)", "29028845")]
)
def test_whole_fractions_are_read_as_whole_numbers(kind, text, world):
    """Spreadsheets turn ids into 29028845.0."""
    world.warehouse.execute(f"CREATE TABLE sent AS SELECT {text}::{kind} AS ref_id")
    world.warehouse.use()
    assert world.pairs(oa_id="oa") == [("oa", text)]


@pytest.mark.parametrize("number", ["'nan'", "'infinity'", "1.5"])
def test_a_fraction_that_is_no_id_ends_nothing(number, world):
    """It is asked as it stands, or counted as none."""
    world.warehouse.execute(
        f"CREATE TABLE sent AS SELECT {number}::DOUBLE AS ref_id UNION ALL SELECT 7"
    )
    world.warehouse.use()
    assert "7" in world.plan(oa_id="oa")


def test_a_uuid_is_read_as_text(world):
    """DuckDB and Postgres have a type for it."""
    text = "4a496110-9fd3-4838-ac8b-bcaa36616f70"
    world.warehouse.execute(f"CREATE TABLE sent AS SELECT '{text}'::UUID AS ref_id")
    world.warehouse.use()
    assert world.plan(oa_id="oa") == [text]


# sent_at in all its forms.

JAN_2 = datetime(2026, 1, 2, tzinfo=timezone.utc)
SAIGON = timedelta(hours=7)


@pytest.mark.parametrize(
    ("sql", "zone", "moment"),
    [
        ("DATE '2026-01-02'", "UTC", JAN_2),
        ("DATE '2026-01-02'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("TIMESTAMP '2026-01-02 00:00:00'", "UTC", JAN_2),
        ("TIMESTAMP '2026-01-02 00:00:00'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("TIMESTAMP_S '2026-01-02 00:00:00'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("TIMESTAMP_NS '2026-01-02 00:00:00'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("TIMESTAMPTZ '2026-01-02 00:00:00+00'", "Asia/Ho_Chi_Minh", JAN_2),
        ("TIMESTAMPTZ '2026-01-02 07:00:00+07'", "UTC", JAN_2),
        ("'2026-01-02'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("'2026-01-02 00:00:00'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("'2026-01-02T00:00:00Z'", "Asia/Ho_Chi_Minh", JAN_2),
        ("'2026-01-02T07:00:00+07:00'", "UTC", JAN_2),
        ("'2026-01-02 00:00:00.000'", "UTC", JAN_2),
        ("'02/01/2026 00:00:00'", "UTC", JAN_2),
        ("'02/01/2026 00:00'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("'02/01/2026'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("' 02/01/2026 '", "UTC", JAN_2),
        ("'2026-01-02  '", "UTC", JAN_2),
        ("'2/1/2026 0:00'", "UTC", JAN_2),
        ("'02/01/26'", "UTC", JAN_2),
        ("'02/01/26 00:00'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("'2-1-26 0:00:00'", "UTC", JAN_2),
        ("'02.01.2026 00:00'", "UTC", JAN_2),
        ("'00:00 02/01/2026'", "UTC", JAN_2),
        ("'00:00:00, 2/1/26'", "UTC", JAN_2),
        ("'02/01/2026 12:00:00 SA'", "UTC", JAN_2),
        ("'02/01/2026 01:00:00 CH'", "UTC", JAN_2 + 13 * HOUR),
        ("'02/01/2026T07:00:00+07:00'", "UTC", JAN_2),
        ("'2026-01-02 07:00:00 +07:00'", "UTC", JAN_2),
        ("'2026/01/02 0:00'", "UTC", JAN_2),
        ("'20260102'", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("20260102", "UTC", JAN_2),
        ("1767312000", "Asia/Ho_Chi_Minh", JAN_2),
        ("1767312000000", "UTC", JAN_2),
        ("1767312000.0::DOUBLE", "UTC", JAN_2),
        ("1767312000000::DOUBLE", "UTC", JAN_2),
        ("1767312000000::DECIMAL(18, 2)", "UTC", JAN_2),
        ("'1767312000'", "Asia/Ho_Chi_Minh", JAN_2),
        ("'1767312000000'", "UTC", JAN_2),
        ("'1.767312e9'", "UTC", JAN_2),
        ("'\"2026-01-02 00:00:00\"'::JSON", "Asia/Ho_Chi_Minh", JAN_2 - SAIGON),
        ("'\"02/01/2026\"'::JSON", "UTC", JAN_2),
        ("'1767312000'::JSON", "UTC", JAN_2),
    ],
    ids=ascii,
)
def test_sent_at_is_read_in_every_form(sql, zone, moment, world):
    """Dates and texts too; what names no zone is of sent_at_timezone."""
    world.warehouse.execute(
        f"CREATE TABLE sent AS SELECT 'a' AS ref_id, {sql} AS sent_at"
    )
    world.warehouse.use(sent_at_column="sent_at", sent_at_timezone=zone)
    assert world.times(oa_id="oa") == [moment]


@pytest.mark.parametrize(
    "sql",
    [
        "'soon'",
        "''",
        "'31/31/2026'",
        "NULL::DATE",
        "'infinity'::TIMESTAMP",
        "'-infinity'::TIMESTAMPTZ",
        "'infinity'::DATE",
        "'0044-03-15 (BC)'::DATE",
        "'0026-01-02'::TIMESTAMP",
        "TIMESTAMP '1999-12-31 23:59:59'",
        "TIMESTAMP '2027-03-15 00:00:00'",
        "'31/10/75'",
        "12",
        "true",
        "1e300",
    ],
    ids=ascii,
)
def test_a_sent_at_that_is_no_time_is_counted_and_asked_with_none(sql, world):
    """Where the whole table is compared, as it is here: there is no ledger yet."""
    world.warehouse.execute(
        f"CREATE TABLE sent AS SELECT 'a' AS ref_id, {sql} AS sent_at"
    )
    world.warehouse.use(sent_at_column="sent_at")
    assert world.times(oa_id="oa") == [None]
    assert counted(world.skipped) == (0, 0, 1)


@pytest.mark.parametrize(
    ("sent_at", "shown"),
    [("31/31/2026", "'31/31/2026'"), ("0909090909", "'090…'"), (None, "RefId a…")],
)
def test_an_example_of_what_cannot_be_read_shows_no_phone(sent_at, shown, world):
    """A date is shown; the column may hold phones by mistake."""
    world.warehouse.execute("CREATE TABLE sent (ref_id VARCHAR, sent_at VARCHAR)")
    text = "NULL" if sent_at is None else f"'{sent_at}'"
    world.warehouse.execute(f"INSERT INTO sent VALUES ('a', {text})")
    world.warehouse.use(sent_at_column="sent_at")
    world.plan(oa_id="oa")
    assert shown in world.skipped.remedies()[0]


# What is carried, and what planning says.


def test_carried_columns_come_along(world):
    """Campaign, template: further columns, each in its type."""
    world.warehouse.execute(
        "CREATE TABLE sent AS SELECT 'a' AS ref_id, 'tet' AS \"Chiến dịch\", 7 AS n,"
        " TIMESTAMP '2026-01-02 00:00:00' AS planned, 1.50::DECIMAL(9, 2) AS price,"
        " [1, 2] AS list"
    )
    world.warehouse.use(
        carry=["Chiến dịch", "N", "planned", "price", "list"],
        sent_at_timezone="Asia/Ho_Chi_Minh",
    )
    world.plan(oa_id="oa")
    (row,) = world.table.to_pylist()
    carried = [value for name, value in row.items() if name not in KNOWN]
    assert carried[:2] == ["tet", 7]
    assert carried[2].astimezone(timezone.utc) == JAN_2 - SAIGON
    assert carried[3:] == [Decimal("1.50"), "[1,2]"]


def test_slices_have_one_schema_whatever_they_hold():
    """DuckDB may mark a column without nulls as such; dlt loads no two schemas."""
    marked = pa.schema([*WORK, pa.field("campaign", pa.string(), nullable=False)])
    row = dict.fromkeys(WORK.names) | {"campaign": "tet"}
    folder = TemporaryDirectory()
    plan = made_plan(folder, [0], 1)
    work = pa.Table.from_pylist([row], marked)
    parquet.write_table(work, Path(folder.name, "work.parquet"))
    (page,) = plan.pages()
    plan.close()
    assert page.schema.field("campaign").nullable
    assert page.schema.names == marked.names


def made_plan(folder, cuts, total):
    """Return a plan of a work list that lies in a folder."""
    return Plan(
        total,
        Skipped(),
        (),
        is_first=False,
        compared_all=False,
        cuts=tuple(cuts),
        _folder=folder,
    )


@given(groups=st.lists(st.integers(1, 5), min_size=1), size=st.integers(1, 7))
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_slices_hold_all_in_order_whatever_the_pages(make_settings, groups, size):
    """All slices but the last are full; a page is no larger than it was written."""
    total = sum(groups)
    blank = dict.fromkeys(WORK.names) | {"oa_id": "oa"}
    rows = [blank | {"ref_id": str(no)} for no in range(total)]
    work = pa.Table.from_pylist(rows, WORK)
    folder = TemporaryDirectory()
    with parquet.ParquetWriter(Path(folder.name, "work.parquet"), WORK) as writer:
        for end, rows_in_group in zip(accumulate(groups), groups, strict=True):
            writer.write_table(work.slice(end - rows_in_group, rows_in_group))
    cutter = Cutter(make_settings(batch_size=2), size, NOW)
    (counted,) = cutter.count(work_in(folder)).values()
    plan = made_plan(folder, cutter.cuts, total)
    slices = [pa.concat_tables(pages) for pages in plan.slices()]
    plan.close()
    assert [len(table) for table in slices[:-1]] == [size] * (len(slices) - 1)
    assert counted.requests == sum(-(-len(table) // 2) for table in slices)
    assert pa.concat_tables(slices) == work


KNOWN = WORK.names


@pytest.mark.parametrize(
    "carry", [["state"], ["ref_id"], ["campaign", "Campaign"], ["load_id"]]
)
def test_a_carried_column_may_not_shadow_another(carry, world):
    """It is refused with the remedy."""
    world.send(("oa", "a", NOW))
    with pytest.raises(ConfigError, match="carry"):
        world.plan(ref_ids={"carry": carry})


def test_a_plan_tells_per_oa_what_it_would_do(world):
    """New, due, settled, waiting, requests of two."""
    world.know(
        {"ref_id": "a", "oa_id": "one"},
        {"ref_id": "b", "oa_id": "one", "state": "failed", "next_poll_at": NOW},
        {"ref_id": "c", "oa_id": "one", "state": "missing", "next_poll_at": NOW + HOUR},
        {"ref_id": "d", "oa_id": "two", "state": "expired"},
    )
    world.send(("one", "e", NOW), ("one", "f", NOW), ("three", "g", NOW))
    world.plan(batch_size=2)
    assert world.oas == [
        OaPlan("one", new=2, due=1, settled=1, waiting=1, requests=2),
        OaPlan("three", new=1, due=0, settled=0, waiting=0, requests=1),
        OaPlan("two", new=0, due=0, settled=1, waiting=0, requests=0),
    ]


def test_a_plan_of_at_most_so_many_counts_no_more(world):
    """What is due and left out isn't waiting: its time has come."""
    world.know(
        {"ref_id": "a", "oa_id": "one", "state": "failed", "next_poll_at": NOW},
        {"ref_id": "b", "oa_id": "one", "state": "failed", "next_poll_at": NOW},
    )
    world.send(("one", "a", NOW))
    world.plan(Choice(max_ref_ids=1))
    assert world.oas == [OaPlan("one", new=0, due=1, settled=0, waiting=0, requests=1)]


def test_what_may_be_queried_fills_a_slice_by_the_time_it_takes(world):
    """Two queries take as long as the rest of it; what isn't late enough takes none."""
    long_ago = {"state": "missing", "first_polled_at": NOW - HOUR, "next_poll_at": NOW}
    world.know(
        *({"ref_id": str(number), "oa_id": "oa"} | long_ago for number in range(5)),
        {"ref_id": "new", "oa_id": "oa"} | long_ago | {"first_polled_at": NOW},
        {"ref_id": "other", "oa_id": "oa"} | long_ago | {"state": "failed"},
    )
    world.send(("oa", "new", NOW - DAY))
    asking = {
        "ask_missing": True,
        "rest_base_url": "http://127.0.0.1:9",
        "batch_size": 1,
        "requests_per_second": 2,
        "query_requests_per_second": 1,
    }
    world.plan(**asking)
    (planned,) = world.oas
    # One query and one more RefId, where nothing is queried three.
    assert (planned.due, planned.queries, planned.requests) == (7, 5, 7)
    assert world.slices == [1, 1, 1, 1, 2, 1]
    world.plan(**asking | {"ask_missing": False})
    assert world.oas[0].queries == 0
    assert world.slices == [3, 3, 1]


def test_an_empty_table_plans_nothing(world):
    """No rows are no error."""
    world.send()
    assert world.plan() == []
