"""Lakes as destination, on S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import asking
from tests.integration.test_lake import Lake, assert_like_duckdb, carrying

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Output
    from tests.lakes.conftest import S3

__all__ = ["asking", "carrying"]  # fixtures


@pytest.mark.usefixtures("carrying")
def test_three_runs_into_s3_are_as_those_into_duckdb(
    s3: S3,
    output: Output,
    simulate,
    asking,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """As Parquet; the keys and the endpoint stand where dlt looks for them."""
    prefix = "DESTINATION__FILESYSTEM__CREDENTIALS__"
    monkeypatch.setenv(f"{prefix}AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv(f"{prefix}AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv(f"{prefix}REGION_NAME", "us-east-1")
    monkeypatch.setenv(f"{prefix}ENDPOINT_URL", s3.url)
    lake = Lake(tmp_path, "s3://kho/lake")
    assert_like_duckdb(lake, output, simulate, asking)
