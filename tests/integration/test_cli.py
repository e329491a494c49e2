import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from esms_source.cli.commands import main
from esms_source.databases import installing
from esms_source.simulator import sample_row


@pytest.fixture
def esms(monkeypatch, tmp_path, api_key, secret_key):
    """Run a command with settings from the environment alone."""
    monkeypatch.setenv("SOURCES__ESMS__API_KEY", api_key)
    monkeypatch.setenv("SOURCES__ESMS__SECRET_KEY", secret_key)
    monkeypatch.setenv("SOURCES__ESMS__REQUESTS_PER_SECOND", "1000")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(tmp_path / "out.duckdb"))

    def run(*arguments, exits=0, **environment):
        names = {f"SOURCES__ESMS__{name}": text for name, text in environment.items()}
        result = CliRunner().invoke(main, arguments, env=names, prog_name="esms")
        assert result.exit_code == exits, result.output + repr(result.exception)
        assert api_key not in result.output
        assert secret_key not in result.output
        return result

    return run


@pytest.fixture
def server(simulate, monkeypatch):
    """The simulator, named as the API."""
    simulator = simulate()
    monkeypatch.setenv("SOURCES__ESMS__BASE_URL", simulator.url)
    return simulator


def parts(checked):
    lines = checked.stdout.splitlines()
    return {line[6:].partition(":")[0]: line[:4] for line in lines}


def test_check_plan_run_plan(esms, server, warehouse, output):
    """The way a new user goes, from check to an empty plan."""
    warehouse.fill(450, oas=3)
    assert parts(esms("check")) == {
        "settings": "ok  ",
        "warehouse": "ok  ",
        "destination": "ok  ",
        "rate limit": "ok  ",
        "API key": "ok  ",
        "missing RefIds": "ok  ",
        "other endpoints": "skip",
    }
    assert server.arrivals.requests == 1

    planned = json.loads(esms("plan", "--json").stdout)
    assert planned["ref_ids"] == 450
    assert [oa["requests"] for oa in planned["oas"]] == [1, 1, 1]
    assert not output.path.exists()
    assert server.arrivals.requests == 1

    ran = esms("run", "--json")
    report = json.loads(ran.stdout)
    assert report["asked"] == report["answered"] == 450
    assert report["requests"] == 3
    assert report["left"] == 0
    assert output.rows("SELECT count(*) FROM callbacks") == [450]

    assert json.loads(esms("plan", "--json").stdout)["ref_ids"] == 0
    assert "0 RefIds in 0 requests" in esms("plan").stdout


def test_the_settings_of_the_readme_work(tmp_path):
    """They are copied as they stand."""
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    config, secrets = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    folder = tmp_path / ".dlt"
    folder.mkdir()
    folder.joinpath("config.toml").write_text(config)
    folder.joinpath("secrets.toml").write_text(secrets)
    with duckdb.connect(tmp_path / "warehouse.duckdb") as connection:
        connection.execute(
            "CREATE TABLE zns_messages AS SELECT 'R1' AS ref_id, 'oa' AS oa_id,"
            " now() AS sent_at, 'c' AS campaign, 't' AS template"
        )
    command = [sys.executable, "-m", "esms_source", "plan", "--json"]
    ran = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["ref_ids"] == 1


def test_results_go_to_stdout_and_the_rest_to_stderr(esms, server, warehouse):
    """A program may read stdout, remedies don't get in its way."""
    warehouse.fill(10)
    warehouse.execute("INSERT INTO sent VALUES ('oa0', NULL, now(), 'c')")
    ran = esms("run")
    assert ran.stdout.startswith("asked 10 RefIds in 1 requests")
    assert "1 row has no RefId and is not asked" in ran.stderr
    assert "no RefId" not in ran.stdout


def test_some_failed_ref_ids_are_exit_code_1(esms, simulate, warehouse):
    """A scheduler must see that something failed, and why."""
    warehouse.fill(10)
    server = simulate(refused_oas=frozenset({"oa0"}))
    ran = esms("run", exits=1, BASE_URL=server.url)
    assert "10 failed" in ran.stdout
    assert "refused OA oa0 with Code 204" in ran.stderr


