"""Every loaded table once: its columns, their types and meaning, and its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import pyarrow as pa

if TYPE_CHECKING:
    from dlt.common.schema.typing import TColumnSchema, TTableSchemaColumns

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
TEXT: Final = pa.string()
BIGINT: Final = pa.int64()
DECIMAL: Final = pa.decimal128(18, 4)
BOOL: Final = pa.bool_()

JSON: Final = "json"
_ARROW_TO_DLT: Final[dict[pa.DataType, TColumnSchema]] = {
    TIMESTAMP: {"data_type": "timestamp", "timezone": True, "precision": 6},
    TEXT: {"data_type": "text"},
    BIGINT: {"data_type": "bigint"},
    DECIMAL: {"data_type": "decimal", "precision": 18, "scale": 4},
    BOOL: {"data_type": "bool"},
}


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, its meaning, and whether it may be null."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = True
    json: bool = False

    def to_dlt(self) -> TColumnSchema:
        """Return the column as a dlt hint."""
        hint: TColumnSchema = {**_ARROW_TO_DLT[self.type]}
        if self.json:
            hint = {"data_type": JSON}
        hint["name"] = self.name
        hint["nullable"] = self.nullable
        hint["description"] = self.description
        return hint


@dataclass(frozen=True)
class Table:
    """One table: what it holds, its columns, and how a later load meets it.

    Rows are merged on their ``key``, so that a load may be repeated. A table
    with a ``replace_by`` has its rows replaced as a whole where those agree.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    replace_by: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema in which rows travel."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    def to_dlt(self) -> TTableSchemaColumns:
        """Return the columns as dlt hints."""
        return {column.name: column.to_dlt() for column in self.columns}


def stamp(rows: pa.Table, load_id: str) -> pa.Table:
    """Let rows have the id of their load, unless they have one."""
    if "load_id" in rows.column_names:
        return rows
    load_ids = pa.repeat(pa.scalar(load_id, TEXT), len(rows))
    return rows.append_column(pa.field("load_id", TEXT, nullable=False), load_ids)


def _required(name: str, kind: pa.DataType, description: str) -> Column:
    return Column(name, kind, description, nullable=False)


def without_load_id(table: Table) -> pa.Schema:
    """Return a table's schema as it is before a load stamps its rows."""
    return table.schema.remove(table.schema.get_field_index("load_id"))


_LOAD_ID = _required("load_id", TEXT, "dlt's load package; see _dlt_loads")

_RUN_ID = Column("run_id", TEXT, "The run of sync that loaded it; null in plain dlt")

State = Literal["final", "pending", "missing", "failed", "expired"]
STATES: Final[tuple[State, ...]] = (
    "final",
    "pending",
    "missing",
    "failed",
    "expired",
)
SETTLED: Final[tuple[State, ...]] = ("final", "expired")

REF_IDS: Final = Table(
    "ref_ids",
    "The ledger: one row per RefId, with what is known and when to ask again.",
    (
        _required("oa_id", TEXT, "Official Account that sent the message"),
        _required("ref_id", TEXT, "eSMS's id of the message, as the warehouse has it"),
        Column("sent_at", TIMESTAMP, "When it was sent, by the warehouse"),
        _required("state", TEXT, f"One of {', '.join(STATES)}"),
        _required("attempts", BIGINT, "How many times it was asked"),
        _required("first_polled_at", TIMESTAMP, "When it was first asked"),
        _required("last_polled_at", TIMESTAMP, "When it was last asked"),
        Column("next_poll_at", TIMESTAMP, "When to ask again; null when settled"),
        Column("last_error", TEXT, "Why the last request had no usable answer"),
        Column("chosen", BOOL, "Came by choice, not by reading the table in order"),
        Column("first_answered_at", TIMESTAMP, "When the API first answered"),
        Column("failed_since", TIMESTAMP, "Since when it fails alone, if it does"),
        Column("final_at", TIMESTAMP, "When it first became final; never moved"),
        _LOAD_ID,
    ),
    key=("oa_id", "ref_id"),
)

