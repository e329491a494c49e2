"""Lakes as destination, on S3."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from esms_source import sync
from tests.integration.conftest import asking, esms, workshop, world
from tests.integration.test_crashes import asked_again, assert_whole, odd_rows
from tests.integration.test_lake import (
    FORMATS,
    MESSAGES,
    Lake,
    assert_like_duckdb,
    carrying,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Output
    from tests.integration.conftest import Esms
    from tests.lakes.conftest import S3

__all__ = ["asking", "carrying", "esms", "workshop", "world"]  # fixtures


PREFIX = "DESTINATION__FILESYSTEM__CREDENTIALS__"


@pytest.fixture
def keys(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys and the endpoint stand where dlt looks for them."""
    monkeypatch.setenv(f"{PREFIX}AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv(f"{PREFIX}AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv(f"{PREFIX}REGION_NAME", "us-east-1")
    monkeypatch.setenv(f"{PREFIX}ENDPOINT_URL", s3.url)


@pytest.mark.usefixtures("keys", "warehouse")
@pytest.mark.parametrize(
    ("url", "endpoint", "said"),
    [
        ("s3://nowhere/lake", "", "there is no bucket for s3://nowhere/lake"),
        ("s3://kho/lake", "http://127.0.0.1:9", "s3://kho/lake can't be reached"),
        ("s3://kho/lake", "", "nothing is loaded into the dataset 'zalo'"),
    ],
)
def test_a_bucket_that_is_not_to_be_had_is_told_in_one_line(
    run, url: str, endpoint: str, said: str
):
    """Before anything is asked."""
    more = {f"{PREFIX}ENDPOINT_URL": endpoint} if endpoint else {}
    into = {"DESTINATION__FILESYSTEM__BUCKET_URL": url} | more
    ended = run("query", "SELECT 1", "--destination", "filesystem", **into)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"esms: {said}")
    assert ended.stderr.count("\n") == 1


@pytest.fixture
def lake(keys: None, tmp_path: Path) -> Lake:
    """A lake in a bucket."""
    return Lake(tmp_path, "s3://kho/lake")


@pytest.mark.parametrize(
    ("table_format", "point"),
    [
        ("parquet", ("after a job", 3)),
        ("delta", ("between two tables", 2)),
        ("iceberg", ("after the data in files", 1)),
    ],
)
def test_a_killed_run_into_a_bucket_ends_as_one_into_duckdb(
    lake: Lake, output: Output, esms: Esms, world, table_format: str, point
):
    """What it left counts for nothing; the next run asks the rest, a third nothing."""
    count = 400
    esms.set(table_format=table_format, ref_ids__carry='["campaign"]')
    esms.set(DESTINATION__FILESYSTEM__BUCKET_URL=lake.url)
    simulator = world(count, scripted=odd_rows(count))
    into = ("--json", "--destination", "filesystem")
    esms.killed_at(*point, "run", *into)
    reports = [esms("run", *into).report for _ in range(2)]
    assert [report["asked"] for report in reports] == [count, 0]
    assert asked_again(simulator, count) == count
    assert_whole(lake, count)
    assert esms("run").status == 0
    assert lake.rows(MESSAGES) == output.rows(MESSAGES)
    done = esms("compact", *into[1:])
    assert f"ref_ids: {count} rows\ncallbacks: {count} rows\n" in done.out, done.err


@pytest.mark.skipif(
    not os.environ.get("ESMS_TEST_LONG"), reason="takes a minute: ESMS_TEST_LONG=1"
)
@pytest.mark.usefixtures("carrying")
@pytest.mark.parametrize("table_format", FORMATS)
def test_three_runs_into_a_bucket_are_as_those_into_duckdb(
    lake: Lake, output: Output, simulate, asking, table_format: str
):
    """As on a disk: in each format."""
    asking["table_format"] = table_format
    assert_like_duckdb(lake, output, simulate, asking)


def test_each_file_of_a_bucket_is_fetched_once_by_a_run(
    lake: Lake, s3: S3, warehouse, asking
):
    """A request lists a table, one fetches a file, whoever reads it."""
    for start in range(3):
        warehouse.fill(100, start=100 * start)
        before = len(s3.requests())
        sync(lake.pipeline(), **asking)
    made = [f"{method} {path}" for method, path in s3.requests()[before:]]
    fetched = Counter(line for line in made if ".parquet" in line and "PUT" not in line)
    assert len(fetched) > 10
    assert set(fetched.values()) == {1}
