from __future__ import annotations

import json
import subprocess
import sys

import dlt
import pytest

from esms_source import sync
from esms_source.exceptions import (
    ConfigError,
    CredentialsError,
    DestinationError,
    OutageError,
    PipelineBusyError,
    StoppedError,
)
from esms_source.polling.backoff import Backoff
from esms_source.runtime import Stop
from esms_source.simulator import sample_row

TABLES = ("ref_ids", "callbacks", "api_requests", "rejected_rows")
SUMS = (
    "SELECT sum(asked), sum(answered), sum(missing), sum(failed)"
    " FROM api_requests WHERE outcome <> 'split'"
)


@pytest.fixture
def run(output, api_key, secret_key):
    """Sync against a simulator, quickly."""
    hasty = Backoff(whole=0.001, part=0.001, refused=0.02)

    def one(simulator, *, pipeline=None, **more):
        fast = {
            "api_key": api_key,
            "secret_key": secret_key,
            "base_url": simulator.url,
            "requests_per_second": 2_000,
            "max_in_flight": 8,
        }
        return sync(pipeline or output.pipeline(), backoff=hasty, **(fast | more))

    return one


def assert_the_books_balance(output, simulator):
    """Section 5: the sums of requests, ledger and server agree."""
    assert not output.rows(
        "FROM api_requests SELECT 1 WHERE asked <> answered + missing + failed"
    )
    (attempts,) = output.rows("SELECT sum(attempts)::BIGINT FROM api_requests")
    assert attempts == simulator.arrivals.requests
    assert not output.rows(
        "SELECT oa_id, ref_id FROM ref_ids GROUP BY ALL HAVING count(*) > 1"
    )


def assert_the_types_are_those_promised(output):
    """Section 5: bigint, decimal(18,4), JSON, and timestamptz for all times."""
    types = dict(
        output.rows(
            "SELECT table_name || '.' || column_name, data_type"
            " FROM information_schema.columns WHERE table_schema = 'zalo'"
        )
    )
    assert types["callbacks.total_price"] == "DECIMAL(18,4)"
    assert types["callbacks.send_status"] == types["ref_ids.attempts"] == "BIGINT"
    assert types["callbacks.extra"] == types["rejected_rows.row"] == "JSON"
    times = {
        kind
        for name, kind in types.items()
        if name.endswith("_at") and name.split(".")[0] in TABLES
    }
    assert times == {"TIMESTAMP WITH TIME ZONE"}


def test_an_empty_warehouse_makes_empty_tables_once(run, warehouse, simulate, output):
    """There is nothing to ask, and SQL on the tables works all the same."""
    warehouse.fill(0)
    simulator = simulate()
    first, second = run(simulator), run(simulator)
    assert (first.planned, first.asked, len(first.loads)) == (0, 0, 1)
    assert (second.planned, second.asked, second.loads) == (0, 0, ())
    assert simulator.arrivals.requests == 0
    assert output.rows("SELECT count(*) FROM ref_ids") == [0]
    assert output.rows("SELECT count(*) FROM messages") == [0]


def test_the_first_run_makes_all_tables_and_asks_everything(
    run, warehouse, simulate, output
):
    """Rows for every RefId, a ledger, and sums that agree."""
    warehouse.fill(450, oas=2)
    simulator = simulate()
    report = run(simulator)
    assert (report.planned, report.asked, report.answered) == (450, 450, 450)
    assert (report.missing, report.failed, report.rejected, report.left) == (0, 0, 0, 0)
    assert report.requests == report.attempts == simulator.arrivals.requests == 4
    assert {"plan", "ask", "load"} <= set(report.seconds)
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1") == [
        ("final", 450)
    ]
    assert output.rows("SELECT count(*), count(DISTINCT ref_id) FROM callbacks") == [
        (450, 450)
    ]
    assert [int(n) for n in output.rows(SUMS)[0]] == [450, 450, 0, 0]
    assert_the_books_balance(output, simulator)
    assert_the_types_are_those_promised(output)


