from __future__ import annotations

import pytest

from esms_source.config import resolve_settings
from esms_source.tables import REF_IDS, TABLES
from esms_source.views import NAMES, carried_columns, read_view, setting_values


@pytest.mark.parametrize("name", NAMES)
def test_every_view_says_what_it_shows(name: str):
    """Each file begins with a description and the meaning of every column."""
    view = read_view(name)
    assert view.description.endswith(".")
    assert view.columns
    assert all(view.columns.values())


def test_views_and_tables_have_different_names():
    """No view hides a table."""
    assert not {table.name for table in TABLES} & set(NAMES)


def test_a_view_stands_on_earlier_ones_only():
    """Views can be made in the order of their list."""
    for position, name in enumerate(NAMES):
        later = NAMES[position:]
        assert not [one for one in later if f"{{{one}}}" in read_view(name).sql]


def test_carried_columns_are_what_the_ledger_has_beyond_its_own():
    """Columns of the ledger itself and of dlt are not carried."""
    ledger = [*REF_IDS.schema.names, "campaign", "_dlt_id"]
    assert carried_columns(ledger, str) == {"campaign": "ledger.campaign"}


def test_a_carried_column_never_hides_one_of_the_view():
    """A name that the view has already is prefixed."""
    assert carried_columns(["outcome"], str) == {"carried_outcome": "ledger.outcome"}


def test_what_a_carried_column_does_not_take_is_no_second_column():
    """It stands in its place; a column that only has such a name is its own."""
    assert carried_columns(["a", "a__v_text", "b__v_text"], str) == {
        "a": "coalesce(CAST(ledger.a AS VARCHAR), ledger.a__v_text)",
        "b__v_text": "ledger.b__v_text",
    }


def test_settings_are_written_as_sql():
    """Texts are quoted and waits are whole seconds."""
    settings = resolve_settings(timezone="UTC", repoll_max=60.5, batch_size=50)
    assert setting_values(settings) == {
        "timezone": "'UTC'",
        "batch_size": "50",
        "requests_per_second": "20",
        "longest_wait": "'61 seconds'",
    }
