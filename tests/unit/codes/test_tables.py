from __future__ import annotations

import pyarrow.compute as pc
import pytest

from esms_source.codes import read_code_table, small_tables
from esms_source.simulator.api_rows import FAILURES, SEND_STATUSES_NOT_FINAL
from esms_source.tables import ELSEWHERE, ERROR_CODES, SEND_STATUSES, SMALL, Table


@pytest.mark.parametrize("table", SMALL, ids=lambda table: table.name)
def test_no_cell_of_a_text_column_is_blank(table: Table):
    """Every code has all its texts."""
    rows = read_code_table(table).to_pylist()
    assert rows
    for row in rows:
        for value in row.values():
            assert not isinstance(value, str) or value.strip() == value != ""


@pytest.mark.parametrize("table", SMALL, ids=lambda table: table.name)
def test_the_key_is_unique(table: Table):
    """A join on the key of a small table can't double rows."""
    rows = read_code_table(table)
    assert len(rows.group_by(list(table.key)).aggregate([])) == len(rows)


def test_the_sign_of_a_code_tells_its_source():
    """The views join on that rule: above 0 eSMS's, else Zalo's."""
    codes = read_code_table(ERROR_CODES)
    sources = pc.if_else(pc.greater(codes["code"], 0), "esms", "zalo")
    assert sources.to_pylist() == codes["source"].to_pylist()


def test_codes_that_answers_show_are_known():
    """All documented codes of the simulator's failures have a meaning."""
    known = set(read_code_table(ERROR_CODES)["code"].to_pylist())
    invented = {-1999, -31337}
    assert {code for code, _ in FAILURES} - known == invented


def test_send_statuses_that_answers_show_are_known():
    """All documented SendStatus values have a name."""
    known = read_code_table(SEND_STATUSES)["id"].to_pylist()
    assert {*SEND_STATUSES_NOT_FINAL, 4, 5} <= set(known)


def test_resources_are_named_like_their_tables_and_merged_by_their_key():
    """A load of the small tables doubles nothing."""
    resources = small_tables()
    names = [table.name for table in (*SMALL, *ELSEWHERE)]
    assert [resource.name for resource in resources] == names
    for resource in resources:
        assert resource.write_disposition == {
            "disposition": "merge",
            "strategy": "delete-insert",
        }
