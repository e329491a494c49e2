"""Ask for some RefIds now and say what the answers mean; load nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from esms_source.codes import read_code_table
from esms_source.databases import (
    columns_of,
    execute,
)
from esms_source.exceptions import ConfigError
from esms_source.keeping import reading
from esms_source.ledger import WORK
from esms_source.session import Session
from esms_source.sql import text_list
from esms_source.tables import (
    CALLBACKS,
    ERROR_CODES,
    MESSAGE_TYPES,
    OAS,
    REF_IDS,
    SEND_STATUSES,
    TELCOS,
    TEMPLATES,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import dlt

    from esms_source.config import Settings
    from esms_source.runtime import Stop
    from esms_source.tables import Table

LABELS: Final = {
    "send_status": (SEND_STATUSES, "send_status_en"),
    "type_id": (MESSAGE_TYPES, "message_type_en"),
    "telco_id": (TELCOS, "telco_en"),
}
"""Columns of ids, the table that says what they mean, and under which name."""


@dataclass(frozen=True)
class Known:
    """What the destination knows of some RefIds.

    Attributes:
        oa_ids: The OAs in the ledger, by RefId.
        oa_names: Names of OAs.
        template_names: Names of templates, by OA and template.
    """

    oa_ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    oa_names: Mapping[str, str] = field(default_factory=dict)
    template_names: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What the API says of one RefId now.

    Attributes:
        ref_id: As asked.
        oa_id: Which OA it was asked for.
        oa_name: Its name, if one is known.
        state: As the ledger would have it.
        error: Why there was no usable answer.
        callbacks: Its rows, as the table ``callbacks`` would have them, with what
            their codes mean.
    """

    ref_id: str
    oa_id: str
    oa_name: str | None
    state: str
    error: str | None
    callbacks: list[dict[str, Any]]


def read_known(pipeline: dlt.Pipeline, ref_ids: Sequence[str]) -> Known:
    """Read what the destination knows, nothing where it has no such tables."""
    with reading(pipeline, REF_IDS, OAS, TEMPLATES) as client:

        def rows(table: Table, columns: str, condition: str) -> Sequence[Any]:
            if columns_of(client, table.name) is None:
                return ()
            name = client.make_qualified_table_name(table.name)
            sql = f"SELECT {columns} FROM {name} WHERE {condition}"
            return execute(client, sql) or ()

        oa_ids: dict[str, list[str]] = defaultdict(list)
        named = f"ref_id IN ({text_list(ref_ids)})"
        for ref_id, oa_id in rows(REF_IDS, "ref_id, oa_id", named):
            oa_ids[ref_id].append(oa_id)
        has_name = "name IS NOT NULL"
        templates = rows(TEMPLATES, "oa_id, zns_temp_id, name", has_name)
        return Known(
            oa_ids,
            dict(rows(OAS, "oa_id, name", has_name)),
            {(oa_id, temp_id): name for oa_id, temp_id, name in templates},
        )


def look_up(
    settings: Settings,
    ref_ids: Sequence[str],
    known: Known,
    oa_id: str | None = None,
    stop: Stop | None = None,
) -> list[Found]:
    """Ask for RefIds: of one OA, else of those in the ledger, else of the default one.

    Raises:
        ConfigError: The key or the secret isn't set, or a RefId's OA isn't known.
        FatalApiError: The API refused the key.
    """
    asked = {
        (oa, ref_id)
        for ref_id in ref_ids
        for oa in _oas_of(ref_id, known, oa_id, settings.oa_id)
    }
    rows = [{"oa_id": oa, "ref_id": ref_id} for oa, ref_id in sorted(asked)]
    work = pa.Table.from_pylist(rows, schema=WORK)
    with Session(settings, stop=stop) as session:
        groups = list(session.ask([[work]], load_id=""))
        if session.stop.reason:
            raise session.stop.reason
    ledger, callbacks = (
        [row for group in groups for row in group[table.name].to_pylist()]
        for table in (REF_IDS, CALLBACKS)
    )
    return [
        Found(
            row["ref_id"],
            row["oa_id"],
            known.oa_names.get(row["oa_id"]),
            row["state"],
            row["last_error"],
            [
                _shown(callback, known)
                for callback in callbacks
                if (callback["oa_id"], callback["ref_id"])
                == (row["oa_id"], row["ref_id"])
            ],
        )
        for row in sorted(ledger, key=lambda row: ref_ids.index(row["ref_id"]))
    ]


def _oas_of(
    ref_id: str, known: Known, oa_id: str | None, default: str | None
) -> Sequence[str]:
    if oa_id:
        return [oa_id]
    if found := known.oa_ids.get(ref_id):
        return found
    if default:
        return [default]
    fact = "oa_id: not set, and the ledger doesn't have the RefId"
    raise ConfigError(fact, "give --oa-id or set SOURCES__ESMS__OA_ID")


def _shown(row: dict[str, Any], known: Known) -> dict[str, Any]:
    hidden = ("ref_id", "oa_id", "load_id")
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if name not in hidden:
            shown[name] = value
            shown |= _meaning(name, value, row["oa_id"], known)
    return shown


def _meaning(
    column: str,
    value: Any,  # noqa: ANN401  of any column
    oa_id: str,
    known: Known,
) -> dict[str, Any]:
    """Return what follows a column that holds a code: what the code means."""
    if value is None:
        return {}
    if column in LABELS:
        table, label = LABELS[column]
        rows = read_code_table(table).to_pylist()
        names = {row["id"]: row["name_en"] for row in rows}
        return {label: names.get(value, "unknown")}
    if column == "error_code":
        source = "esms" if value > 0 else "zalo"
        rows = read_code_table(ERROR_CODES).to_pylist()
        meant = {(row["code"], row["source"]): row for row in rows}
        row = meant.get((value, source), {})
        return {
            "error_meaning_en": row.get("meaning_en", "unknown"),
            "error_who_can_fix": row.get("who_can_fix", "unknown"),
        }
    if column == "zns_temp_id":
        return {"template_name": known.template_names.get((oa_id, value))}
    return {}