def test_a_second_run_asks_only_what_is_due(run, warehouse, simulate, output):
    """What a cap left, and what is new; rows that can't be asked are counted."""
    warehouse.fill(50)
    warehouse.use(oa_id_column="oa_id", sent_at_column="sent_at", carry=["campaign"])
    simulator = simulate()
    assert run(simulator, max_ref_ids=30).asked == 30
    warehouse.fill(7, start=50)
    warehouse.execute(
        "INSERT INTO sent VALUES ('oa0', ' ', now(), ''), ('', 'x', now(), '')",
        "INSERT INTO sent SELECT 'oa9', ref_id, sent_at, campaign FROM sent"
        " WHERE oa_id = 'oa0' ORDER BY sent_at LIMIT 1",
    )
    report = run(simulator)
    assert report.asked == 28
    assert (report.skipped.no_ref_id, report.skipped.no_oa_id) == (1, 1)
    assert run(simulator).asked == 0
    assert set(simulator.arrivals.asks.values()) == {1}
    assert output.rows("SELECT count(DISTINCT campaign) FROM ref_ids") == [3]
    assert output.rows("SELECT count(*) FROM callbacks WHERE oa_id = 'oa9'") == [1]


def test_an_odd_world_balances(run, warehouse, simulate, output):
    """Fates and faults of every kind, three runs, and the sums still agree."""
    warehouse.fill(1_200, oas=3)
    simulator = simulate(
        plain=False,
        seed=5,
        faults="500=0.05,drop=0.05,cut=0.05,html=0.03,429=0.02,huge_gzip=0.01",
    )
    total = 0
    for _ in range(3):
        report = run(simulator, batch_size=20, repoll_after=0)
        total += report.asked
        assert report.asked == report.answered + report.missing + report.failed
    asked, answered, missing, failed = map(int, output.rows(SUMS)[0])
    assert asked == total == answered + missing + failed
    assert_the_books_balance(output, simulator)
    (attempts,) = output.rows("SELECT sum(attempts)::BIGINT FROM ref_ids")
    assert attempts == total
    assert output.rows("SELECT count(*) FROM ref_ids") == [1_200]
    assert output.rows(
        "SELECT count(*) FROM ref_ids WHERE state IN ('final', 'pending')"
        " AND ref_id NOT IN (SELECT ref_id FROM callbacks)"
    ) == [0]
    (rejected,) = output.rows("SELECT sum(rejected)::BIGINT FROM api_requests")
    assert output.rows("SELECT count(*) FROM rejected_rows") == [rejected]
    assert rejected > 0


def test_rows_of_a_ref_id_are_replaced_as_a_whole(run, warehouse, simulate, output):
    """Two rows, then one: one stays."""
    warehouse.fill(2)
    first, other = warehouse.rows("SELECT ref_id FROM sent ORDER BY sent_at")

    def script(ref_id, times):
        waiting = sample_row(ref_id, SendStatus=2, SendSuccess=0)
        return [waiting, waiting] if times == 1 else [sample_row(ref_id)]

    simulator = simulate(scripted={first: script})
    run(simulator, repoll_after=0)
    count = f"SELECT count(*) FROM callbacks WHERE ref_id = '{first}'"
    assert output.rows(count) == [2]
    run(simulator, repoll_after=0)
    assert output.rows(count) == [1]
    assert output.rows(
        "SELECT ref_id, state, attempts FROM ref_ids ORDER BY sent_at"
    ) == [
        (first, "final", 2),
        (other, "final", 1),
    ]


def test_a_final_answer_survives_a_later_one_that_is_not(
    run, warehouse, simulate, output
):
    """Asked again by choice, an answer that went back or is gone changes nothing."""
    warehouse.fill(2)
    back, gone = warehouse.rows("SELECT ref_id FROM sent ORDER BY sent_at")

    def go_back(ref_id, times):
        return [sample_row(ref_id, SendStatus=5 if times == 1 else 2, TotalSent=times)]

    def go(ref_id, times):
        return [sample_row(ref_id)] if times == 1 else []

    simulator = simulate(scripted={back: go_back, gone: go})
    run(simulator)
    assert run(simulator, repoll=["final"]).asked == 2
    assert output.rows("SELECT delivery, total_sent FROM callbacks") == [
        ("delivered", 1),
        ("delivered", 1),
    ]
    assert output.rows("SELECT DISTINCT state, attempts FROM ref_ids") == [("final", 2)]