CALLBACKS: Final = Table(
    "callbacks",
    "What the API answered: one row per callback of a RefId. A later answer with rows"
    " replaces them, one without takes none away.",
    (
        _required("oa_id", TEXT, "Official Account that was asked for"),
        _required("ref_id", TEXT, "RefId in the warehouse's spelling"),
        _required("row_no", BIGINT, "Number of the row in its answer"),
        _required("delivery", TEXT, "delivered, failed, partial or pending"),
        Column("phone_number", TEXT, "Receiver: phone, Zalo user id or hash"),
        Column("send_status", BIGINT, "How far sending got; see send_statuses"),
        Column("send_success", BIGINT, "Receivers that were reached"),
        Column("send_failed", BIGINT, "Receivers that were not reached"),
        Column("total_price", DECIMAL, "Price in VND"),
        Column("total_receiver", BIGINT, "Receivers"),
        Column("total_sent", BIGINT, "Messages sent; the API isn't reliable here"),
        Column("request_id", TEXT, "Sender's own id of the request"),
        Column("type_id", BIGINT, "Message type; see message_types"),
        Column("telco_id", BIGINT, "Receiver's telco; see telcos"),
        Column("callback_url", TEXT, "Where the push callback goes, without query"),
        Column("partner_ids", TEXT, "Zalo's id of the message"),
        Column("zns_temp_id", TEXT, "ZNS template"),
        Column("error_info", TEXT, "ErrorInfo as it came"),
        Column("error_code", BIGINT, "Code in ErrorInfo; see error_codes"),
        Column("error_message", TEXT, "Message in ErrorInfo"),
        Column("error_detail", TEXT, "Text around the JSON of ErrorInfo"),
        Column("error_data", TEXT, "Further data in ErrorInfo", json=True),
        Column("error_at", TIMESTAMP, "Time at the end of ErrorInfo"),
        Column("extra", TEXT, "What had no column, by the API's names", json=True),
        Column("answered_by", TEXT, "Which endpoint said it: callback or query"),
        _required("polled_at", TIMESTAMP, "When the answer came"),
        _LOAD_ID,
    ),
    key=("oa_id", "ref_id", "row_no"),
    replace_by=("oa_id", "ref_id"),
)

API_REQUESTS: Final = Table(
    "api_requests",
    "One row per request: asked = answered + missing + failed.",
    (
        _required("request_no", BIGINT, "Number of the request in its load"),
        _required("oa_id", TEXT, "Official Account that was asked for"),
        _required("started_at", TIMESTAMP, "When the first attempt was sent"),
        _required("asked", BIGINT, "RefIds in the request"),
        _required("answered", BIGINT, "RefIds with at least one row"),
        _required("missing", BIGINT, "RefIds without a row"),
        _required("failed", BIGINT, "RefIds without a usable answer"),
        _required("rows", BIGINT, "Rows in the answer"),
        _required("rejected", BIGINT, "Rows that couldn't be placed"),
        _required("attempts", BIGINT, "How often it was sent"),
        _required("waited_ms", BIGINT, "Time spent waiting for the rate or a retry"),
        _required("latency_ms", BIGINT, "Time of the last attempt"),
        Column("http_status", BIGINT, "HTTP status of the last answer"),
        Column("api_code", BIGINT, "The API's code in the last answer"),
        Column("api_message", TEXT, "The API's message, or what went wrong"),
        _required("outcome", TEXT, "answered, failed, refused or split"),
        Column("endpoint", TEXT, "Which endpoint was asked: callback or query"),
        Column("ended_at", TIMESTAMP, "When the last attempt ended"),
        _RUN_ID,
        _LOAD_ID,
    ),
    key=("load_id", "request_no"),
)

REJECTED_ROWS: Final = Table(
    "rejected_rows",
    "Rows of an answer that couldn't be placed.",
    (
        _required("request_no", BIGINT, "Request that they came with"),
        _required("row_no", BIGINT, "Number of the row in its answer"),
        _required("reason", TEXT, "Why they couldn't be placed"),
        Column("row", TEXT, "The row as it came", nullable=False, json=True),
        _required("polled_at", TIMESTAMP, "When the answer came"),
        _RUN_ID,
        _LOAD_ID,
    ),
    key=("load_id", "request_no", "row_no"),
)

POLLED: Final = (REF_IDS, CALLBACKS, API_REQUESTS, REJECTED_ROWS)
"""The tables that one slice of polling fills."""


def _labels(name: str, description: str, id_description: str) -> Table:
    return Table(
        name,
        description,
        (
            _required("id", BIGINT, id_description),
            _required("name_en", TEXT, "Its name in English"),
            _required("name_vi", TEXT, "Its name in Vietnamese"),
        ),
        key=("id",),
    )


SEND_STATUSES: Final = _labels(
    "send_statuses", "What a send_status means.", "SendStatus of the API"
)
MESSAGE_TYPES: Final = _labels(
    "message_types", "What a type_id means.", "TypeId of the API"
)
TELCOS: Final = _labels("telcos", "What a telco_id means.", "Telcoid of the API")

ERROR_CODES: Final = Table(
    "error_codes",
    "What an error_code means, and who can do something about it.",
    (
        _required("code", BIGINT, "Code in ErrorInfo, or of an answer"),
        _required("source", TEXT, "Whose code it is: zalo (0 and below) or esms"),
        _required("meaning_en", TEXT, "Its meaning in English"),
        _required("meaning_vi", TEXT, "Its meaning in Vietnamese"),
        _required("category", TEXT, "What it is about, such as recipient or quota"),
        Column("retryable", BOOL, "Whether sending again can help"),
        _required("who_can_fix", TEXT, "Who can do something about it"),
    ),
    key=("code", "source"),
)