def test_a_refused_key_stops_with_the_remedy(esms, simulate, warehouse, output):
    """Nothing is asked after Code 101, and the next run asks all of it."""
    warehouse.fill(1_000)
    refusing = simulate(faults="refuse_key=1", latency=0.2)
    settings = {"BASE_URL": refusing.url, "REQUESTS_PER_SECOND": "20"}
    ran = esms("run", exits=1, **settings)
    assert "Code 101" in ran.stderr
    assert "check api_key and secret_key" in ran.stderr
    assert refusing.arrivals.requests < 10
    esms("run", BASE_URL=simulate().url)
    assert output.rows("SELECT DISTINCT state FROM ref_ids") == ["final"]
    assert output.rows("SELECT count(*) FROM callbacks") == [1_000]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"API_KEY": ""}, "api_key: not set"),
        ({"BATCH_SIZE": "500"}, "batch_size: 500"),
        ({"BATCH_SIZE": "many"}, "batch_size: not a"),
        ({"BASE_URL": "http://example.com"}, "plain http to example.com"),
        ({"REF_IDS__REF_ID_COLUMN": "nope"}, "no column 'nope', only 'oa_id'"),
        ({"REF_IDS__TABLE": "nope"}, "no table 'nope'"),
        ({"REF_IDS__TABLE": 'no"pe'}, "no table 'no\"pe'"),
        ({"REF_IDS__CREDENTIALS": "gone.duckdb"}, "is not there"),
        ({"REF_IDS__TABLE": ""}, "no warehouse table is named"),
        ({"REF_IDS__DESTINATION": "nonsense"}, "the warehouse can't be opened"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(
    esms, server, warehouse, environment, words
):
    """Bad input is refused before anything is asked."""
    warehouse.fill(10)
    ran = esms("run", exits=2, **environment)
    lines = [line for line in ran.stderr.splitlines() if line.startswith("esms: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert not ran.stdout
    assert server.arrivals.requests == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--destination", "nonsense"], "'nonsense' can't be opened"),
        (["run", "--repoll", "settled"], "no state 'settled'"),
        (["run", "--repoll", ""], "no state ''"),
        (["run", "--since", "2026-01-01"], "go with repoll"),
        (["run", "--dataset", "out"], "has the same name as its DuckDB file"),
        (["lookup", "some-id"], "oa_id: not set"),
        (["simulate", "--faults", "nonsense"], "'nonsense' is not a known fault"),
    ],
)
def test_bad_commands_are_one_line_and_exit_code_2(
    esms, server, warehouse, arguments, words
):
    """A command that can't be meant says the remedy."""
    warehouse.fill(10)
    assert words in esms(*arguments, exits=2).stderr
    assert server.arrivals.requests == 0


def test_check_names_the_extra_that_is_missing(esms, server, monkeypatch):
    """Where a driver isn't there, the remedy is the command that installs it."""
    url = "snowflake://user:hidden@host/db"
    monkeypatch.setenv("DESTINATION__SNOWFLAKE__CREDENTIALS", url)
    warehouse = {"DESTINATION": "snowflake", "CREDENTIALS": url, "TABLE": "sent"}
    named = {f"REF_IDS__{name}": text for name, text in warehouse.items()}
    checked = esms("check", "--destination", "snowflake", exits=2, **named)
    remedy = "'snowflake' is not installed; pip install esms-source[snowflake]"
    assert f"FAIL  warehouse: the warehouse {remedy}\n" in checked.stdout
    assert f"FAIL  destination: the destination {remedy}\n" in checked.stdout
    assert "hidden" not in checked.output


def test_what_has_no_extra_here_is_installed_as_dlt_has_it():
    """Extras of dlt that have no twin are named too; modules by their last part."""
    assert (
        installing("dlt.destinations.postgres") == "pip install esms-source[postgres]"
    )
    assert installing("synapse") == "pip install dlt[synapse]"


def test_check_says_what_is_wrong_of_each_part(esms, simulate, warehouse, tmp_path):
    """One part may fail while the others are told of too."""
    warehouse.fill(10)
    refusing = simulate(faults="refuse_key=1")
    checked = parts(esms("check", exits=1, BASE_URL=refusing.url))
    assert [name for name, mark in checked.items() if mark == "FAIL"] == ["API key"]
    ran = esms("check", exits=2, BASE_URL=refusing.url, REF_IDS__TABLE="nope")
    assert [name for name, mark in parts(ran).items() if mark == "FAIL"] == [
        "warehouse"
    ]
    assert "API key: not tried" in ran.stdout
    assert esms("check", exits=2, API_KEY="").stdout.startswith("FAIL  settings")


@pytest.mark.parametrize(
    ("file", "dataset"), [("out", "OUT"), ("Out", "out"), ("out.v1", "out")]
)
def test_a_dataset_is_compared_as_duckdb_names_its_file(
    file, dataset, esms, server, warehouse, tmp_path, monkeypatch
):
    """DuckDB takes no notice of letter case, nor of what follows a point."""
    warehouse.fill(10)
    path = str(tmp_path / f"{file}.duckdb")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", path)
    ran = esms("run", "--dataset", dataset, exits=2)
    assert "has the same name as its DuckDB file" in ran.stderr
    assert server.arrivals.requests == 0


def test_check_spends_of_the_shared_budget(esms, server, warehouse, tmp_path):
    """Its request counts like any other: section 3."""
    warehouse.fill(10)
    store = f"sqlite:///{tmp_path / 'budget.sqlite'}"
    for _ in range(2):
        esms("check", RATE_LIMIT_STORE=store, REQUESTS_PER_SECOND="1")
    assert server.arrivals.most_in_one_second == 1


def test_lookup_prints_and_loads_nothing(esms, simulate, output):
    """Lookup shows each RefId as asked, also one without rows."""
    scripted = {"here": [sample_row("here")], "gone": []}
    server = simulate(scripted=scripted)
    arguments = ("lookup", "here", " gone ", "here", "--oa-id", "oa1")
    found = json.loads(esms(*arguments, "--json", BASE_URL=server.url).stdout)
    assert [(item["ref_id"], item["state"]) for item in found] == [
        ("here", "final"),
        ("gone", "missing"),
    ]
    assert found[0]["callbacks"][0]["send_status"] == 5
    text = esms(*arguments, BASE_URL=server.url).stdout
    assert "gone  missing" in text
    assert "    send_status: 5" in text
    assert not output.path.exists()


def test_lookup_takes_the_oa_of_the_ledger_and_says_what_codes_mean(
    esms, simulate, warehouse, output
):
    """With names where they are known; --oa-id and another RefId's default beat it."""
    warehouse.fill(2, oas=2)
    ids = warehouse.rows("SELECT ref_id FROM sent ORDER BY oa_id")
    failed = {"SendSuccess": 0, "SendFailed": 1, "ErrorInfo": "-118"}
    scripted = {ref_id: [sample_row(ref_id, **failed)] for ref_id in ids}
    server = simulate(scripted=scripted, oa_names={"oa1": "Cửa hàng"})
    env = {"BASE_URL": server.url, "REST_BASE_URL": server.url}
    esms("run", **env)
    asked = server.arrivals.asks
    found = json.loads(esms("lookup", *ids, "--json", **env).stdout)
    assert [(item["oa_id"], item["oa_name"]) for item in found] == [
        ("oa0", "OA oa0"),
        ("oa1", "Cửa hàng"),
    ]
    row = found[0]["callbacks"][0]
    assert row["template_name"] == "Xác nhận đơn hàng"
    assert "does not exist" in row["error_meaning_en"]
    assert row["send_status_en"] != "unknown"
    assert (server.arrivals.asks - asked).total() == 2
    text = esms("lookup", ids[1], "--oa-id", "oa0", **env).stdout
    assert f"{ids[1]}  final  OA oa0 (OA oa0)" in text
    esms("lookup", "stranger", exits=2, **env)
    assert "stranger  final" in esms("lookup", "stranger", OA_ID="oa1", **env).stdout
    assert output.rows("SELECT count(*) FROM ref_ids") == [2]


def test_lookup_without_an_answer_is_exit_code_1(esms, simulate):
    """A lookup that got no answer says so."""
    server = simulate(refused_oas=frozenset({"oa1"}))
    found = esms("lookup", "x", "--oa-id", "oa1", exits=1, BASE_URL=server.url)
    assert "x  failed" in found.stdout


@pytest.mark.parametrize(
    "content",
    [
        "ref_id,oa_id\nR1,oa5\nR2,oa6\n",
        "\ufeffref_id,oa_id\nR1,oa5\nR2,oa6\n",
        '"Ref_Id", "OA_ID",\n"R1", "oa5",\n"R2", "oa6",,\n',
    ],
)
def test_ref_ids_of_a_csv_need_no_warehouse(esms, server, output, tmp_path, content):
    """A file alone can be asked for."""
    file = tmp_path / "ids.csv"
    file.write_text(content)
    esms("run", "--ref-ids", str(file))
    assert output.rows("SELECT oa_id, ref_id FROM ref_ids ORDER BY 1") == [
        ("oa5", "R1"),
        ("oa6", "R2"),
    ]


def test_the_column_of_a_csv_may_be_named_as_in_the_warehouse(
    esms, server, output, tmp_path
):
    """A file that was exported from the table is read as the table is."""
    file = tmp_path / "ids.csv"
    file.write_text("campaign,sms_id,oa_id\ntet,R1,oa5\n")
    esms("run", "--ref-ids", str(file), REF_IDS__REF_ID_COLUMN="SMS_ID")
    assert output.rows("SELECT oa_id, ref_id FROM ref_ids") == [("oa5", "R1")]


def test_a_csv_without_ref_ids_is_refused(esms, server, tmp_path):
    """Its lines are no RefIds to be asked for."""
    file = tmp_path / "ids.csv"
    file.write_text("sms,oa_id\nR1,oa5\n")
    ran = esms("run", "--ref-ids", str(file), exits=2)
    assert "has no column of RefIds in its first line: 'sms', 'oa_id'" in ran.stderr
    assert server.arrivals.requests == 0


def test_ref_ids_one_a_line_are_found_in_the_warehouse(
    esms, server, warehouse, output, tmp_path
):
    """A file limits one run and hides nothing from the next."""
    warehouse.fill(1_000)
    newest = warehouse.rows("SELECT ref_id FROM sent ORDER BY sent_at DESC LIMIT 1")
    file = tmp_path / "ids.txt"
    file.write_text(f"{newest[0]}\nunheard-of\n")
    ran = esms("run", "--ref-ids", str(file))
    assert "asked 1 RefIds" in ran.stdout
    assert "1 row has no OA" in ran.stderr
    assert output.rows("SELECT ref_id FROM ref_ids") == newest
    esms("run", REF_IDS__LAG="0")
    assert output.rows("SELECT count(*) FROM ref_ids") == [1_000]


def test_a_run_ends_without_a_word_but_its_own():
    """The end of the process adds nothing to the one line of a refused run."""
    command = [sys.executable, "-m", "esms_source", "run"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("esms: api_key: not set")
    assert ran.stderr.count("\n") == 1
