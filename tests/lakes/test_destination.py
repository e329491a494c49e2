"""Lakes as destination, on S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from esms_source import sync
from tests.integration.conftest import asking
from tests.integration.test_lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lakes.conftest import S3

__all__ = ["asking"]  # a fixture


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


@pytest.mark.usefixtures("keys")
def test_a_lake_may_lie_on_s3(warehouse, asking, tmp_path: Path):
    """What was loaded is read there: the second run asks nothing."""
    warehouse.fill(300)
    lake = Lake(tmp_path, "s3://kho/lake")
    assert sync(lake.pipeline(), **asking).answered == 300
    assert sync(lake.pipeline(), **asking).asked == 0
    sql = "SELECT count(*), count(DISTINCT ref_id), sum(callback_rows) FROM messages"
    assert lake.rows(sql) == [(300, 300, 300)]
