"""``Data_callback`` to Arrow: placed by RefId, typed column by column, nothing lost."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from esms_source.error_info import ParsedError, parse_error_info
from esms_source.tables import (
    BIGINT,
    CALLBACKS,
    DECIMAL,
    REJECTED_ROWS,
    TEXT,
    TIMESTAMP,
    without_load_id,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from esms_source.config import Settings
    from esms_source.tables import Table

REJECTED: Final = 4
DONE: Final = 5
"""SendStatus of a message that was refused, and of one whose sending has ended.

Source: the callback-url page of eSMS's API docs.
"""

API_FIELDS: Final = {
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
"""The API's name of each column that takes one value as it comes.

Source: the GetCallback page of eSMS's API docs.
"""

KNOWN_FIELDS: Final = frozenset({"SMSID", "OAId", "ErrorInfo", *API_FIELDS})
QUERY_OF_URL: Final = r"(?s)[?#].*"
INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True)
class RawAnswer:
    """The rows that came for one request.

    Attributes:
        request_no: The request's number in its load.
        oa_id: The OA that was asked for.
        ref_ids: The RefIds that were asked for.
        keep_final: Those of them whose final rows only final ones may replace.
        rows: ``Data_callback`` as it came.
        polled_at: When it came.
    """

    request_no: int
    oa_id: str
    ref_ids: Sequence[str]
    keep_final: frozenset[str]
    rows: Sequence[Any]
    polled_at: datetime


@dataclass
class ReadRows:
    """What the rows of some answers say.

    Attributes:
        callbacks: Rows of the table ``callbacks``, without ``load_id``.
        rejected: Rows of the table ``rejected_rows``, without ``load_id``.
        rejected_by_request: How many rows of each answer were rejected.
        is_final: By answer, then by RefId with rows: whether all are final.
    """

    callbacks: pa.Table
    rejected: pa.Table
    rejected_by_request: list[int]
    is_final: list[dict[str, bool]]


@dataclass
class _Placed:
    """Rows that found their RefId, side by side."""

    answers: list[RawAnswer] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    row_nos: list[int] = field(default_factory=list)
    ref_ids: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    extras: dict[int, dict[str, Any]] = field(default_factory=dict)


_Rejected = tuple[RawAnswer, int, str, str]
"""An answer, and of one of its rows: number, what is wrong with it, JSON."""


class RowReader:
    """Read the rows of answers, under the settings on people's data."""

    def __init__(self, settings: Settings) -> None:
        self._hide_phone = _phone_policy(settings)
        self._keep_query = settings.keep_callback_query

    def read(self, answers: Sequence[RawAnswer]) -> ReadRows:
        """Place and type all rows of some answers."""
        placed = _Placed()
        rejected: list[_Rejected] = []
        rejected_by_request = []
        for number, answer in enumerate(answers):
            before = len(rejected)
            self._place(number, answer, placed, rejected)
            rejected_by_request.append(len(rejected) - before)
        columns = self._read_columns(answers, placed)
        final = _is_final(columns)
        columns["delivery"] = _delivery(columns, final)
        finals = final.to_pylist()
        is_final: list[dict[str, bool]] = [{} for _ in answers]
        for number, ref_id, flag in zip(
            placed.numbers, placed.ref_ids, finals, strict=True
        ):
            states = is_final[number]
            states[ref_id] = flag and states.get(ref_id, True)
        callbacks = _table(CALLBACKS, columns)
        kept = self._kept(placed, is_final)
        return ReadRows(
            callbacks if kept is None else callbacks.filter(kept),
            _rejected_table(rejected),
            rejected_by_request,
            is_final,
        )

    def _place(
        self,
        number: int,
        answer: RawAnswer,
        placed: _Placed,
        rejected: list[_Rejected],
    ) -> None:
        """Find the RefId of each row of one answer: to the letter, else by fold."""
        asked = dict.fromkeys(answer.ref_ids)
        folded: dict[str, list[str]] | None = None
        for row_no, row in enumerate(answer.rows, 1):
            if not isinstance(row, dict):
                raw = self._raw_json(row)
                rejected.append((answer, row_no, "not an object", raw))
                continue
            sms_id = row.get("SMSID")
            if isinstance(sms_id, str) and sms_id in asked:
                ref_id = sms_id
            else:
                if folded is None:
                    folded = _fold(asked)
                found, reason = _find(sms_id, asked, folded)
                if found is None:
                    rejected.append((answer, row_no, reason, self._raw_json(row)))
                    continue
                ref_id = found
                placed.extras[len(placed.rows)] = {"SMSID": sms_id}
            placed.row_nos.append(row_no)
            placed.ref_ids.append(ref_id)
            placed.rows.append(row)
        added = len(placed.rows) - len(placed.answers)
        placed.answers += [answer] * added
        placed.numbers += [number] * added

    def _read_columns(
        self, answers: Sequence[RawAnswer], placed: _Placed
    ) -> dict[str, pa.Array]:
        rows, extras = placed.rows, placed.extras
        types = {column.name: column.type for column in CALLBACKS.columns}
        # What is one per answer is turned into Arrow once, not for each of its rows.
        numbers = pa.array(placed.numbers, BIGINT)
        oa_ids = pa.array([answer.oa_id for answer in answers], TEXT)
        polled_at = pa.array([answer.polled_at for answer in answers], TIMESTAMP)
        columns: dict[str, pa.Array] = {
            "oa_id": oa_ids.take(numbers),
            "polled_at": polled_at.take(numbers),
            "ref_id": pa.array(placed.ref_ids, TEXT),
            "row_no": pa.array(placed.row_nos, BIGINT),
        }
        for api_name, name in API_FIELDS.items():
            values = [row.get(api_name) for row in rows]
            columns[name], misfits = _typed(values, types[name])
            for index in misfits:
                extras.setdefault(index, {})[api_name] = values[index]
        columns["phone_number"] = self._hide_phones(columns["phone_number"])
        if not self._keep_query:
            columns["callback_url"] = _without_query(columns["callback_url"])
        columns |= _error_columns([row.get("ErrorInfo") for row in rows])
        self._keep_the_rest(placed)
        extra: list[str | None] = [None] * len(rows)
        for index, fields in extras.items():
            extra[index] = _to_json(fields) if fields else None
        columns["extra"] = pa.array(extra, TEXT)
        return columns

    def _keep_the_rest(self, placed: _Placed) -> None:
        """Put into ``extra`` what has no column, and hide what is to be hidden."""
        # Most rows hold nothing else: they are asked all at once, then one by one.
        unknown = set().union(*placed.rows) - KNOWN_FIELDS
        for index, row in enumerate(placed.rows if unknown else ()):
            extra = {name: row[name] for name in row if name in unknown}
            if extra:
                placed.extras.setdefault(index, {}).update(extra)
        for index, row in enumerate(placed.rows):
            oa_id, asked_for = row.get("OAId"), placed.answers[index].oa_id
            if oa_id not in (None, asked_for) and str(oa_id).strip() != asked_for:
                placed.extras.setdefault(index, {})["OAId"] = oa_id
        for index, extra in placed.extras.items():
            placed.extras[index] = self._scrub(extra)

    def _hide_phones(self, phones: pa.Array) -> pa.Array:
        if self._hide_phone is None:
            return phones
        hidden = [
            None if p is None else self._hide_phone(p) for p in phones.to_pylist()
        ]
        return pa.array(hidden, TEXT)

    def _scrub(self, value: Any) -> Any:  # noqa: ANN401  any JSON value
        """Hide phones and cut queries in a value that goes to a JSON column."""
        if isinstance(value, list):
            return [self._scrub(item) for item in value]
        if not isinstance(value, dict):
            return value
        scrubbed = {}
        for name, item in value.items():
            if self._hide_phone and "phone" in name.lower() and item is not None:
                text = item if isinstance(item, str) else _to_json(item)
                scrubbed[name] = self._hide_phone(text)
            elif not self._keep_query and name.lower() == "callbackurl":
                text = item if isinstance(item, str) else _to_json(item)
                scrubbed[name] = text.partition("?")[0].partition("#")[0]
            else:
                scrubbed[name] = self._scrub(item)
        return scrubbed

    def _raw_json(self, row: Any) -> str:  # noqa: ANN401  any JSON value
        return _to_json(self._scrub(row))

    @staticmethod
    def _kept(placed: _Placed, is_final: list[dict[str, bool]]) -> pa.Array | None:
        """Leave out what isn't final where final rows are loaded already."""
        if not any(answer.keep_final for answer in placed.answers):
            return None
        return pa.array(
            is_final[number][ref_id] or ref_id not in answer.keep_final
            for number, ref_id, answer in zip(
                placed.numbers, placed.ref_ids, placed.answers, strict=True
            )
        )


