from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import dlt
import pytest

from esms_source import sync
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

    def __init__(self, folder: Path, pipeline: dlt.Pipeline, output: object) -> None:
        self.pipeline = pipeline
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
                *("--project-dir", PACKAGE, "--profiles-dir", self._folder),
                *("--profile", "esms", "--target-path", self._folder / "target"),
                *("--log-path", self._folder / "logs"),
            ],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"DO_NOT_TRACK": "1"},
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
            "dbname": "postgres",
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
    sync(
        pipeline,
        api_key=api_key,
        secret_key=secret_key,
        base_url=simulate(plain=False).url,
        requests_per_second=RATE,
    )
    yield Project(tmp_path, pipeline, output | {"schema": "analytics", "threads": 1})
    with pipeline.sql_client() as client:
        client.execute_sql("DROP SCHEMA IF EXISTS analytics CASCADE")
        client.drop_dataset()


def test_models_and_their_tests_pass_and_show_what_the_views_show(project: Project):
    """The package builds, and its models hold the rows of the shipped views."""
    rate = json.dumps({"esms_requests_per_second": RATE})
    ended = project.run("build", "--vars", rate)
    assert ended.returncode == 0, ended.stdout
    for name in NAMES:
        shipped = f"SELECT * FROM zalo.{name}"
        modelled = f"SELECT * FROM analytics.{name}"
        assert not project.rows(f"{shipped} EXCEPT {modelled}")
        assert not project.rows(f"{modelled} EXCEPT {shipped}")
        assert project.rows(f"SELECT count(*) FROM analytics.{name}") != [(0,)]


def test_sources_are_fresh_after_a_run(project: Project):
    """Freshness is measured by the ledger and by dlt's loads."""
    ended = project.run("source", "freshness")
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("PASS freshness of") == 2


def test_a_fan_out_fails_the_tests(project: Project):
    """A small table with a code twice doubles RefIds, and the tests say so."""
    with project.pipeline.sql_client() as client:
        client.execute_sql("INSERT INTO telcos SELECT * FROM telcos")
    ended = project.run("test", "--select", "source:esms.telcos")
    assert ended.returncode == 1
    assert "source_esms_unique_esms_telcos_id" in ended.stdout
