from __future__ import annotations

import pyarrow as pa
import pytest

from esms_source.tables import (
    API_REQUESTS,
    CALLBACKS,
    POLLED,
    REF_IDS,
    REJECTED_ROWS,
    SETTLED,
    STATES,
    TIMESTAMP,
    without_load_id,
)

PROMISED = {
    REF_IDS: "oa_id ref_id sent_at state attempts first_polled_at last_polled_at"
    " next_poll_at last_error load_id",
    CALLBACKS: "oa_id ref_id delivery phone_number send_status send_success"
    " send_failed total_price total_receiver total_sent request_id type_id telco_id"
    " callback_url partner_ids zns_temp_id error_info error_code error_message"
    " error_detail error_data error_at extra polled_at load_id",
    API_REQUESTS: "request_no oa_id started_at asked answered missing failed rows"
    " rejected attempts waited_ms latency_ms http_status api_code api_message outcome"
    " load_id",
    REJECTED_ROWS: "request_no reason row polled_at load_id",
}


@pytest.mark.parametrize("table", POLLED, ids=lambda table: table.name)
def test_every_promised_column_is_there(table):
    """Users' SQL depends on these names: section 5 of the contract."""
    assert set(PROMISED[table].split()) <= {column.name for column in table.columns}


@pytest.mark.parametrize("table", POLLED, ids=lambda table: table.name)
def test_arrow_and_dlt_agree_on_what_may_be_null(table):
    """Otherwise dlt warns for every page."""
    hints = table.to_dlt()
    assert list(hints) == table.schema.names
    for field in table.schema:
        assert hints[field.name]["nullable"] == field.nullable


@pytest.mark.parametrize("table", POLLED, ids=lambda table: table.name)
def test_every_column_and_table_is_described(table):
    """Catalogues show these texts."""
    assert table.description.endswith(".")
    assert all(column.description for column in table.columns)


@pytest.mark.parametrize("table", POLLED, ids=lambda table: table.name)
def test_keys_are_columns_that_are_never_null(table):
    """A null in a key would break a merge."""
    keys = table.key or table.replace_by
    assert keys
    required = {column.name for column in table.columns if not column.nullable}
    assert set(keys) <= required


def test_all_times_carry_a_zone():
    """No timestamp without a zone leaves the program."""
    kinds = [c.type for t in POLLED for c in t.columns if pa.types.is_timestamp(c.type)]
    assert kinds
    assert set(kinds) == {TIMESTAMP}


def test_prices_are_exact_decimals():
    """Money is decimal(18,4), as promised."""
    hint = CALLBACKS.to_dlt()["total_price"]
    assert (hint["data_type"], hint["precision"], hint["scale"]) == ("decimal", 18, 4)


def test_json_columns_are_json():
    """Three columns hold JSON."""
    found = {
        f"{table.name}.{name}"
        for table in POLLED
        for name, hint in table.to_dlt().items()
        if hint["data_type"] == "json"
    }
    assert found == {"callbacks.error_data", "callbacks.extra", "rejected_rows.row"}


def test_states_are_those_of_the_contract():
    """Five states, two of them settled."""
    assert set(STATES) == {"final", "pending", "missing", "failed", "expired"}
    assert set(SETTLED) == {"final", "expired"}


def test_a_schema_can_do_without_the_load():
    """Rows are stamped last."""
    assert "load_id" not in without_load_id(CALLBACKS).names