def _phone_policy(settings: Settings) -> Callable[[str], str | None] | None:
    if settings.phone_number == "plain":
        return None
    if settings.phone_number == "drop":
        return lambda _: None
    key = str(settings.phone_hash_key).encode()
    return lambda phone: hmac.new(key, phone.encode(), hashlib.sha256).hexdigest()


def _fold(asked: Iterable[str]) -> dict[str, list[str]]:
    folded: dict[str, list[str]] = {}
    for ref_id in asked:
        folded.setdefault(ref_id.casefold(), []).append(ref_id)
    return folded


def _find(
    sms_id: Any,  # noqa: ANN401  any JSON value
    asked: dict[str, None],
    folded: dict[str, list[str]],
) -> tuple[str | None, str]:
    """Return the RefId that a row belongs to, else why there is none."""
    if sms_id is None or isinstance(sms_id, (bool, list, dict)):
        return None, "no SMSID"
    text = str(sms_id).strip()
    if not text:
        return None, "no SMSID"
    if text in asked:
        return text, ""
    candidates = folded.get(text.casefold(), [])
    if len(candidates) == 1:
        return candidates[0], ""
    return None, "SMSID fits several RefIds" if candidates else "SMSID not asked for"


def _typed(values: list[Any], kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Return a column and the places of values that don't fit it."""
    try:
        if kind == BIGINT:
            array = pa.array(values)
            if array.type == BIGINT or pa.types.is_null(array.type):
                return array.cast(BIGINT), []
        else:
            return pa.array(values, kind), []
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    read = {BIGINT: _read_int, DECIMAL: _read_decimal, TEXT: _read_text}[kind]
    column = [None if value is None else read(value) for value in values]
    misfits = [
        index
        for index, (value, cell) in enumerate(zip(values, column, strict=True))
        if cell is None and value is not None
    ]
    return pa.array(column, kind), misfits


def _read_number(value: Any) -> Decimal | None:  # noqa: ANN401  any JSON value
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        return None
    try:
        number = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _read_int(value: Any) -> int | None:  # noqa: ANN401  any JSON value
    number = _read_number(value)
    # The exponent first: int() of 1E+999999 would take for ever.
    if number is None or number.adjusted() >= len(str(INT64.stop)):
        return None
    whole = int(number)
    return whole if whole == number and whole in INT64 else None


def _read_decimal(value: Any) -> Decimal | None:  # noqa: ANN401  any JSON value
    number = _read_number(value)
    if number is None or number.adjusted() >= DECIMAL.precision - DECIMAL.scale:
        return None
    try:
        pa.array([number], DECIMAL)
    except pa.ArrowException:
        return None
    return number


def _read_text(value: Any) -> str | None:  # noqa: ANN401  any JSON value
    if isinstance(value, (bool, list, dict)):
        return None
    return str(value)


def _error_columns(values: list[Any]) -> dict[str, pa.Array]:
    """Return the columns that come from ErrorInfo."""
    texts = [
        value if value is None or isinstance(value, str) else _to_json(value)
        for value in values
    ]
    types = {column.name: column.type for column in CALLBACKS.columns}
    columns = {"error_info": pa.array(texts, TEXT)}
    # Few texts fail many messages: each is parsed once.
    encoded = columns["error_info"].dictionary_encode()
    parsed = [parse_error_info(text) for text in encoded.dictionary.to_pylist()]
    for place, part in enumerate(ParsedError._fields):
        name = f"error_{part}"
        cells = pa.array([error[place] for error in parsed], types[name])
        columns[name] = cells.take(encoded.indices)
    return columns


def _is_final(columns: dict[str, pa.Array]) -> pa.Array:
    """Tell per row whether its outcome won't change: contract, section 5."""
    status = columns["send_status"]
    # As floats: the sum of two large counts would overflow.
    counts = (count.cast("double", safe=False) for count in _outcomes(columns))
    known = pc.greater(pc.add(*counts), 0)
    done = pc.and_kleene(pc.equal(status, DONE), known)
    return pc.fill_null(
        pc.or_kleene(pc.equal(status, REJECTED), done), fill_value=False
    )


def _delivery(columns: dict[str, pa.Array], final: pa.Array) -> pa.Array:
    success, failed = (pc.greater(count, 0) for count in _outcomes(columns))
    return pc.case_when(
        pc.make_struct(pc.invert(final), pc.invert(success), pc.invert(failed)),
        "pending",
        "failed",
        "delivered",
        "partial",
    )


def _outcomes(columns: dict[str, pa.Array]) -> tuple[pa.Array, pa.Array]:
    return (
        pc.fill_null(columns["send_success"], 0),
        pc.fill_null(columns["send_failed"], 0),
    )


def _without_query(urls: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(urls, QUERY_OF_URL, "")


def _to_json(value: Any) -> str:  # noqa: ANN401  any JSON value
    # Decimals become text: JSON readers would round them.
    return json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))


def _rejected_table(rejected: list[_Rejected]) -> pa.Table:
    columns = zip(*rejected, strict=True) if rejected else ([], [], [], [])
    answers, row_nos, reasons, rows = columns
    return _table(
        REJECTED_ROWS,
        {
            "request_no": pa.array([a.request_no for a in answers], BIGINT),
            "row_no": pa.array(row_nos, BIGINT),
            "reason": pa.array(reasons, TEXT),
            "row": pa.array(rows, TEXT),
            "polled_at": pa.array([a.polled_at for a in answers], TIMESTAMP),
        },
    )


def _table(table: Table, columns: dict[str, pa.Array]) -> pa.Table:
    """Put columns into the order of a table, all but ``load_id``."""
    schema = without_load_id(table)
    return pa.table([columns[name] for name in schema.names], schema=schema)
