from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esms_source.tables import TABLES

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script that makes the page of the tables and the dbt models."""
    path = ROOT / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_tables_is_true(generate: ModuleType):
    """docs/tables.md is what tables.py and the views say now."""
    page = (ROOT / "docs" / "tables.md").read_text("utf-8")
    assert page == generate.tables_page()


def test_the_dbt_package_is_made_of_the_shipped_views(generate: ModuleType):
    """The SQL of models and views can't drift apart."""
    for path, text in generate.dbt_files().items():
        assert path.read_text("utf-8") == text


def test_every_column_of_a_table_has_an_example(generate: ModuleType):
    """No cell of the column of examples is empty for a table."""
    for table in TABLES:
        assert list(generate.EXAMPLES[table]) == table.schema.names
        assert None not in generate.EXAMPLES[table].values()
