"""Names of OAs and templates, from eSMS's other endpoints: few requests, at ease."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from esms_source.api.endpoints import OAS_PATH, TEMPLATES_PATH, ListClient
from esms_source.exceptions import StoppedError
from esms_source.polling.batches import SMS_TYPES
from esms_source.polling.rate_limit import RateLimiter
from esms_source.tables import OAS, TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from esms_source.config import Settings
    from esms_source.runtime import Stop

PER_SECOND: Final = 5.0
"""Requests a second: nobody says how many are allowed, and few are needed."""


@dataclass(frozen=True)
class Unnamed:
    """What names are wanted of.

    Attributes:
        oa_ids: OAs without a name.
        templates: By OA, its templates without a name.
    """

    oa_ids: set[str]
    templates: Mapping[str, set[str]]

    def __bool__(self) -> bool:
        """Tell whether any is wanted."""
        return bool(self.oa_ids or self.templates)


def ask_names(
    settings: Settings, url: str, wanted: Unnamed, stop: Stop, now: datetime
) -> dict[str, pa.Table]:
    """Ask for names; return rows of the tables of names.

    What eSMS doesn't list has no name: it isn't asked again before a day has passed.

    Args:
        settings: As whom to ask.
        url: Where eSMS's other endpoints are.
        wanted: Whose names.
        stop: Ends the asking.
        now: When it is, in UTC.

    Raises:
        ApiError: No usable answer came.
        EsmsError: The run was told to stop.
    """
    asking = _Asking(settings, url, stop)
    oas: dict[str, str | None] = {}
    if wanted.oa_ids:
        oas = dict.fromkeys(sorted(wanted.oa_ids)) | asking.oas()
    templates: dict[tuple[str, str], str | None] = {}
    for oa_id, temp_ids in sorted(wanted.templates.items()):
        found: dict[str, str | None] = dict.fromkeys(sorted(temp_ids))
        for sms_type in SMS_TYPES:
            found |= asking.templates(oa_id, sms_type)
            if None not in found.values():
                break
        templates |= {(oa_id, temp_id): name for temp_id, name in found.items()}
    rows: dict[str, list[dict[str, Any]]] = {
        OAS.name: [
            {"oa_id": oa_id, "name": name, "named_at": now}
            for oa_id, name in oas.items()
        ],
        TEMPLATES.name: [
            {"oa_id": oa_id, "zns_temp_id": temp_id, "name": name, "named_at": now}
            for (oa_id, temp_id), name in templates.items()
        ],
    }
    return {
        table.name: pa.Table.from_pylist(rows[table.name], schema=table.schema)
        for table in (OAS, TEMPLATES)
    }


def list_oas(settings: Settings, url: str, stop: Stop) -> dict[str, str]:
    """Ask for the names of all the account's OAs.

    Raises:
        ApiError: No usable answer came.
    """
    return _Asking(settings, url, stop).oas()


class _Asking:
    """Asks one request after another."""

    def __init__(self, settings: Settings, url: str, stop: Stop) -> None:
        self._settings, self._url, self._stop = settings, url, stop
        self._limiter = RateLimiter(PER_SECOND, stop)

    def oas(self) -> dict[str, str]:
        """Return the names of the account's OAs."""
        rows = self._ask(OAS_PATH, "ZOAList", {})
        return _named(rows, "OAID", "OAName")

    def templates(self, oa_id: str, sms_type: int) -> dict[str, str]:
        """Return the names of an OA's templates of one type."""
        fields = {"OAId": oa_id, "SmsType": str(sms_type)}
        rows = self._ask(TEMPLATES_PATH, "ZNSTemplates", fields)
        return _named(rows, "TempId", "TempName")

    def _ask(self, path: str, name: str, fields: dict[str, str]) -> list[Any]:
        slot = self._limiter.acquire()
        if slot is None:
            raise self._stop.reason or StoppedError("stopped")
        with closing(ListClient(self._settings, self._url, path)) as client:
            return client.rows(name, fields, lambda: self._limiter.sent(slot))


def _named(rows: list[dict[str, Any]], key: str, name: str) -> dict[str, str]:
    """Return names by id; the documents show ids as numbers and as texts."""
    return {
        str(row[key]).strip(): str(row[name]).strip()
        for row in rows
        if row.get(key) is not None and row.get(name) is not None
    }
