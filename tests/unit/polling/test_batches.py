from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from esms_source.ledger import WORK
from esms_source.polling.batches import batches


def work(*pairs):
    """Return planned RefIds as a table, from (oa_id, ref_id)."""
    rows = [{"oa_id": oa, "ref_id": ref} for oa, ref in pairs]
    return pa.Table.from_pylist(rows, schema=WORK)


def many(count):
    return work(*[("oa", f"r{n}") for n in range(count)])


LISTS = st.lists(
    st.lists(st.sampled_from(["one", "two", "three"]), max_size=30), max_size=5
)


@given(tables=LISTS, size=st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_batches_are_full_but_for_one_per_oa(tables, size):
    """Section 6.1: one OA each, at most batch_size, none twice, full across tables."""
    number = iter(range(1_000))
    planned = [[(oa, f"{next(number):04}") for oa in table] for table in tables]
    made = list(batches((work(*table) for table in planned), size))
    asked = [(batch.oa_id, ref_id) for batch in made for ref_id in batch.ref_ids]
    assert sorted(asked) == sorted(pair for table in planned for pair in table)
    assert all(1 <= len(batch.work) <= size for batch in made)
    for batch in made:
        assert set(batch.work["oa_id"].to_pylist()) == {batch.oa_id}
    not_full = Counter(batch.oa_id for batch in made if len(batch.work) < size)
    assert all(count == 1 for count in not_full.values())


@given(tables=LISTS, size=st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_within_an_oa_the_order_is_kept(tables, size):
    """Oldest first, so that a stop leaves nothing behind the window."""
    number = iter(range(1_000))
    planned = [work(*[(oa, f"{next(number):04}") for oa in table]) for table in tables]
    asked: dict[str, list[str]] = {}
    for batch in batches(planned, size):
        asked.setdefault(batch.oa_id, []).extend(batch.ref_ids)
    assert all(ref_ids == sorted(ref_ids) for ref_ids in asked.values())


def test_nothing_makes_no_batch():
    """No work, no request."""
    assert list(batches([], 200)) == []
    assert list(batches([work()], 200)) == []


def test_full_batches_leave_before_all_work_is_read():
    """A slice is asked while it is read."""
    tables = iter([many(4), many(4)])
    first = next(batches(tables, 3))
    assert len(first.work) == 3
    assert next(tables, None) is not None
