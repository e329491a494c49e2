from __future__ import annotations

from typing import TYPE_CHECKING

import dlt
import pytest

from esms_source import sync
from esms_source.exceptions import DestinationError

if TYPE_CHECKING:
    from pathlib import Path


def test_lake_is_refused_before_anything_is_asked(
    warehouse, simulate, tmp_path: Path, api_key, secret_key
):
    """Files can't replace a RefId's rows, whatever their format: the remedy is told."""
    warehouse.fill(10)
    simulator = simulate()
    destination = dlt.destinations.filesystem(str(tmp_path / "lake"))
    pipeline = dlt.pipeline("esms", destination=destination, dataset_name="zalo")
    with pytest.raises(DestinationError, match="load into duckdb or an SQL warehouse"):
        sync(pipeline, api_key=api_key, secret_key=secret_key, base_url=simulator.url)
    assert simulator.arrivals.requests == 0
    assert not (tmp_path / "lake").exists()
