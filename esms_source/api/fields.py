"""The fields of a row of ``Data_callback``, and the columns that they fill."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from esms_source.tables import BIGINT, CALLBACKS, TEXT

COLUMN_OF: Final = {
    "PhoneNumber": "phone_number",
    "SendStatus": "send_status",
    "SendSuccess": "send_success",
    "SendFailed": "send_failed",
    "TotalPrice": "total_price",
    "TotalReceiver": "total_receiver",
    "TotalSent": "total_sent",
    "RequestId": "request_id",
    "TypeId": "type_id",
    "Telcoid": "telco_id",
    "CallbackUrl": "callback_url",
    "Partnerids": "partner_ids",
    "ZnsTempId": "zns_temp_id",
}
"""The column of each field whose value it takes as it comes, by the API's name.

Source: the GetCallback page of eSMS's API docs.
"""

KNOWN: Final = frozenset({"SMSID", "OAId", "ErrorInfo", *COLUMN_OF})

TYPE_OF: Final = {column.name: column.type for column in CALLBACKS.columns}
"""The type of each column of ``callbacks``."""

TYPED: Final = pa.schema(
    [
        pa.field("place", BIGINT),
        pa.field("row_no", BIGINT),
        *(pa.field(name, TYPE_OF[name]) for name in COLUMN_OF.values()),
        pa.field("error_info", TEXT),
        pa.field("extra", TEXT),
    ]
)
"""The rows of one answer once they are typed.

``place`` is the number, from 0, of the row's RefId among those that were asked.
"""

MAX_EXPONENT: Final = 400
"""Beyond 1E+400 or 1E-400 no number is read as one: Arrow crashes over the farthest."""
