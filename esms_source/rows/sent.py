"""Rows of GetSmsSentData_V2 to rows of ``sent_messages``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from esms_source.api.lenient_reader import typed
from esms_source.privacy import Privacy
from esms_source.storable import to_json
from esms_source.tables import SENT_MESSAGES, TEXT, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esms_source.config import Settings

COLUMN_OF: Final = {
    "SmsType": "sms_type",
    "Phone": "phone_number",
    "Campaign": "campaign",
    "SellPrice": "price",
    "SendResult": "send_result",
    "SendStatus": "send_status",
    "SmsId": "sms_id",
}
"""The column of each field whose value it takes as it comes, by the API's name."""

UNREAD: Final = frozenset({*COLUMN_OF, "ReferenceId", "SentTime", "Content"})
"""Fields that have a column, and the content of the message, which isn't loaded."""

_DATE: Final = re.compile(r"/Date\((-?\d{1,15})(?:[+-]\d{4})?\)/")


def read_sent(
    rows: Sequence[dict[str, Any]], settings: Settings, now: datetime
) -> tuple[pa.Table, int]:
    """Read some rows; a later one of a RefId takes the place of an earlier one.

    Args:
        rows: As eSMS lists them.
        settings: What is hidden.
        now: When they were read, in UTC.

    Returns:
        The rows of the table, and how many had no RefId.
    """
    by_id = {_ref_id(row): row for row in rows}
    without = sum(not _ref_id(row) for row in rows)
    by_id.pop("", None)
    found = list(by_id.values())
    privacy = Privacy(settings)
    extras = [{name: row[name] for name in row if name not in UNREAD} for row in found]
    kinds = {column.name: column.type for column in SENT_MESSAGES.columns}
    columns: dict[str, Any] = {"ref_id": pa.array(by_id, TEXT)}
    for api_name, name in COLUMN_OF.items():
        values = [row.get(api_name) for row in found]
        columns[name], odd = typed(values, kinds[name])
        for index in odd:
            extras[index][api_name] = values[index]
    moments = [_moment(row.get("SentTime")) for row in found]
    for row, moment, extra in zip(found, moments, extras, strict=True):
        if moment is None and row.get("SentTime") is not None:
            extra["SentTime"] = row["SentTime"]
    jsons = [to_json(privacy.scrub(extra)) if extra else None for extra in extras]
    columns |= {
        "sent_at": pa.array(moments, TIMESTAMP),
        "phone_number": privacy.hide_phones(
            pa.chunked_array([columns["phone_number"]])
        ),
        "extra": pa.array(jsons, TEXT),
        "read_at": pa.repeat(pa.scalar(now, TIMESTAMP), len(found)),
    }
    schema = SENT_MESSAGES.schema
    return pa.table([columns[name] for name in schema.names], schema=schema), without


def _ref_id(row: dict[str, Any]) -> str:
    value = row.get("ReferenceId")
    return (
        "" if isinstance(value, (bool, list, dict, type(None))) else str(value).strip()
    )


def _moment(text: object) -> datetime | None:
    """Read .NET's ``/Date(1705484048995+0700)/``: milliseconds, whatever the zone."""
    match = _DATE.fullmatch(str(text))
    if match is None:
        return None
    try:
        epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
        return epoch + timedelta(milliseconds=int(match[1]))
    except OverflowError:
        return None
