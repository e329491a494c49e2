from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import dlt
import duckdb
import pytest

from esms_source import sync
from esms_source.config import resolve_settings
from esms_source.planning.planner import Choice, make_plan
from esms_source.views import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.simulator import Simulator
    from tests.conftest import Warehouse

PACKAGE = Path(__file__).parents[2] / "dbt"
REF_IDS = 3_000
RATE = 1_000


class Project:
    """The dbt package on a loaded dataset."""

    package = PACKAGE

    def __init__(
        self,
        folder: Path,
        pipeline: dlt.Pipeline,
        output: dict[str, Any],
        load: Callable[[], None],
    ) -> None:
        self.pipeline = pipeline
        self.output = output
        self.load = load
        self.use(folder, output)

    def use(self, folder: Path, output: dict[str, Any]) -> None:
        """Connect as said."""
        self._folder = folder
        profile = {"esms": {"target": "tests", "outputs": {"tests": output}}}
        (folder / "profiles.yml").write_text(json.dumps(profile), "utf-8")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of dbt."""
        return subprocess.run(
            [
                Path(sys.executable).with_name("dbt"),
                *("--no-use-colors", "--no-send-anonymous-usage-stats"),
                *command,
                *("--project-dir", self.package, "--profiles-dir", self._folder),
                *("--profile", "esms"),
                *("--log-path", self._folder / "logs"),
            ],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ
            | {"DO_NOT_TRACK": "1", "DBT_TARGET_PATH": str(self._folder / "target")},
        )

    def rows(self, sql: str) -> list[Any]:
        """Return what a query selects."""
        with self.pipeline.sql_client() as client:
            return list(client.execute_sql(sql) or ())


@pytest.fixture(params=["duckdb", "postgres"])
def project(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
    api_key: str,
    secret_key: str,
) -> Iterator[Project]:
    """The package on answers with all oddities, and two carried columns."""
    if request.param == "duckdb":
        path = str(tmp_path / "out.duckdb")
        destination: Any = dlt.destinations.duckdb(path)
        output: dict[str, Any] = {"type": "duckdb", "path": path}
    else:
        url = request.getfixturevalue("postgres")
        destination = dlt.destinations.postgres(url)
        output = {
            "type": "postgres",
            "host": parse_qs(urlsplit(url).query)["host"][0],
            "port": 5432,
            "user": "postgres",
            "password": "any",
            "dbname": urlsplit(url).path.strip("/"),
        }
    pipeline = dlt.pipeline(
        "esms",
        destination=destination,
        dataset_name="zalo",
        pipelines_dir=str(tmp_path / "pipelines"),
    )
    warehouse.execute(
        "CREATE TABLE sent AS SELECT 'oa' || n % 3 AS oa_id, md5(n::VARCHAR) AS ref_id,"
        " TIMESTAMPTZ '2026-01-05 18:00:00+00' + to_hours(n % 500) AS sent_at,"
        f" 'c' || n % 5 AS campaign, 'x' AS outcome FROM range({REF_IDS}) AS t(n)"
    )
    columns = {"oa_id_column": "oa_id", "sent_at_column": "sent_at"}
    warehouse.use(carry=["campaign", "outcome"], **columns)
    url = simulate(plain=False).url

    def run() -> None:
        sync(
            pipeline,
            api_key=api_key,
            secret_key=secret_key,
            base_url=url,
            requests_per_second=RATE,
            repoll_after=0.0,
        )

    run()
    with pipeline.sql_client() as client:
        client.execute_sql(
            "INSERT INTO sent_messages (ref_id, sms_type, sent_at, price, read_at)"
            " SELECT 'stranger', 25, min(sent_at), 330, max(sent_at) FROM ref_ids"
        )
    output |= {"schema": "analytics", "threads": 1}
    yield Project(tmp_path, pipeline, output, run)
    with pipeline.sql_client() as client:
        client.execute_sql("DROP SCHEMA IF EXISTS analytics CASCADE")
        client.drop_dataset()


def assert_models_show_the_views(project: Project) -> None:
    """Compare all models with the views that a run makes, row by row."""
    for name in NAMES:
        shipped = f"SELECT * FROM zalo.{name}"
        modelled = f"SELECT * FROM analytics.esms__{name}"
        assert not project.rows(f"{shipped} EXCEPT {modelled}"), name
        assert not project.rows(f"{modelled} EXCEPT {shipped}"), name
        assert project.rows(f"SELECT count(*) FROM analytics.esms__{name}") != [(0,)]


def test_models_and_their_tests_pass_and_show_what_the_views_show(project: Project):
    """The package builds, and its models hold the rows of the shipped views."""
    rate = json.dumps({"esms_requests_per_second": RATE})
    ended = project.run("build", "--vars", rate)
    assert ended.returncode == 0, ended.stdout
    assert_models_show_the_views(project)


def test_sources_are_fresh_after_a_run(project: Project):
    """Freshness is measured by the runs: one that found nothing due is one."""
    ended = project.run("source", "freshness")
    assert ended.returncode == 0, ended.stdout
    assert "PASS freshness of esms.runs" in ended.stdout


def test_a_fan_out_fails_the_tests(project: Project):
    """A small table with a code twice doubles RefIds, and the tests say so."""
    with project.pipeline.sql_client() as client:
        client.execute_sql("INSERT INTO telcos SELECT * FROM telcos")
    ended = project.run("test", "--select", "source:esms.telcos")
    assert ended.returncode == 1
    assert "esms_unique" in ended.stdout


def test_a_later_build_takes_up_what_changed(
    project: Project, warehouse: Warehouse
) -> None:
    """New, settled and forgotten RefIds: the incremental model equals the view."""
    rate = json.dumps({"esms_requests_per_second": RATE})
    assert project.run("build", "--vars", rate).returncode == 0
    warehouse.execute(
        "INSERT INTO sent SELECT 'oa1', md5('late' || n), now(), 'c9', 'x'"
        " FROM range(50) AS t(n)"
    )
    project.load()
    [(forgotten,)] = project.rows(
        "SELECT min(ref_id) FROM ref_ids WHERE state = 'final'"
    )
    with project.pipeline.sql_client() as client:
        for table in ("ref_ids", "callbacks"):
            client.execute_sql(f"DELETE FROM {table} WHERE ref_id = '{forgotten}'")
    ended = project.run("build", "--vars", rate)
    assert ended.returncode == 0, ended.stdout
    assert_models_show_the_views(project)
    written = project.rows(
        "SELECT count(*) FROM analytics.esms__messages WHERE campaign = 'c9'"
    )
    assert written == [(50,)]


def test_only_what_changed_is_written_again(project: Project) -> None:
    """A row whose load is known stays as it is: a build reads completed loads only."""
    assert project.run("run").returncode == 0
    with project.pipeline.sql_client() as client:
        client.execute_sql("UPDATE analytics.esms__message_facts SET attempts = 77")
    project.load()
    assert project.run("run").returncode == 0
    [(kept, rewritten)] = project.rows(
        "SELECT count(*) FILTER (WHERE attempts = 77),"
        " count(*) FILTER (WHERE attempts <> 77) FROM analytics.esms__message_facts"
    )
    assert 0 < rewritten < kept
    assert kept + rewritten == REF_IDS


def test_it_stands_beside_models_of_the_same_names(
    project: Project, tmp_path: Path
) -> None:
    """A project that has a model messages of its own builds with the package."""
    folder = tmp_path / "analytics"
    (folder / "models").mkdir(parents=True)
    for name in NAMES:
        (folder / "models" / f"{name}.sql").write_text("SELECT 1 AS mine", "utf-8")
    (folder / "dbt_project.yml").write_text(
        "name: analytics\nversion: '1.0'\nprofile: esms\nmodel-paths: [models]\n"
        "flags: {send_anonymous_usage_stats: false}\n",
        "utf-8",
    )
    (folder / "packages.yml").write_text(f"packages: [{{local: {PACKAGE}}}]", "utf-8")
    project.package = folder
    deps = project.run("deps")
    assert deps.returncode == 0, deps.stdout + deps.stderr
    ended = project.run("run")
    assert ended.returncode == 0, ended.stdout
    assert project.rows("SELECT mine FROM analytics.messages") == [(1,)]
    assert project.rows("SELECT count(*) FROM analytics.esms__messages") == [(REF_IDS,)]


@pytest.mark.parametrize("project", ["duckdb"], indirect=True)
def test_a_view_of_dbt_names_the_ref_ids(project: Project, tmp_path: Path) -> None:
    """A model over a source in another schema, with names that need quotes."""
    crm, model = tmp_path / "sales.duckdb", tmp_path / "crm" / "models"
    with duckdb.connect(crm) as connection:
        connection.execute('CREATE SCHEMA "Crm"')
        connection.execute(
            'CREATE TABLE "Crm"."SENT" AS SELECT \'new \' || n AS "Ref Id",'
            " 'oa0' AS \"OA\" FROM range(7) AS t(n)"
        )
    model.mkdir(parents=True)
    (model.parent / "dbt_project.yml").write_text("name: crm\nprofile: esms\n")
    source = {"name": "crm", "schema": "Crm", "tables": [{"name": "SENT"}]}
    (model / "s.yml").write_text(json.dumps({"version": 2, "sources": [source]}))
    columns = '"Ref Id" AS "REF_ID", "OA", now() AS sent_at'
    sql = f"SELECT {columns} FROM {{{{ source('crm', 'SENT') }}}}"
    (model / "ZNS_Sent.sql").write_text(sql)
    project.package = model.parent
    project.use(tmp_path, project.output | {"path": str(crm)})
    ended = project.run("run")
    assert ended.returncode == 0, ended.stdout
    table = {
        "credentials": str(crm),
        "dataset_name": "analytics",
        "table": "ZNS_Sent",
        "oa_id_column": "OA",
        "sent_at_column": "sent_at",
        "carry": [],
    }
    settings = resolve_settings(api_key="any", secret_key="any", ref_ids=table)
    now = datetime.now(timezone.utc)
    planned = make_plan(project.pipeline, settings, Choice(), now, compare_all=True)
    assert sum(oa.new for oa in planned.oas) == 7
    planned.close()


@pytest.mark.parametrize("project", ["duckdb"], indirect=True)
def test_the_tables_may_stand_in_an_attached_file(
    project: Project, tmp_path: Path
) -> None:
    """Variables name database and schema, where dbt's own file is another one."""
    own = tmp_path / "own.duckdb"
    attached = {"path": project.output["path"], "alias": "loaded", "read_only": True}
    project.use(tmp_path, project.output | {"path": str(own), "attach": [attached]})
    ended = project.run("build", "--vars", json.dumps({"esms_database": "loaded"}))
    assert ended.returncode == 0, ended.stdout
    with duckdb.connect(own) as connection:
        connection.execute(f"ATTACH '{attached['path']}' AS loaded (READ_ONLY)")
        sql = "SELECT count(*) FROM analytics.esms__messages"
        assert connection.execute(sql).fetchall() == [(REF_IDS,)]