def test_missing_waits_and_expires(run, warehouse, simulate, output):
    """Asked again after its wait, given up after give_up_after."""
    warehouse.fill(1)
    (ref_id,) = warehouse.rows("SELECT ref_id FROM sent")
    simulator = simulate(scripted={ref_id: []})
    assert run(simulator).missing == 1
    assert output.rows("SELECT state FROM ref_ids") == ["missing"]
    assert run(simulator).asked == 0
    output.execute("UPDATE ref_ids SET next_poll_at = now() - INTERVAL 1 HOUR")
    assert run(simulator, give_up_after=0).missing == 1
    assert output.rows("SELECT state, next_poll_at FROM ref_ids") == [("expired", None)]
    assert run(simulator, repoll_after=0).asked == 0


def test_a_column_may_be_carried_later(run, warehouse, simulate, output):
    """A ledger without it gets it."""
    warehouse.fill(2)
    simulator = simulate()
    run(simulator)
    warehouse.fill(2, start=2)
    warehouse.use(oa_id_column="oa_id", sent_at_column="sent_at", carry=["campaign"])
    run(simulator)
    assert output.rows("SELECT campaign FROM ref_ids ORDER BY sent_at") == [
        None,
        None,
        "c2",
        "c0",
    ]


def test_a_second_run_takes_new_rows_with_what_they_carry(
    run, simulate, warehouse, output
):
    """Tables that dlt knows from the first run take rows of a second one."""
    warehouse.fill(10)
    warehouse.use(oa_id_column="oa_id", sent_at_column="sent_at", carry=["campaign"])
    run(simulate())
    warehouse.execute("INSERT INTO sent VALUES ('oa0', 'late', now(), 'tet')")
    assert run(simulate()).asked == 1
    rows = output.rows("SELECT campaign FROM ref_ids WHERE ref_id = 'late'")
    assert rows == ["tet"]


# Slices.


def test_slices_are_loads_of_their_own(run, warehouse, simulate, output):
    """Each is durable, and in one sync a RefId is asked at most once.

    That holds for what is due again before the sync ends, too.
    """
    warehouse.fill(50)
    ids = warehouse.rows("SELECT ref_id FROM sent ORDER BY sent_at")
    simulator = simulate(scripted=dict.fromkeys(ids[:30], ()))
    report = run(simulator, slice_ref_ids=25, batch_size=10, repoll_after=0)
    assert len(report.loads) == 2
    assert output.rows("SELECT count(DISTINCT load_id) FROM ref_ids") == [2]
    assert set(simulator.arrivals.asks.values()) == {1}


# Choices.


def test_no_choice_hides_a_ref_id_from_a_later_run(run, warehouse, simulate, output):
    """Every choice, then a plain run: all were asked."""
    warehouse.fill(40, oas=4)
    newest = warehouse.rows("SELECT ref_id FROM sent ORDER BY sent_at DESC LIMIT 3")
    warehouse.execute(
        "UPDATE sent SET sent_at = sent_at - INTERVAL 90 DAY WHERE sent_at <"
        " (SELECT median(sent_at) FROM sent)"
    )
    simulator = simulate()
    assert run(simulator, ref_ids=newest).asked == 3
    run(simulator, oa_ids=["oa1"], max_ref_ids=5)
    run(simulator)
    assert output.rows("SELECT count(*) FROM ref_ids") == [40]
    assert len(simulator.arrivals.asks) == 40


def test_a_choice_of_no_ref_ids_asks_none(run, warehouse, simulate):
    """An empty list is no permission for everything."""
    warehouse.fill(5)
    simulator = simulate()
    assert run(simulator, ref_ids=[]).asked == 0
    assert simulator.arrivals.requests == 0


# What goes wrong.


def test_a_refused_key_stops_and_keeps_what_was_answered(
    run, warehouse, simulate, output
):
    """Exit 1 with the remedy; what came before is loaded."""
    warehouse.fill(30)
    simulator = simulate(faults="refuse_key_after=4")
    with pytest.raises(CredentialsError, match="api_key") as caught:
        run(simulator, batch_size=5, max_in_flight=1)
    assert simulator.arrivals.requests == 4
    assert caught.value.report.answered == 15
    assert output.rows("SELECT count(*) FROM callbacks") == [15]
    healthy = simulate()
    assert run(healthy).asked == 15
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1") == [
        ("final", 30)
    ]


