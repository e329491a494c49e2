"""A dataset that version 0.1 made goes on with no step by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse
    from tests.integration.conftest import Esms

MADE = Path(__file__).parents[1] / "data" / "version_0_1"
"""What version 0.1 left in DuckDB: 12 RefIds, of each state three."""


@pytest.fixture
def before(output: Output, warehouse: Warehouse) -> None:
    """The dataset, and the warehouse that it is of, with two new messages."""
    with duckdb.connect(output.path) as connection:
        connection.execute((MADE / "schema.sql").read_text("utf-8"))
        load = (MADE / "load.sql").read_text("utf-8")
        connection.execute(load.replace("{folder}", str(MADE)))
    warehouse.execute(
        "CREATE TABLE sent AS SELECT 'oa' || (i % 2) AS oa_id,"
        " 'ref' || i || '-4f1c' AS ref_id, TIMESTAMPTZ '2026-01-05 00:00:00+00'"
        " + to_seconds(i) AS sent_at, 'c' || (i % 3) AS campaign FROM range(14) t(i)"
    )
    warehouse.use(oa_id_column="oa_id", sent_at_column="sent_at", carry=["campaign"])


def test_it_goes_on(
    before: None, esms: Esms, output: Output, simulate: Callable[..., Simulator]
) -> None:
    """What was open is asked again, what is new too, and nothing else."""
    simulator = simulate()
    esms.set(base_url=simulator.url)
    planned = esms("plan", "--json")
    assert planned.status == 0, planned.err
    ended = esms()
    assert ended.status == 0, ended.err
    assert ended.report["asked"] == 6 + 2
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1") == [
        ("final", 14)
    ]
    # What 0.1 didn't know stays null.
    assert output.rows("SELECT count(final_at), count(*) FROM ref_ids") == [(8, 14)]
    assert output.rows("SELECT count(*) FROM callbacks") == [14]
    assert output.rows("SELECT count(*) FROM messages WHERE campaign IS NULL") == [0]
    assert output.rows("SELECT count(*) FROM rejected_rows") == [3]
    again = esms()
    assert (again.status, again.report["asked"]) == (0, 0)


def test_what_was_open_expires_from_its_first_poll(
    before: None, esms: Esms, output: Output, simulate: Callable[..., Simulator]
) -> None:
    """0.1 knew no first answer."""
    ref_ids = [f"ref{i}-4f1c" for i in range(14)]
    silent = simulate(scripted={ref_id: [] for ref_id in ref_ids})
    esms.set(base_url=silent.url, give_up_after=1)
    assert esms().status == 0
    states = "SELECT state, count(*) FROM ref_ids GROUP BY 1 ORDER BY 1"
    assert output.rows(states) == [("expired", 6), ("final", 6), ("missing", 2)]
