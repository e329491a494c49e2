"""Any ``Data_callback``, read value by value: placed by RefId, typed, nothing lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from esms_source.api.fields import COLUMN_OF, KNOWN, MAX_EXPONENT, TYPED
from esms_source.api.request import Rejected
from esms_source.storable import INT64, to_json
from esms_source.tables import BIGINT, DECIMAL, TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esms_source.api.request import Request
    from esms_source.privacy import Privacy

SMALLEST: Final = Decimal(1).scaleb(-DECIMAL.scale)
"""The least decimal that a column tells from 0."""


def read_odd(request: Request, rows: Sequence[Any], privacy: Privacy) -> None:
    """Read the rows of an answer into its request, whatever they hold.

    Args:
        request: What was asked; its ``columns``, ``rejected`` and ``misfits`` are
            filled in.
        rows: ``Data_callback``, parsed.
        privacy: What goes into no JSON column.
    """
    placed, rejected = _place(rows, request.ref_ids, privacy)
    oa_id, extras = request.oa_id, placed.extras
    columns: dict[str, Any] = {}
    misfits = 0
    for api_name, name in COLUMN_OF.items():
        values = [row.get(api_name) for row in placed.rows]
        columns[name], odd = typed(values, TYPED.field(name).type)
        misfits += len(odd)
        for index in odd:
            extras[index][api_name] = values[index]
    for row, extra in zip(placed.rows, extras, strict=True):
        extra |= {name: row[name] for name in row if name not in KNOWN}
        named = row.get("OAId")
        if named is not None and str(named).strip() != oa_id:
            extra["OAId"] = named
    texts = [_error_info(row.get("ErrorInfo")) for row in placed.rows]
    jsons = [to_json(privacy.scrub(extra)) if extra else None for extra in extras]
    # Arrow keeps them in less room, and they may have to wait.
    columns |= {
        "place": pa.array(placed.places, BIGINT),
        "row_no": pa.array(placed.row_nos, BIGINT),
        "error_info": pa.array(texts, TEXT),
        "extra": pa.array(jsons, TEXT),
    }
    request.columns, request.rejected, request.misfits = columns, rejected, misfits


@dataclass
class _Placed:
    """Rows that found their RefId, side by side."""

    places: list[int] = field(default_factory=list)
    row_nos: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    extras: list[dict[str, Any]] = field(default_factory=list)


def _place(
    rows: Sequence[Any], ref_ids: Sequence[str], privacy: Privacy
) -> tuple[_Placed, list[Rejected]]:
    """Find the RefId of each row: to the letter, else by fold."""
    placed = _Placed()
    rejected: list[Rejected] = []
    asked: dict[str, int] = {}
    folded: dict[str, list[int]] = {}
    for number, ref_id in enumerate(ref_ids):
        asked[ref_id] = number
        folded.setdefault(ref_id.casefold(), []).append(number)
    for row_no, row in enumerate(rows, 1):
        place, reason = _find(row, asked, folded)
        if place is None:
            raw = to_json(privacy.scrub(row))
            rejected.append(Rejected(row_no, reason, raw))
            continue
        sms_id = row["SMSID"]
        is_exact = isinstance(sms_id, str) and sms_id in asked
        placed.places.append(place)
        placed.row_nos.append(row_no)
        placed.rows.append(row)
        placed.extras.append({} if is_exact else {"SMSID": sms_id})
    return placed, rejected


def _find(
    row: Any,  # noqa: ANN401  any JSON value
    asked: dict[str, int],
    folded: dict[str, list[int]],
) -> tuple[int | None, str]:
    """Return the place of the RefId that a row belongs to, else why there is none."""
    if not isinstance(row, dict):
        return None, "not an object"
    sms_id = row.get("SMSID")
    if sms_id is None or isinstance(sms_id, (bool, list, dict)):
        return None, "no SMSID"
    text = sms_id if sms_id in asked else str(sms_id).strip()
    if not text:
        return None, "no SMSID"
    if text in asked:
        return asked[text], ""
    candidates = folded.get(text.casefold(), [])
    if len(candidates) == 1:
        return candidates[0], ""
    return None, "SMSID fits several RefIds" if candidates else "SMSID not asked for"


def typed(values: list[Any], kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Return a column and the places of values that don't fit it as they are."""
    try:
        if kind == BIGINT:
            array = pa.array(values)
            if array.type == BIGINT or pa.types.is_null(array.type):
                return array.cast(BIGINT), []
        else:
            return pa.array(values, kind), []
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    read = {BIGINT: read_int, DECIMAL: _read_decimal, TEXT: _read_text}[kind]
    column = [None if value is None else read(value) for value in values]
    misfits = [
        index
        for index, (value, cell) in enumerate(zip(values, column, strict=True))
        if value is not None
        and (cell is None or (kind == DECIMAL and cell != _read_number(value)))
    ]
    return pa.array(column, kind), misfits


def _read_number(value: Any) -> Decimal | None:  # noqa: ANN401  any JSON value
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        return None
    if isinstance(value, str):
        value = value.strip()
        # Python would read 1_000 and other scripts' digits, too.
        if not value.isascii() or "_" in value:
            return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    is_sane = number.is_finite() and abs(number.adjusted()) <= MAX_EXPONENT
    return number if is_sane else None


def read_int(value: Any) -> int | None:  # noqa: ANN401  any JSON value
    """Read a whole number of 64 bits, as number or text."""
    number = _read_number(value)
    # The exponent first: int() of 1E+999999 would not end.
    if number is None or number.adjusted() >= len(str(INT64.stop)):
        return None
    whole = int(number)
    return whole if whole == number and whole in INT64 else None


def _read_decimal(value: Any) -> Decimal | None:  # noqa: ANN401  any JSON value
    """Read a number, rounded to the column's scale."""
    number = _read_number(value)
    whole_digits = DECIMAL.precision - DECIMAL.scale
    if number is None or number.adjusted() >= whole_digits:
        return None
    rounded = number.quantize(SMALLEST, ROUND_HALF_UP)
    return rounded if rounded.adjusted() < whole_digits else None


def _error_info(value: Any) -> str | None:  # noqa: ANN401  any JSON value
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, Decimal) else to_json(value)


def _read_text(value: Any) -> str | None:  # noqa: ANN401  any JSON value
    if isinstance(value, (bool, list, dict)):
        return None
    return str(value)
