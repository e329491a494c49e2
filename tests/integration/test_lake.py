"""Files in place of a database: events, and the current rows that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt
import pytest

from esms_source import sync
from esms_source.cli.query import run_query
from esms_source.config import resolve_settings
from esms_source.exceptions import ConfigError, DestinationError
from esms_source.tables import CALLBACKS, REF_IDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Output

OF_THE_RUN = {"load_id", "polled_at", "first_polled_at", "last_polled_at"} | {
    *("next_poll_at", "first_answered_at", "final_at", "failed_since")
}
"""Columns that differ between two runs of the same, being times."""


class Lake:
    """A folder that a pipeline writes files into."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pipeline(self, name: str = "lake") -> dlt.Pipeline:
        return dlt.pipeline(
            name,
            destination=dlt.destinations.filesystem(str(self._folder / "lake")),
            dataset_name="zalo",
            pipelines_dir=str(self._folder / "pipelines"),
        )

    def rows(self, sql: str) -> list[Any]:
        _, rows = run_query(self.pipeline(), resolve_settings(), sql)
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path)


def test_three_runs_into_files_are_as_those_into_duckdb(
    warehouse, lake: Lake, output: Output, simulate, asking
):
    """New messages, open ones asked again, and a settled one asked by choice."""
    warehouse.fill(900, oas=3)
    warehouse.use(
        oa_id_column="oa_id", sent_at_column="sent_at", carry=["campaign"]
    )
    for pipeline in (lake.pipeline(), output.pipeline()):
        asking["base_url"] = simulate(plain=False).url
        first = sync(pipeline, repoll_after=0, slice_ref_ids=400, **asking)
        assert (first.asked, first.failed) == (900, 0)
        again = sync(pipeline, repoll_after=0, slice_ref_ids=400, **asking)
        assert 0 < again.asked < 900
        by_choice = sync(pipeline, repoll=["final"], max_ref_ids=50, **asking)
        assert by_choice.asked == 50
    for table in (REF_IDS, CALLBACKS):
        columns = [c.name for c in table.columns if c.name not in OF_THE_RUN]
        carried = ["campaign"] if table is REF_IDS else []
        sql = f"SELECT {', '.join(columns + carried)} FROM {table.name} ORDER BY ALL"
        assert lake.rows(sql) == output.rows(sql)
    for sql in (
        "SELECT sum(asked), sum(answered), sum(missing), sum(failed) FROM api_requests",
        "SELECT count(*), sum(asked), bool_and(exit_code = 0) FROM runs",
        "SELECT * FROM error_codes ORDER BY ALL",
        "SELECT outcome, error_meaning_en, campaign, count(*), sum(total_price)"
        " FROM messages GROUP BY ALL ORDER BY ALL",
        "SELECT * EXCLUDE (as_of) FROM backlog ORDER BY ALL"
        if "as_of" in output.rows("SELECT column_name FROM (DESCRIBE backlog)")
        else "SELECT oa_id FROM backlog ORDER BY ALL",
    ):
        assert lake.rows(sql) == output.rows(sql)