_NAMED_AT = _required("named_at", TIMESTAMP, "When eSMS was last asked for it")

OAS: Final = Table(
    "oas",
    "Names of the OAs that callbacks name; asked again after a day.",
    (
        _required("oa_id", TEXT, "Official Account"),
        Column("name", TEXT, "Its name; null where eSMS doesn't list it"),
        _NAMED_AT,
    ),
    key=("oa_id",),
)

TEMPLATES: Final = Table(
    "templates",
    "Names of the ZNS templates that callbacks name; asked again after a day.",
    (
        _required("oa_id", TEXT, "Official Account that it belongs to"),
        _required("zns_temp_id", TEXT, "ZNS template"),
        Column("name", TEXT, "Its name; null where eSMS doesn't list it"),
        _NAMED_AT,
    ),
    key=("oa_id", "zns_temp_id"),
)

SENT_MESSAGES: Final = Table(
    "sent_messages",
    "What eSMS says was sent, ZNS and SMS; filled where sent_messages is set.",
    (
        _required("ref_id", TEXT, "RefId of the message"),
        Column("sms_type", BIGINT, "SmsType: 24 and 25 are ZNS, 2 is SMS"),
        Column("sent_at", TIMESTAMP, "When it was sent, by eSMS"),
        Column("phone_number", TEXT, "Receiver: phone, Zalo user id or hash"),
        Column("campaign", TEXT, "Campaign that the sender named"),
        Column("price", DECIMAL, "Price in VND"),
        Column("send_result", BIGINT, "1 good, 0 failed, 2 not known yet"),
        Column("send_status", BIGINT, "How far sending got; see send_statuses"),
        Column("sms_id", BIGINT, "Number of the message on eSMS's screen"),
        Column("extra", TEXT, "What had no column, by the API's names", json=True),
        _required("read_at", TIMESTAMP, "When eSMS was asked for it"),
    ),
    key=("ref_id",),
)

RUNS: Final = Table(
    "runs",
    "One row per run of sync that began; a killed one leaves none.",
    (
        _required("run_id", TEXT, "The run's id"),
        _required("started_at", TIMESTAMP, "When it began"),
        _required("ended_at", TIMESTAMP, "When it ended"),
        _required("pipeline_name", TEXT, "dlt's name of its pipeline"),
        _required("version", TEXT, "Version of this package"),
        _required("compared_all", BOOL, "Whether it reached all of the warehouse"),
        _required("planned", BIGINT, "RefIds that were to be asked"),
        _required("asked", BIGINT, "RefIds asked"),
        _required("answered", BIGINT, "RefIds with at least one row"),
        _required("missing", BIGINT, "RefIds without a row"),
        _required("failed", BIGINT, "RefIds without a usable answer"),
        _required("rejected", BIGINT, "Rows that couldn't be placed"),
        _required("misfits", BIGINT, "Values that didn't fit their column"),
        _required("skipped_no_ref_id", BIGINT, "Rows of the warehouse without RefId"),
        _required("skipped_no_oa_id", BIGINT, "Rows of the warehouse without OA"),
        _required(
            "unreadable", BIGINT, "Rows of the warehouse whose time is unreadable"
        ),
        _required("requests", BIGINT, "Requests that ended"),
        _required("exit_code", BIGINT, "0 done, 1 something failed"),
        Column("error", TEXT, "Why it ended early, or what failed most"),
    ),
    key=("run_id",),
)

SMALL: Final = (SEND_STATUSES, MESSAGE_TYPES, TELCOS, ERROR_CODES)
"""The tables that come with the package, from its ``codes/*.csv``."""

NAMED: Final = (OAS, TEMPLATES)
"""The tables of names."""

ELSEWHERE: Final = (*NAMED, SENT_MESSAGES)
"""The tables that eSMS's other endpoints fill."""

TABLES: Final = (*POLLED, *SMALL, *ELSEWHERE)

ANSWERED_BY_LOAD: Final = "answered_by_load"
"""In files: the load whose callbacks of a RefId count."""

FIXED: Final = frozenset((*(c.name for c in REF_IDS.columns), ANSWERED_BY_LOAD))
"""Columns of the ledger that are never carried ones."""


def is_carried(column: str) -> bool:
    """Tell whether a column of the ledger was carried over from the warehouse."""
    return column.lower() not in FIXED and not column.lower().startswith("_dlt_")


VARIANT: Final = "__v_text"
"""What follows the name of a carried column that holds what its own doesn't take.

As dlt names variants: https://dlthub.com/docs/general-usage/schema#variant-columns
"""

CALLBACK: Final = "callback"
"""GetCallback, as ``answered_by`` and ``endpoint`` name it."""

QUERY: Final = "query"
"""QueryZnsStatus, in the same places."""

SCHEMA: Final = "esms"
"""dlt's name of the schema that all tables are in."""

LOADS: Final = "_dlt_loads"
"""dlt's own table of completed loads."""