def test_a_refused_oa_fails_and_is_asked_again(run, warehouse, simulate, output):
    """Its RefIds become failed, with the reason; the others go on."""
    warehouse.fill(20, oas=2)
    simulator = simulate(refused_oas=frozenset({"oa1"}))
    report = run(simulator)
    assert (report.answered, report.failed) == (10, 10)
    (error,) = output.rows(
        "SELECT DISTINCT last_error FROM ref_ids WHERE state = 'failed'"
    )
    assert "204" in error
    assert output.rows("SELECT DISTINCT oa_id FROM ref_ids WHERE state = 'failed'") == [
        "oa1"
    ]
    assert output.rows("SELECT outcome FROM api_requests WHERE oa_id = 'oa1'") == [
        "refused"
    ]


def test_a_poisonous_ref_id_fails_alone(run, warehouse, simulate, output):
    """Split requests stand in the table and in no sum."""
    warehouse.fill(40)
    poison = warehouse.rows("SELECT ref_id FROM sent")[17]
    simulator = simulate(faults=f"poison={poison}")
    report = run(simulator, max_attempts=2)
    assert (report.asked, report.answered, report.failed) == (40, 39, 1)
    assert output.rows("SELECT ref_id FROM ref_ids WHERE state = 'failed'") == [poison]
    assert [int(n) for n in output.rows(SUMS)[0]] == [40, 39, 0, 1]
    assert output.rows(
        "SELECT count(*) > 3 FROM api_requests WHERE outcome = 'split'"
    ) == [True]
    assert_the_books_balance(output, simulator)


def test_an_outage_ends_the_run_and_loses_nothing(run, warehouse, simulate, output):
    """What failed is asked again by the next run."""
    warehouse.fill(200)
    with pytest.raises(OutageError):
        run(simulate(faults="503=1"), batch_size=2, max_attempts=1)
    assert output.rows("SELECT DISTINCT state FROM ref_ids") == ["failed"]
    output.execute("UPDATE ref_ids SET next_poll_at = now() - INTERVAL 1 HOUR")
    run(simulate())
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1") == [
        ("final", 200)
    ]


def test_a_stop_ends_the_run_in_order(run, warehouse, simulate, output):
    """What was answered is loaded; the rest is due at once."""
    warehouse.fill(60)
    stop = Stop()

    def hook(number, *_):
        if number == 3:
            stop(StoppedError("stopped by a signal"))

    simulator = simulate(on_request=hook)
    with pytest.raises(StoppedError) as caught:
        run(simulator, stop=stop, batch_size=5, max_in_flight=1)
    assert (
        caught.value.report.answered == output.rows("SELECT count(*) FROM callbacks")[0]
    )
    assert simulator.arrivals.requests <= 4
    run(simulator)
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1") == [
        ("final", 60)
    ]
    assert set(simulator.arrivals.answers.values()) == {1}


def test_a_dataset_may_not_bear_the_name_of_its_file(
    run, warehouse, simulate, tmp_path
):
    """Refused with the remedy before anything is asked."""
    warehouse.fill(1)
    simulator = simulate()
    pipeline = dlt.pipeline(
        "esms",
        destination=dlt.destinations.duckdb(str(tmp_path / "zalo.duckdb")),
        dataset_name="zalo",
        pipelines_dir=str(tmp_path / "pipelines"),
    )
    with pytest.raises((ConfigError, DestinationError), match="zalo"):
        run(simulator, pipeline=pipeline)
    assert simulator.arrivals.requests == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"batch_size": 0},
        {"api_key": " "},
        {"nonsense": 1},
        {"ref_ids": {"table": "sent", "carry": ["state"]}},
        {"oa_ids": "oa0"},
        {"repoll": "failed"},
    ],
    ids=ascii,
)
def test_a_bad_setting_is_refused_before_anything_is_asked(
    bad, run, warehouse, simulate, output
):
    """Nothing is read, asked or written."""
    warehouse.fill(1)
    simulator = simulate()
    with pytest.raises(ConfigError):
        run(simulator, **bad)
    assert simulator.arrivals.requests == 0
    assert not output.path.exists()


SECOND = """
import dlt, sys
from esms_source import sync
from esms_source.exceptions import PipelineBusyError
pipeline = dlt.pipeline(
    "esms",
    destination=dlt.destinations.duckdb(sys.argv[1]),
    dataset_name="zalo",
    pipelines_dir=sys.argv[2],
)
try:
    sync(pipeline, api_key="a", secret_key="b", ref_ids=["x"], oa_id="o")
except PipelineBusyError as exc:
    print(exc)
"""


