from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal

import pytest

from esms_source.planning.planner import Choice, make_plan

AS_OF = datetime(2026, 3, 10, tzinfo=timezone.utc)
LEDGER = """
CREATE TABLE ref_ids AS SELECT 'oa' AS oa_id, 'known' AS ref_id,
    NULL::VARCHAR AS last_error,
    NULL::TIMESTAMPTZ AS sent_at, 'final' AS state, 1::BIGINT AS attempts,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' AS first_polled_at, false AS chosen,
    NULL::TIMESTAMPTZ AS next_poll_at, 'done' AS load_id, NULL::{} AS campaign
"""
JAN_2 = datetime(2026, 1, 2, tzinfo=timezone.utc)


@pytest.fixture
def carried(output, warehouse, make_settings):
    """Return a carried value, and what stands beside it, after a change of type."""

    def one(value, known=None):
        if known:
            output.execute(
                "CREATE TABLE _dlt_loads AS SELECT 'done' load_id, 0 status",
                LEDGER.format(known),
            )
        warehouse.execute(f"CREATE TABLE sent AS SELECT 'a' ref_id, {value} campaign")
        warehouse.use(carry=["campaign"])
        settings = make_settings(oa_id="oa")
        plan = make_plan(output.pipeline(), settings, Choice(), AS_OF)
        ((row,),) = [page.to_pylist() for page in plan.pages()]
        plan.close()
        found = row["campaign"]
        if isinstance(found, datetime):
            found = found.astimezone(timezone.utc)
        return found, row.get("campaign__v_text")

    return one


@pytest.mark.parametrize(
    ("known", "value", "column", "beside"),
    [
        ("BIGINT", "'tet'", None, "tet"),
        ("BIGINT", "'12'", 12, None),
        ("BIGINT", "'012'", None, "012"),
        ("BIGINT", "1.5", None, "1.5"),
        ("TINYINT", "300::BIGINT", None, "300"),
        ("DECIMAL(9, 2)", "1.505::DECIMAL(9, 3)", None, "1.505"),
        ("DECIMAL(9, 2)", "1.500::DECIMAL(9, 3)", Decimal("1.50"), None),
        ("DATE", "TIMESTAMP '2026-01-02 10:00:00'", None, "2026-01-02 10:00:00"),
        ("DATE", "TIMESTAMP '2026-01-02 00:00:00'", date(2026, 1, 2), None),
        ("TIMESTAMPTZ", "DATE '2026-01-02'", JAN_2, None),
        ("BOOLEAN", "'yes'", None, "yes"),
        ("BOOLEAN", "'true'", True, None),
        ("DOUBLE", "9007199254740993::BIGINT", None, "9007199254740993"),
        ("VARCHAR", "7", "7", None),
        ("VARCHAR", "true", "true", None),
        ("VARCHAR", "NULL::INTEGER", None, None),
        ("INTEGER", "NULL::VARCHAR", None, None),
        ("BIGINT", "[1, 2]", None, "[1,2]"),
        ("DATE", "DATE 'infinity'", None, "infinity"),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_kept_beside_it(
    known, value, column, beside, carried
):
    """Nothing is rounded, cut or made null without a trace."""
    assert carried(value, known) == (column, beside)


@pytest.mark.parametrize(
    ("value", "column", "beside"),
    [
        ("7::TINYINT", 7, None),
        ("{'a': [1, NULL], 'b': 'x'}", '{"a":[1,null],"b":"x"}', None),
        ("MAP {'k': 1}", '{"k":1}', None),
        ("'{\"a\": 1}'::JSON", '{"a": 1}', None),
        ("'x' || chr(0)", "x\\u0000", None),
        ("DATE '0044-03-15 (BC)'", None, "0044-03-15 (BC)"),
        ("TIMESTAMPTZ 'infinity'", None, "infinity"),
        (
            "TIMESTAMP_NS '2026-01-02 00:00:00.000000001'",
            None,
            "2026-01-02 00:00:00.000000001",
        ),
        ("TIMESTAMP_NS '2026-01-02 00:00:00'", JAN_2, None),
    ],
)
def test_what_is_carried_first_is_kept_as_it_is(value, column, beside, carried):
    """What is nested is JSON; what no database takes stands beside, or written out."""
    assert carried(value) == (column, beside)
