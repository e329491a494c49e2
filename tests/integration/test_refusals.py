"""What a destination refuses costs what it refuses.

With ESMS_TEST_LONG=1 a run spends all 64 loads on what is refused, else 8.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg2
import pytest
from dlt.destinations.exceptions import DatabaseTransientException

from esms_source.load.errors import read_failure
from esms_source.load.parts import MOST_LOADS
from esms_source.simulator import sample_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Hostile, Output, Warehouse
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow


COUNT = 400
FEW_LOADS = MOST_LOADS if os.environ.get("ESMS_TEST_LONG") else 8


class Target:
    """A destination of either kind, and what is in it."""

    def __init__(self, esms: Esms, output: Output, url: str | None) -> None:
        self.argv = ["--destination", "postgres"] if url else []
        self._output = output
        self._url = url
        if url:
            esms.set(DESTINATION__POSTGRES__CREDENTIALS=url)
            self.execute("DROP SCHEMA IF EXISTS zalo CASCADE")
            self.execute("DROP SCHEMA IF EXISTS zalo_staging_esms CASCADE")

    def execute(self, sql: str) -> None:
        """Run SQL on the tables."""
        if self._url is None:
            self._output.execute(sql)
            return
        self._query(sql)

    def rows(self, sql: str) -> list[Any]:
        """Return what a query selects; bare values of one column."""
        if self._url is None:
            return self._output.rows(sql)
        rows = self._query(sql)
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]

    def require(self, condition: str) -> None:
        """Let callbacks take no rows but those."""
        if self._url is not None:
            self.execute(f"ALTER TABLE callbacks ADD CHECK ({condition})")
            return
        # DuckDB adds no CHECK to a table that is there.
        columns = self.rows(
            "SELECT column_name || ' ' || data_type || CASE is_nullable WHEN 'NO' THEN"
            " ' NOT NULL' ELSE '' END FROM information_schema.columns"
            " WHERE table_name = 'callbacks' AND table_schema = 'zalo'"
            " ORDER BY ordinal_position"
        )
        self.execute("ALTER TABLE callbacks RENAME TO before")
        made = f"CREATE TABLE callbacks ({', '.join(columns)}, CHECK ({condition}))"
        for sql in (made, "INSERT INTO callbacks FROM before", "DROP TABLE before"):
            self.execute(sql)

    def _query(self, sql: str) -> list[Any]:
        connection = psycopg2.connect(self._url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("SET search_path TO zalo")
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@pytest.fixture(params=["duckdb", "postgres"])
def target(request: pytest.FixtureRequest, esms: Esms, output: Output) -> Target:
    """An empty dataset on each kind of destination."""
    is_postgres = request.param == "postgres"
    url = request.getfixturevalue("postgres") if is_postgres else None
    return Target(esms, output, url)


def answer(ref_id: str, times_asked: int) -> list[Any]:
    """Return a row whose type tells how often it was asked for."""
    return [sample_row(ref_id, TypeId=24 + times_asked)]


def test_what_is_refused_alone_fails_alone(
    target: Target,
    esms: Esms,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
) -> None:
    """Its RefId fails, its rows are kept as rejected, all else is loaded."""
    warehouse.fill(COUNT)
    simulator = simulate()
    esms.set(base_url=simulator.url)
    assert esms("run", "--max-ref-ids", "10", *target.argv).status == 0
    bad = warehouse.rows("SELECT ref_id FROM sent ORDER BY ref_id")[-1]
    target.require(f"ref_id <> '{bad}'")
    ended = esms("run", "--json", *target.argv)
    assert ended.status == 1, ended.err
    assert "refuses" in ended.err
    assert target.rows("SELECT count(*) FROM callbacks") == [COUNT - 1]
    assert target.rows("SELECT ref_id FROM ref_ids WHERE state = 'failed'") == [bad]
    (error,) = target.rows("SELECT last_error FROM ref_ids WHERE state = 'failed'")
    assert "refuses" in error
    ((reason, row),) = target.rows("SELECT reason, row FROM rejected_rows")
    assert "refuses" in reason
    kept = json.loads(row) if isinstance(row, str) else row
    assert kept["ref_id"] == bad
    assert target.rows(
        "SELECT CAST(sum(asked) AS bigint), CAST(sum(answered) AS bigint),"
        " CAST(sum(failed) AS bigint) FROM api_requests"
    ) == [(COUNT, COUNT - 1, 1)]
    report = ended.report
    assert (report["answered"], report["failed"]) == (COUNT - 11, 1)
    assert not target.rows(
        "SELECT load_id FROM callbacks UNION SELECT load_id FROM api_requests"
        " EXCEPT SELECT load_id FROM _dlt_loads"
    )


def test_a_refused_load_leaves_what_was_there(
    target: Target,
    esms: Esms,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
) -> None:
    """A table changes wholly or not at all, also where too much is refused."""
    warehouse.fill(100)
    ref_ids = warehouse.rows("SELECT ref_id FROM sent")
    simulator = simulate(scripted=dict.fromkeys(ref_ids, answer))
    esms.set(base_url=simulator.url)
    assert esms("run", *target.argv).status == 0
    target.require("type_id = 25")
    esms.most_loads = FEW_LOADS
    ended = esms("run", "--repoll", "final", *target.argv)
    assert ended.status == 1
    found = f"refuses more than can be found in {FEW_LOADS} loads"
    assert found in ended.err
    assert "type_id" in ended.err
    assert target.rows("SELECT type_id, count(*) FROM callbacks GROUP BY 1") == [
        (25, 100)
    ]
    assert target.rows("SELECT DISTINCT state FROM ref_ids") == ["final"]


def test_a_refusal_is_no_server_that_is_away() -> None:
    """What the server says tells them apart, not the class that dlt gives it."""
    nul = ValueError("A string literal cannot contain NUL (0x00) characters.")
    assert read_failure(DatabaseTransientException(nul)).refused
    away = psycopg2.OperationalError("server closed the connection unexpectedly")
    assert not read_failure(DatabaseTransientException(away)).refused
    assert not read_failure(OSError(28, "No space left on device")).refused
    assert read_failure(duckdb.ConversionException("no date")).refused
    # More memory was given before.
    assert read_failure(duckdb.OutOfMemoryException("failed to allocate")).refused


def test_values_too_large_to_load_together_are_loaded_apart(
    esms: Esms, output: Output, warehouse: Warehouse, hostile: Callable[..., Hostile]
) -> None:
    """DuckDB runs out of its memory over them; each of them fits."""
    warehouse.fill(COUNT)
    large = "x" * (12 << 20)

    def answer(number: int, ref_ids: list[str]) -> bytes:
        rows = [sample_row(ref_id) for ref_id in ref_ids]
        rows[7]["ErrorInfo"] = large
        return json.dumps({"Code": 100, "Data_callback": rows}).encode()

    server = hostile(answer)
    esms.set(base_url=server.url, batch_size=100)
    ended = esms()
    assert (ended.status, ended.report["answered"]) == (0, COUNT)
    assert output.rows(
        "SELECT count(*) FROM callbacks WHERE error_info = repeat('x', 12 << 20)"
    ) == [4]
    assert len(server.asked) == 4
