from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from esms_source.tables import TABLES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def scripts():
    """The folder of the scripts that write docs and dbt models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield importlib.import_module


def test_what_is_made_of_tables_and_views_is_true(scripts):
    """The page of the tables and the dbt package can't drift from tables and views."""
    made = scripts("generate").made_files()
    assert ROOT / "docs" / "tables.md" in made
    assert set(made) >= set((ROOT / "dbt" / "models").rglob("*.*"))
    for path, text in made.items():
        assert path.read_text("utf-8") == text


def test_every_column_of_a_table_has_an_example(scripts):
    """No cell of the column of examples is empty for a table."""
    examples = scripts("tables_page").EXAMPLES
    for table in TABLES:
        assert list(examples[table]) == table.schema.names
        assert None not in examples[table].values()
