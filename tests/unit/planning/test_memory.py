"""Planning in little memory, whatever its size."""

from __future__ import annotations

import os
import resource
from datetime import datetime, timezone

import pytest

from esms_source.planning.planner import Choice, make_plan
from esms_source.planning.scratch import Scratch

AS_OF = datetime(2026, 3, 10, tzinfo=timezone.utc)

needs_time = pytest.mark.skipif(
    not os.environ.get("ESMS_TEST_LONG"), reason="takes minutes: ESMS_TEST_LONG=1"
)

SENT = """
CREATE TABLE sent AS SELECT 'oa' || (i % 3) AS oa_id, md5(i::VARCHAR) || '07' AS ref_id,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(i) AS sent_at,
    repeat('x', {}) || i AS campaign
FROM range({}) AS t(i)
"""
AGAIN = """
INSERT INTO sent SELECT oa_id, ref_id, sent_at + INTERVAL 1 MINUTE, campaign
FROM sent WHERE hash(ref_id) % 10 < {}
"""
KNOWN = """
CREATE TABLE ref_ids AS SELECT oa_id, ref_id, sent_at, 'final' AS state,
    1::BIGINT AS attempts, sent_at AS first_polled_at, false AS chosen,
    NULL::TIMESTAMPTZ AS next_poll_at, NULL::VARCHAR AS last_error,
    'done' AS load_id, campaign
FROM w.sent WHERE hash(ref_id, 1) % 10 < {}
"""


@pytest.fixture
def plan(warehouse, output, make_settings):
    """Return what is planned of a warehouse of so many RefIds."""

    def one(count, *, doubles=0, known=0, text=5, memory="192 MB", **choice):
        warehouse.execute(SENT.format(text, count))
        names = {"oa_id_column": "oa_id", "sent_at_column": "sent_at"}
        warehouse.use(carry=["campaign"], lag=1e9, **names)
        if known:
            output.execute(
                "CREATE TABLE _dlt_loads AS SELECT 'done' load_id, 0 status",
                f"ATTACH '{warehouse.path}' AS w (READ_ONLY)",
                KNOWN.format(known),
            )
        warehouse.execute(AGAIN.format(doubles))
        settings = make_settings(planning_memory=memory)
        made = make_plan(output.pipeline(), settings, Choice(**choice), AS_OF)
        made.close()
        return made

    return one


@pytest.mark.parametrize(("doubles", "known"), [(0, 0), (10, 0), (1, 5)])
def test_what_does_not_fit_into_memory_goes_to_the_disk(
    doubles, known, plan, monkeypatch
):
    """Four times the limit, with doubles and with half of it known."""
    spilled = []
    write = Scratch.write

    def writing(scratch, values, path):
        write(scratch, values, path)
        spilled.extend(scratch.folder.joinpath("spilled").glob("*"))

    monkeypatch.setattr(Scratch, "write", writing)
    count = 150_000
    made = plan(count, doubles=doubles, known=known, text=600, memory="64 MB")
    assert spilled
    assert made.total == count - sum(oa.settled for oa in made.oas)
    assert known == 0 or made.total in range(70_000, 80_000)


@needs_time
@pytest.mark.parametrize(
    ("count", "doubles", "known"),
    [(10_000_000, 0, 0), (3_000_000, 1, 0), (3_000_000, 10, 0), (10_000_000, 0, 5)],
)
def test_millions_are_planned_within_the_limit(count, doubles, known, plan):
    """Ten million new ones; three with a tenth or all of them twice; half known."""
    made = plan(count, doubles=doubles, known=known)
    assert made.total == count - sum(oa.settled for oa in made.oas)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_000_000
