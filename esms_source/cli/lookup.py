"""Ask for some RefIds now, without a ledger and without loading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from esms_source.ledger import WORK
from esms_source.session import Session
from esms_source.tables import CALLBACKS, REF_IDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esms_source.config import Settings
    from esms_source.runtime import Stop


@dataclass(frozen=True)
class Found:
    """What the API says of one RefId now.

    Attributes:
        ref_id: As asked.
        state: As the ledger would have it.
        error: Why there was no usable answer.
        callbacks: Its rows, as the table ``callbacks`` would have them.
    """

    ref_id: str
    state: str
    error: str | None
    callbacks: list[dict[str, Any]]


def look_up(
    settings: Settings, oa_id: str, ref_ids: Sequence[str], stop: Stop | None = None
) -> list[Found]:
    """Ask for RefIds of one OA.

    Raises:
        ConfigError: The key or the secret isn't set.
        FatalApiError: The API refused the key.
    """
    unique = list(dict.fromkeys(stripped for r in ref_ids if (stripped := r.strip())))
    rows = [{"oa_id": oa_id, "ref_id": ref_id} for ref_id in unique]
    work = pa.Table.from_pylist(rows, schema=WORK)
    with Session(settings, stop=stop) as session:
        groups = list(session.ask([[work]], load_id=""))
        if session.stop.reason:
            raise session.stop.reason
    ledger, callbacks = (
        [row for group in groups for row in group[table.name].to_pylist()]
        for table in (REF_IDS, CALLBACKS)
    )
    by_ref_id = {row["ref_id"]: row for row in ledger}
    return [
        Found(
            ref_id,
            by_ref_id[ref_id]["state"],
            by_ref_id[ref_id]["last_error"],
            [_shown(row) for row in callbacks if row["ref_id"] == ref_id],
        )
        for ref_id in unique
    ]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    hidden = ("ref_id", "oa_id", "load_id")
    return {name: value for name, value in row.items() if name not in hidden}
