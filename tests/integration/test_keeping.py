"""Commands on what is loaded, and runs that stay."""

from __future__ import annotations

import csv
import gc
import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from esms_source import sync
from esms_source.simulator import sample_row
from tests.conftest import ref_id
from tests.integration.test_postgres import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Hostile, Output, Warehouse
    from tests.integration.conftest import Esms

COUNT = "SELECT state, count(*) AS messages FROM ref_ids GROUP BY state"


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def argv(
    request: pytest.FixtureRequest, esms: Esms, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Let the commands load into a database of each kind."""
    if request.param == "duckdb":
        return []
    url = request.getfixturevalue("postgres")
    Server(url, monkeypatch).execute("DROP SCHEMA IF EXISTS zalo CASCADE")
    esms.set(DESTINATION__POSTGRES__CREDENTIALS=url)
    return ["--destination", "postgres"]


def test_a_query_finds_tables_and_views_by_their_bare_names(
    argv: list[str], esms: Esms, world: Callable[..., Simulator], tmp_path: Path
) -> None:
    """As a table, as JSON and as CSV."""
    world(7)
    assert esms("run", *argv).status == 0
    assert "7" in esms("query", COUNT, *argv).out
    found = json.loads(esms("query", COUNT, "--json", *argv).out)
    assert found == [{"state": "final", "messages": 7}]
    file = tmp_path / "days.csv"
    said = esms("query", "SELECT * FROM delivery_daily", "--csv", str(file), *argv)
    assert (said.status, said.out) == (0, f"1 rows in {file}\n"), said.err
    with file.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert row["sent"] == "7"


def test_a_query_that_is_wrong_is_said_in_one_line(
    argv: list[str], esms: Esms, world: Callable[..., Simulator], output: Output
) -> None:
    """Exit code 2; where nothing is loaded, no file is made by looking."""
    empty = esms("query", "SELECT 1", *argv)
    assert empty.status == 1
    assert "nothing is loaded into the dataset 'zalo'" in empty.err
    assert not output.path.exists()
    world(1)
    assert esms("run", *argv).status == 0
    for sql in ("SELEC 1", "SELECT nothing FROM ref_ids", "SELECT * FROM nowhere"):
        wrong = esms("query", sql, *argv)
        assert (wrong.status, wrong.out) == (2, ""), wrong.err
        assert len(wrong.err.splitlines()) == 1
        assert "the SQL is refused" in wrong.err


def test_a_file_that_cannot_be_written_is_said(
    esms: Esms, world: Callable[..., Simulator]
) -> None:
    """With what to choose instead."""
    world(1)
    assert esms("run").status == 0
    ended = esms("query", "SELECT 1", "--csv", "/nowhere/x.csv")
    assert (ended.status, ended.out) == (2, "")
    assert "choose another --csv" in ended.err


def test_what_is_settled_by_hand_is_never_asked_again(
    argv: list[str], esms: Esms, world: Callable[..., Simulator], tmp_path: Path
) -> None:
    """Known to the ledger or not; --repoll expired asks all the same."""
    ids = [ref_id(number) for number in range(6)]
    world(6, scripted=dict.fromkeys(ids[:4], ()))
    esms.set(repoll_after=0)
    assert esms("run", "--max-ref-ids", "5", *argv).status == 0
    before = _states(esms, argv)
    file = tmp_path / "gone.csv"
    file.write_text("ref_id\n" + "\n".join([*ids, "stranger"]) + "\n")
    esms.set(oa_id="oa0")
    settled = esms("settle", "--ref-ids", str(file), *argv)
    assert settled.status == 0, settled.err
    final = before.get("final", 0)
    assert settled.out == f"{7 - final} RefIds are never asked again\n"
    after = _states(esms, argv)
    assert after == {"expired": 7 - final} | ({"final": final} if final else {})
    assert esms("run", "--json", *argv).report["asked"] == 0
    assert esms("settle", "--ref-ids", str(file), *argv).out.startswith("0 RefIds")
    again = esms("run", "--json", "--repoll", "expired", *argv)
    assert again.report["asked"] == 7 - final


def _states(esms: Esms, argv: list[str]) -> dict[str, int]:
    found = json.loads(esms("query", COUNT, "--json", *argv).out)
    return {row["state"]: row["messages"] for row in found}


@pytest.mark.parametrize("policy", ["plain", "hash"])
def test_a_person_is_taken_out_of_every_table(
    policy: str,
    argv: list[str],
    esms: Esms,
    world: Callable[..., Simulator],
    warehouse: Warehouse,
) -> None:
    """In whatever form the phone stands there; nobody asks for the messages again."""
    phone, tail = "84901234567", "901234567"
    ending = f"{ref_id(9)}{tail}"
    rows: dict[str, Any] = {
        ref_id(0): [sample_row(ref_id(0), PhoneNumber=phone)],
        ref_id(1): [sample_row(ref_id(1), PhoneNumber=f"0{tail}"), {"X": f"0{tail}"}],
        ref_id(2): [sample_row(ref_id(2), Note=f"+84 0{tail}")],
        ending: [sample_row(ending)],
    }
    simulator = world(5, scripted=rows)
    warehouse.execute(f"INSERT INTO sent SELECT 'oa0', '{ending}', now(), 'tet'")
    esms.set(ref_ids__carry='["campaign"]', phone_number=policy, phone_hash_key="k")
    assert esms("run", *argv).status == 0
    forgotten = esms("forget", "--phone", f"0{tail}", *argv)
    assert forgotten.status == 0, forgotten.err
    assert forgotten.out.splitlines() == [
        "ref_ids: 3 rows",
        "callbacks: 4 rows",
        "rejected_rows: 1 rows",
        "sent_messages: 0 rows",
    ]
    for table in ("ref_ids", "callbacks", "rejected_rows", "api_requests", "messages"):
        for schema in ("zalo", "zalo_staging_esms"):
            found = esms("query", f"SELECT * FROM {schema}.{table}", "--json", *argv)
            for word in (tail, ref_id(0), ref_id(1)):
                assert word not in found.out, (schema, table)
    kept = "SELECT count(*) AS n FROM ref_ids WHERE last_error = 'forgotten' AND"
    blank = esms("query", f"{kept} campaign IS NULL", "--json", *argv)
    assert json.loads(blank.out) == [{"n": 3}]
    asked = simulator.arrivals.asks.total()
    assert esms("run", "--all", *argv).status == 0
    again = esms("run", "--json", "--repoll", "expired", *argv)
    assert (again.status, again.report["asked"]) == (0, 0)
    assert simulator.arrivals.asks.total() == asked
    assert "0 of them not in the ledger" in esms("check", *argv).out


def test_forgetting_wants_to_know_whom(esms: Esms, tmp_path: Path) -> None:
    """A piece of a phone would take out others."""
    assert esms("forget").status == 2
    short = esms("forget", "--phone", "0909")
    assert short.status == 2
    assert "fewer than 9 digits" in short.err


def test_old_requests_go(
    argv: list[str], esms: Esms, world: Callable[..., Simulator]
) -> None:
    """And old rejected rows and runs; callbacks and the ledger stay."""
    world(3)
    assert esms("run", *argv).status == 0
    for table, column in (("api_requests", "started_at"), ("runs", "started_at")):
        esms("query", f"UPDATE {table} SET {column} = '2026-01-01 00:00:00+00'", *argv)
    esms.set(keep_requests=30)
    assert esms("run", "--repoll", "final", *argv).status == 0
    for table, rows in (("api_requests", 1), ("runs", 1), ("callbacks", 3)):
        found = json.loads(
            esms("query", f"SELECT count(*) AS n FROM {table}", "--json", *argv).out
        )
        assert found == [{"n": rows}], table


@pytest.mark.parametrize("days", ["0", "-1", "nan", "x"])
def test_days_that_make_no_sense_are_refused(days: str, esms: Esms) -> None:
    """Before anything is read."""
    ended = esms(keep_requests=days)
    assert ended.status == 2
    assert "keep_requests" in ended.err


def test_a_run_says_what_waits(esms: Esms, world: Callable[..., Simulator]) -> None:
    """And when the next one is due."""
    world(3, scripted={ref_id(0): []})
    assert "1 RefIds wait, the next is due at 20" in esms("run").out
    assert esms().report["waiting"] == 1


def test_a_run_logs_what_it_does(esms: Esms, world: Callable[..., Simulator]) -> None:
    """With --verbose, on stderr; with --quiet nothing but errors."""
    world(3)
    loud = esms("--verbose", "run", "--json")
    assert loud.report["asked"] == 3
    assert "3 RefIds to ask in 1 requests" in loud.err
    assert "asked 3 RefIds: 3 answered, 0 missing, 0 failed" in loud.err
    assert esms("--quiet", "run", "--json").err == ""


def test_rounds_go_on_until_a_signal(
    esms: Esms,
    world: Callable[..., Simulator],
    warehouse: Warehouse,
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    """New rows are found, the file is free between rounds, and the exit code is 0."""
    simulator = world(3)
    running = esms.start("run", "--json", "--every", "1")
    wait_until(lambda: simulator.arrivals.asks.total() == 3)
    warehouse.fill(2, start=3)
    wait_until(lambda: simulator.arrivals.asks.total() == 5)
    wait_until(lambda: _is_free(esms))
    running.send(signal.SIGTERM)
    ended = running.wait()
    assert ended.status == 0, ended.err
    assert "stopped by SIGTERM" in ended.err
    assert simulator.arrivals.asks.total() == 5


def _is_free(esms: Esms) -> bool:
    try:
        duckdb.connect(esms.folder / "out.duckdb").close()
    except duckdb.IOException:
        return False
    return True


def test_a_failing_round_is_tried_again_and_a_refused_key_ends_all(
    esms: Esms,
    warehouse: Warehouse,
    hostile: Callable[..., Hostile],
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    """And a Retry-After that is too long to wait for is remembered."""
    warehouse.fill(3)
    refusals: list[Any] = [(403, {}, b"")] * 3
    refusals.append((503, {"Retry-After": "301"}, b""))
    server = hostile(lambda number, _: refusals[min(number, len(refusals)) - 1])
    running = esms.start("run", "--every", "1", base_url=server.url, max_in_flight=1)
    wait_until(lambda: len(server.asked) >= 4)
    wait_until(lambda: "run again after" in running.said())
    time.sleep(2)
    assert len(server.asked) == 4
    running.send(signal.SIGINT)
    assert running.wait().status == 0
    key = hostile(lambda *_: json.dumps({"Code": "101"}).encode())
    ended = esms("run", "--every", "1", base_url=key.url)
    assert ended.status == 1
    assert len(key.asked) == 1


def test_rounds_keep_nothing_of_each_other(
    esms: Esms,
    world: Callable[..., Simulator],
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process may stay for years: what a round makes is gone with it."""
    world(3)
    for name, value in esms.env.items():
        monkeypatch.setenv(name, value)
    pipeline = output.pipeline()

    def objects_after_rounds() -> Counter[type]:
        for _ in range(3):
            sync(pipeline)
        gc.collect()
        return Counter(map(type, gc.get_objects()))

    objects_after_rounds()
    before = objects_after_rounds()
    more = objects_after_rounds() - before
    theirs = ("dlt.", "duckdb.", "esms_source.", "importlib.")
    kept = {
        kind: n for kind, n in more.items() if str(kind.__module__).startswith(theirs)
    }
    assert not kept
