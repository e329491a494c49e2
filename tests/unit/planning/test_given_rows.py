from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import dlt
import duckdb
import pyarrow as pa
import pytest

from esms_source.exceptions import RefIdTableError
from esms_source.planning.planner import Choice, make_plan

AS_OF = datetime(2026, 3, 10, tzinfo=timezone.utc)


class Stream:
    """What pandas, polars and DuckDB offer: Arrow's stream, and an own iteration."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, schema: object = None) -> object:
        """Hand the rows over."""
        return self._table.__arrow_c_stream__(schema)

    def __iter__(self):
        """Yield the columns' names, as data frames do."""
        return iter(self._table.column_names)


@pytest.fixture
def ask(output, make_settings):
    """Return what is planned of given rows."""

    def one(rows, *, only=False, **settings):
        given = {"oa_id": "oa"} | settings
        choice = Choice(only=rows) if only else Choice()
        rows = None if only else rows
        made = make_plan(output.pipeline(), make_settings(**given), choice, AS_OF, rows)
        found = [row for page in made.pages() for row in page.to_pylist()]
        made.close()
        return found

    return one


def ref_ids(rows):
    return sorted(row["ref_id"] for row in rows)


AB = pa.table({"ref_id": ["a", "b"]})


@pytest.mark.parametrize(
    "make",
    [
        lambda: Stream(AB),
        lambda: [Stream(AB)],
        lambda: AB,
        lambda: AB.to_batches()[0],
        AB.to_reader,
        lambda: AB["ref_id"],
        lambda: duckdb.sql("SELECT unnest(['a', 'b']) AS ref_id"),
        lambda: iter(["a", "b"]),
        lambda: dlt.resource([{"ref_id": "a"}, {"ref_id": "b"}], name="r"),
        lambda: dlt.resource([AB], name="r"),
    ],
    ids=[
        "a stream",
        "streams",
        "a table",
        "a batch",
        "a reader",
        "a column",
        "a relation of DuckDB",
        "a generator",
        "a resource of dicts",
        "a resource of tables",
    ],
)
@pytest.mark.parametrize("only", [False, True])
def test_ref_ids_come_in_any_form(make, only, ask):
    """Section 2: also from what iterates over its columns' names."""
    assert ref_ids(ask(make(), only=only)) == ["a", "b"]


@pytest.mark.parametrize(
    "rows", ["abc", b"abc", 7, [("a",)], [b"a"], [["a"]], [1.5]], ids=repr
)
def test_any_other_form_is_refused(rows, ask):
    """With what to give instead."""
    with pytest.raises(RefIdTableError, match="__arrow_c_stream__"):
        ask(rows)


BIG = 1090257973118325189


@pytest.mark.parametrize("name", ["ref_id", "oa_id"])
@pytest.mark.parametrize(
    "make",
    [
        lambda row: [{n: float(v) for n, v in row.items()}],
        lambda row: pa.table({n: [float(v)] for n, v in row.items()}),
        lambda row: Stream(pa.table({n: [float(v)] for n, v in row.items()})),
    ],
    ids=["dicts", "a table", "a stream"],
)
def test_ids_that_were_rounded_are_refused(name, make, ask):
    """A float above 2^53 is another id than it was; the column is named."""
    row = {"ref_id": 7, "oa_id": 8} | {name: BIG}
    with pytest.raises(RefIdTableError, match=f"'{name}'.*cast it to text"):
        ask(make(row))


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT"])
@pytest.mark.parametrize("name", ["ref_id", "oa_id"])
def test_ids_of_a_table_that_were_rounded_are_refused(kind, name, warehouse, ask):
    """The same in the warehouse, before anything is asked."""
    row = {"ref_id": "7", "oa_id": "8"} | {name: f"{BIG}::{kind}"}
    columns = ", ".join(f"{value} AS {column}" for column, value in row.items())
    warehouse.execute(f"CREATE TABLE sent AS SELECT {columns}")
    warehouse.use(oa_id_column="oa_id")
    with pytest.raises(RefIdTableError, match=f"'{name}'.*cast it to text"):
        ask(None)


@pytest.mark.parametrize(
    "value",
    [29028845, 29028845.0, Decimal(29028845), Decimal("29028845.0")],
    ids=repr,
)
def test_whole_numbers_are_ids_without_a_point(value, ask):
    """However Python holds them."""
    assert ref_ids(ask([{"ref_id": value}])) == ["29028845"]
    assert ref_ids(ask(pa.table({"ref_id": [value]}))) == ["29028845"]


def test_a_float_that_is_no_number_is_no_id(ask):
    """Data frames write it for what is missing."""
    assert ask([{"ref_id": float("nan")}]) == []
    assert ask(pa.table({"ref_id": [float("nan")]})) == []


def test_a_column_may_widen_from_part_to_part(ask):
    """Whole numbers and fractions become what holds both exactly."""
    parts = [
        pa.table({"ref_id": ["a"], "n": [2**53 + 1]}),
        pa.table({"ref_id": ["b"], "n": [0.5]}),
        pa.table({"ref_id": ["c"], "n": ["x"]}),
    ]
    rows = ask(parts, ref_ids={"carry": ["n"]})
    assert {row["n"] for row in rows} == {str(2**53 + 1), "0.5", "x"}


def test_texts_that_no_database_takes_are_written_out(ask):
    """NUL and half an emoji, also inside lists and dicts, which become JSON."""
    rows = [
        {
            "ref_id": "a",
            "word": "x\0\ud83d",
            "nested": {"k": ["\udc00", 1]},
        }
    ]
    (row,) = ask(rows, ref_ids={"carry": ["word", "nested"]})
    assert row["word"] == "x\\u0000\\ud83d"
    assert row["nested"] == '{"k":["\\\\udc00",1]}'