def test_a_second_sync_of_a_pipeline_ends_at_once(run, warehouse, simulate, output):
    """With a clear message, in this process and in another, while the first goes on."""
    warehouse.fill(3)
    busy: list[object] = []

    def hook(*_):
        try:
            run(simulator, ref_ids=["x"], oa_id="o")
        except PipelineBusyError as exc:
            busy.append(exc)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                SECOND,
                output.path,
                output.path.parent / "pipelines",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        busy.append(done.stdout + done.stderr)

    simulator = simulate(on_request=hook)
    assert run(simulator, read_timeout=60).asked == 3
    assert "another run holds the pipeline 'esms'" in str(busy[0])
    assert busy[1] == f"{busy[0]}\n"
    assert simulator.arrivals.requests == 1


OTHER_PROCESS = """
import duckdb, sys
for path in sys.argv[1:]:
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS touched (n INTEGER)")
print("open")
"""


def test_no_file_is_held_open_while_the_api_is_asked(run, warehouse, simulate, output):
    """Another process opens both files read-write in the middle: section 6.8."""
    warehouse.fill(1)
    run(simulate())
    warehouse.fill(20, start=1)
    told: list[str] = []

    def hook(number, *_):
        if number == 2:
            done = subprocess.run(
                [sys.executable, "-c", OTHER_PROCESS, warehouse.path, output.path],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            told.append(done.stdout + done.stderr)

    simulator = simulate(latency=0.2, on_request=hook)
    report = run(simulator, batch_size=5, max_in_flight=2, read_timeout=60)
    assert report.asked == 20
    assert told == ["open\n"]


def test_a_pending_load_is_finished_first(
    run, warehouse, simulate, output, monkeypatch
):
    """A crash between asking and loading costs no answer."""
    warehouse.fill(10)
    simulator = simulate()
    with monkeypatch.context() as patch:

        def crash(*_args, **_more):
            raise KeyboardInterrupt

        patch.setattr("dlt.Pipeline.load", crash)
        with pytest.raises(KeyboardInterrupt):
            run(simulator)
    assert simulator.arrivals.requests == 1
    report = run(simulator)
    assert report.asked == 0
    assert simulator.arrivals.requests == 1
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1") == [
        ("final", 10)
    ]
    assert output.rows("SELECT count(*) FROM callbacks") == [10]


def test_rejected_rows_stand_once_though_a_load_is_repeated(
    run, warehouse, simulate, output
):
    """Section 5: once, also when a load is repeated."""
    warehouse.fill(1)
    (ref_id,) = warehouse.rows("SELECT ref_id FROM sent")
    stray = [sample_row(ref_id), sample_row("stranger"), None, "text"]
    run(simulate(scripted={ref_id: stray}))
    reasons = "SELECT reason, count(*) FROM rejected_rows GROUP BY 1 ORDER BY 1"
    expected = [("SMSID not asked for", 1), ("not an object", 2)]
    assert output.rows(reasons) == expected
    (row,) = output.rows("SELECT row FROM rejected_rows WHERE reason LIKE 'SMSID%'")
    assert json.loads(row)["SMSID"] == "stranger"


def test_a_lost_disk_loses_nothing(run, warehouse, simulate, output, tmp_path):
    """The ledger is the only state: another worker goes on from it."""
    warehouse.fill(5)
    simulator = simulate()
    run(simulator)
    elsewhere = dlt.pipeline(
        "another_name",
        destination=dlt.destinations.duckdb(str(output.path)),
        dataset_name="zalo",
        pipelines_dir=str(tmp_path / "fresh_disk"),
    )
    warehouse.fill(5, start=5)
    assert run(simulator, pipeline=elsewhere).asked == 5
    assert set(simulator.arrivals.asks.values()) == {1}
    assert output.rows("SELECT count(*) FROM callbacks") == [10]


def test_neither_key_nor_secret_is_written_anywhere(
    run, warehouse, simulate, tmp_path, api_key, secret_key
):
    """Section 6.6: no table, no dlt state, no trace, no file."""
    warehouse.fill(10)
    run(simulate(faults="500=0.3", seed=2), batch_size=1)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert api_key.encode() not in content, path
            assert secret_key.encode() not in content, path
