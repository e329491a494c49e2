"""The endpoints that are asked: where each is, what it takes and what it answers."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa

from esms_source.api.client import Client
from esms_source.api.envelope import MAX_ROWS
from esms_source.api.fast_reader import SUCCESS, read_plain
from esms_source.api.lenient_reader import read_int, read_odd
from esms_source.api.request import Request
from esms_source.exceptions import MalformedAnswerError
from esms_source.tables import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.config import Settings

CALLBACK_PATH: Final = "/ZaloCallback/GetCallback"
QUERY_PATH: Final = "/MainService.svc/json/QueryZnsStatus/"
"""Where the endpoints are. Source: their pages in eSMS's API docs."""

UNKNOWN_ID: Final = (851, 854)
"""QueryZnsStatus has nothing under that id and type. Source: its page in the docs."""

SENT_PATH: Final = "/MainService.svc/json/GetSmsSentData_V2/"
OAS_PATH: Final = "/MainService.svc/json/ZNS/GetListZOA/"
TEMPLATES_PATH: Final = "/MainService.svc/json/GetTemplate/"

NOTHING: Final = pa.table({"ref_id": pa.array([], TEXT)})
"""The work of a request that asks for no RefId."""


class CallbackClient(Client):
    """Ask GetCallback for RefIds of one OA.

    Args:
        settings: Where and as whom to ask, the time-outs, and what is hidden.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, settings.base_url.rstrip("/") + CALLBACK_PATH)

    def _fields(self, request: Request) -> dict[str, Any]:
        return {"ListRefid": request.ref_ids, "OAId": request.oa_id}

    def _read_content(self, request: Request, content: bytearray, status: int) -> None:
        if status == HTTPStatus.OK:
            plain = read_plain(content, request.oa_id, request.ref_ids)
            if plain is not None:
                message, request.columns = plain
                _require_few(len(request.columns["place"]))
                request.code = SUCCESS
                request.message = message and self._redact(message)
                return
        envelope = self._read_envelope(request, content, status)
        rows = _read_rows(envelope)
        _require_few(len(rows))
        read_odd(request, rows, self._privacy)


class ListClient(Client):
    """Ask an endpoint that lists something.

    Args:
        settings: As whom to ask, the time-outs, and what is hidden.
        url: Where eSMS's other endpoints are.
        path: Which of them.
    """

    def __init__(self, settings: Settings, url: str, path: str) -> None:
        super().__init__(settings, url.rstrip("/") + path)

    def rows(
        self, name: str, fields: dict[str, Any], on_sent: Callable[[], None]
    ) -> list[dict[str, Any]]:
        """Send one request; return the objects in a list of its answer.

        Args:
            name: The list's name.
            fields: What is sent beside the credentials.
            on_sent: Called once it has left.

        Raises:
            ApiError: No usable answer came.
        """
        return self._guarded(lambda: self._rows(name, fields, on_sent))

    def _rows(
        self, name: str, fields: dict[str, Any], on_sent: Callable[[], None]
    ) -> list[dict[str, Any]]:
        body = msgspec.json.encode({**self._credentials, **fields})
        found: dict[str, Any] = {}
        asked = Request("", NOTHING)

        def read(content: bytearray, status: int) -> None:
            found.update(self._read_envelope(asked, content, status))

        with self._transport.post(body, on_sent) as received, self._reading:
            self._read(received, read)
        rows = found.get(name)
        _require_few(len(rows) if isinstance(rows, list) else 0)
        if not isinstance(rows, (list, type(None))):
            raise MalformedAnswerError(f"{name} is not a list", code=SUCCESS)
        return [row for row in rows or [] if isinstance(row, dict)]


class QueryClient(Client):
    """Ask QueryZnsStatus for one RefId of one type.

    Args:
        settings: As whom to ask, the time-outs, and what is hidden.
        url: Where eSMS's other endpoints are.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        super().__init__(settings, url.rstrip("/") + QUERY_PATH)

    def _fields(self, request: Request) -> dict[str, Any]:
        return {"SmsId": request.ref_ids[0], "SmsType": str(request.sms_types[0])}

    def _read_content(self, request: Request, content: bytearray, status: int) -> None:
        usable = (SUCCESS, *UNKNOWN_ID)
        envelope = self._read_envelope(request, content, status, usable)
        data = envelope.get("Data") if request.code == SUCCESS else None
        rows = data if isinstance(data, list) else [] if data is None else [data]
        _require_few(len(rows))
        finals = [row.get("FinalStatus") for row in rows if isinstance(row, dict)]
        said = read_int(finals[0]) if finals else None
        request.is_final = bool(said) if said in (0, 1) else None
        read_odd(request, [_as_callback(row) for row in rows], self._privacy)


def _as_callback(row: Any) -> Any:  # noqa: ANN401  any JSON value
    """Return a row with the names that GetCallback has for the same fields."""
    if not isinstance(row, dict):
        return row
    return {"Partnerids" if name == "ZaloMsgId" else name: row[name] for name in row}


def _read_rows(envelope: dict[str, Any]) -> list[Any]:
    rows = envelope.get("Data_callback")
    if not isinstance(rows, (list, type(None))):
        raise MalformedAnswerError("Data_callback is not a list", code=SUCCESS)
    if "Data_callback (2)" in envelope:
        raise MalformedAnswerError("several Data_callback", code=SUCCESS)
    return rows or []


def _require_few(rows: int) -> None:
    if rows > MAX_ROWS:
        raise MalformedAnswerError(f"an answer of more than {MAX_ROWS} rows")
