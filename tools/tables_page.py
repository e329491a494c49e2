"""The page of all tables and views, with a row of each as its example."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa

from esms_source.codes import read_code_table
from esms_source.config import Settings
from esms_source.tables import (
    API_REQUESTS,
    CALLBACKS,
    ERROR_CODES,
    LOADS,
    OAS,
    REF_IDS,
    REJECTED_ROWS,
    RUNS,
    SENT_MESSAGES,
    SMALL,
    TABLES,
    TEMPLATES,
    Table,
)
from esms_source.views import NAMES, read_view, setting_values

if TYPE_CHECKING:
    from collections.abc import Iterable

SENT_AT: Final = datetime(2026, 1, 5, 2, 30, tzinfo=timezone.utc)
POLLED_AT: Final = datetime(2026, 1, 5, 3, 15, 8, 120_000, tzinfo=timezone.utc)
REF_ID: Final = "4a496110-9fd3-4838-ac8b-bcaa36616f7011"
OA_ID: Final = "1090257973118325189"
RUN_ID: Final = "5f1d0c9a4be24d3f9f6c1f8f6f0d6a51"
LOAD_ID: Final = "1767582908.0123456"
ERROR_CODE: Final = -118
ERROR: Final = '{"error":-118,"message":"Zalo account not existed","data":{"n":1}}'

EXAMPLES: Final[dict[Table, dict[str, Any]]] = {
    REF_IDS: {
        "oa_id": OA_ID,
        "ref_id": REF_ID,
        "sent_at": SENT_AT,
        "state": "pending",
        "attempts": 2,
        "first_polled_at": SENT_AT,
        "last_polled_at": POLLED_AT,
        "next_poll_at": POLLED_AT,
        "last_error": "HTTP 503",
        "chosen": False,
        "first_answered_at": SENT_AT,
        "failed_since": POLLED_AT,
        "final_at": POLLED_AT,
        "load_id": LOAD_ID,
    },
    CALLBACKS: {
        "oa_id": OA_ID,
        "ref_id": REF_ID,
        "row_no": 1,
        "delivery": "failed",
        "phone_number": "0909090909",
        "send_status": 5,
        "send_success": 0,
        "send_failed": 1,
        "total_price": Decimal("330.0000"),
        "total_receiver": 1,
        "total_sent": 1,
        "request_id": "req-000417",
        "type_id": 25,
        "telco_id": 1,
        "callback_url": "https://crm.example.vn/zns/callback",
        "partner_ids": "7984e9b198c40e9957d6",
        "zns_temp_id": "228386",
        "error_info": ERROR + "____05/01/2026 09:30:01",
        "error_code": ERROR_CODE,
        "error_message": "Zalo account not existed",
        "error_detail": "Object reference not set to an instance of an object.",
        "error_data": '{"n":1}',
        "error_at": datetime(2026, 1, 5, 2, 30, 1, tzinfo=timezone.utc),
        "extra": '{"SwitchSmsId":""}',
        "answered_by": "callback",
        "polled_at": POLLED_AT,
        "load_id": LOAD_ID,
    },
    API_REQUESTS: {
        "request_no": 1,
        "oa_id": OA_ID,
        "started_at": POLLED_AT,
        "asked": 200,
        "answered": 198,
        "missing": 2,
        "failed": 0,
        "rows": 203,
        "rejected": 1,
        "attempts": 1,
        "waited_ms": 12,
        "latency_ms": 341,
        "http_status": 200,
        "api_code": 100,
        "api_message": "Success",
        "outcome": "answered",
        "endpoint": "callback",
        "ended_at": POLLED_AT,
        "run_id": RUN_ID,
        "load_id": LOAD_ID,
    },
    REJECTED_ROWS: {
        "request_no": 1,
        "row_no": 17,
        "reason": "no SMSID",
        "row": '{"SMSID":null,"SendStatus":5}',
        "polled_at": POLLED_AT,
        "run_id": RUN_ID,
        "load_id": LOAD_ID,
    },
    RUNS: {
        "run_id": RUN_ID,
        "started_at": POLLED_AT,
        "ended_at": POLLED_AT,
        "pipeline_name": "esms",
        "version": "0.2.0",
        "compared_all": True,
        "planned": 41_000,
        "asked": 41_000,
        "answered": 40_650,
        "missing": 150,
        "failed": 200,
        "rejected": 1,
        "misfits": 0,
        "skipped_no_ref_id": 3,
        "skipped_no_oa_id": 0,
        "unreadable": 0,
        "requests": 206,
        "exit_code": 1,
        "error": "HTTP 503",
    },
    OAS: {"oa_id": OA_ID, "name": "Cửa hàng Sao Mai", "named_at": POLLED_AT},
    TEMPLATES: {
        "oa_id": OA_ID,
        "zns_temp_id": "228386",
        "name": "Xác nhận đơn hàng",
        "named_at": POLLED_AT,
    },
    SENT_MESSAGES: {
        "ref_id": REF_ID,
        "sms_type": 25,
        "sent_at": SENT_AT,
        "phone_number": "0909090909",
        "campaign": "Tết 2026",
        "price": Decimal("330.0000"),
        "send_result": 0,
        "send_status": 5,
        "sms_id": 29_028_845,
        "extra": '{"SandBox":"0"}',
        "read_at": POLLED_AT,
    },
    **{table: read_code_table(table).to_pylist()[0] for table in SMALL},
    ERROR_CODES: next(
        row
        for row in read_code_table(ERROR_CODES).to_pylist()
        if row["code"] == ERROR_CODE
    ),
}
"""A row of every table, as the docs show it."""

TYPES: Final = {
    "VARCHAR": "text",
    "DOUBLE": "double",
    "DECIMAL(18,4)": "decimal(18,4)",
    "DECIMAL(38,4)": "decimal",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
}
"""DuckDB's names of types that the docs call otherwise."""

DIAGRAM: Final = """```mermaid
erDiagram
    ref_ids ||--o{ callbacks : "oa_id, ref_id"
    callbacks }o--o| send_statuses : "send_status = id"
    callbacks }o--o| message_types : "type_id = id"
    callbacks }o--o| telcos : "telco_id = id"
    callbacks }o--o| oas : oa_id
    callbacks }o--o| templates : "oa_id, zns_temp_id"
    ref_ids |o--o| sent_messages : ref_id
    callbacks }o--o| error_codes : "error_code = code, source by its sign"
    runs ||--o{ api_requests : run_id
    api_requests ||--o{ rejected_rows : "load_id, request_no"
    _dlt_loads ||--o{ api_requests : load_id
    _dlt_loads ||--o{ callbacks : load_id
    _dlt_loads ||--o{ ref_ids : load_id
    ref_ids ||--|| messages : "oa_id, ref_id"
```"""

INTRO: Final = """# Tables and views

All of it is in the dataset (`zalo` by default). Times are UTC; days are cut in the
setting `timezone`. Begin with the view `messages`: one row per RefId, everything joined
and labelled. The views are made by `esms run` (and by `sync` in Python) on DuckDB and
PostgreSQL; plain `pipeline.run(esms_source())` loads the tables only, and the next
`esms run` makes the views. A code or id that the small tables don't know shows as
*unknown*; where meanings come from: [codes.md](codes.md). On those databases every
description but those of `runs` stands in the catalog, too (`COMMENT ON`).

"""


def tables_page() -> str:
    """Return docs/tables.md but for its first line."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        _fill(connection)
        parts = [
            INTRO,
            DIAGRAM,
            "\n\n## Tables\n",
            *(_table_section(table) for table in (*TABLES, RUNS)),
            "\n## Views\n",
            *(_view_section(connection, name) for name in NAMES),
        ]
    return "".join(parts)


def _fill(connection: duckdb.DuckDBPyConnection) -> None:
    """Make all tables with one row each, and the views on them."""
    for table, row in EXAMPLES.items():
        example = pa.Table.from_pylist([row], schema=table.schema)
        connection.register("example", example)
        connection.execute(f'CREATE TABLE "{table.name}" AS FROM example')
    connection.execute(
        f"CREATE TABLE {LOADS} AS SELECT '{LOAD_ID}' AS load_id, 0 AS status,"
        " TIMESTAMPTZ '2026-01-05 03:15:12+00' AS inserted_at"
    )
    names = [*(table.name for table in TABLES), LOADS, *NAMES]
    values = {name: name for name in names} | setting_values(Settings())
    values |= {"carried_from_ledger": "", "carried_from_facts": ""}
    for name in NAMES:
        sql = read_view(name).sql.format_map(values)
        connection.execute(f"CREATE VIEW {name} AS {sql}")


def _table_section(table: Table) -> str:
    example = EXAMPLES[table]
    key = ", ".join(f"`{name}`" for name in table.key)
    rows = (
        (
            column.name,
            "json" if column.json else _type(table, column.name),
            "" if column.nullable else "never null",
            column.description,
            example[column.name],
        )
        for column in table.columns
    )
    more = "\nCarried columns follow.\n" if table is REF_IDS else ""
    return (
        f"\n### {table.name}\n\n{table.description} Key: {key}.\n\n{_grid(rows)}{more}"
    )


def _type(table: Table, column: str) -> str:
    hint = table.to_dlt()[column]
    if hint["data_type"] == "timestamp":
        return "timestamptz"
    if hint["data_type"] == "decimal":
        return "decimal(18,4)"
    return str(hint["data_type"])


def _view_section(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    view = read_view(name)
    cursor = connection.execute(f"FROM {name} LIMIT 1")
    example = cursor.fetchone() or (None,) * len(view.columns)
    described = connection.execute(f"DESCRIBE {name}").fetchall()
    kinds = [row[1] for row in described]
    rows = (
        (column, TYPES.get(kind, kind.lower()), "", meaning, value)
        for (column, meaning), kind, value in zip(
            view.columns.items(), kinds, example, strict=True
        )
    )
    return f"\n### {name}\n\n{view.description}\n\n{_grid(rows)}"


def _grid(rows: Iterable[tuple[Any, ...]]) -> str:
    lines = ["| column | type | | meaning | example |", "|---|---|---|---|---|"]
    for name, kind, null, meaning, example in rows:
        lines.append(f"| `{name}` | {kind} | {null} | {meaning} | {_shown(example)} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    if value is None:
        return ""
    text = value.isoformat(" ") if isinstance(value, datetime) else str(value)
    if isinstance(value, float):
        text = f"{value:.6g}"
    return f"`{text}`"
