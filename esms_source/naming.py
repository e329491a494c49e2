"""The names of OAs and templates that callbacks name: which are wanted, and loaded."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dlt.common.schema import Schema
from dlt.extract import DltSource

from esms_source.codes import merged
from esms_source.databases import ReadError, columns_of
from esms_source.exceptions import EsmsError
from esms_source.polling.names import Unnamed, ask_names
from esms_source.redaction import first_line
from esms_source.sql import moment_literal
from esms_source.tables import CALLBACKS, NAMED, OAS, SCHEMA, TEMPLATES

if TYPE_CHECKING:
    from datetime import datetime

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.load.loader import Loader
    from esms_source.session import Session

NAMED_FOR: Final = timedelta(days=1)
"""How long a name holds, and that there is none."""

Seen = tuple[str, "str | None"]
"""An OA and one of its templates, or None, as a callback names them."""


def load_names(
    pipeline: dlt.Pipeline, loader: Loader, session: Session, settings: Settings
) -> None:
    """Ask how the OAs and templates of a run are called, and load it.

    A failure is no more than a warning: the next run tries again.
    """
    url, now = settings.rest_url, session.clock.now()
    if url is None or not session.seen:
        return
    try:
        with session.counts.timed("names"):
            if wanted := unnamed(pipeline, session.seen, now):
                names = ask_names(settings, url, wanted, session.stop, now)
                tables = [merged(table, names[table.name]) for table in NAMED]
                pipeline.extract(DltSource(Schema(SCHEMA), SCHEMA, tables))
                loader.load()
    except (*ReadError, EsmsError) as exc:
        said = f"names of OAs and templates aren't known: {first_line(exc)}"
        session.counts.warn(f"{said}; the next run asks again")


def unnamed(pipeline: dlt.Pipeline, seen: set[Seen], as_of: datetime) -> Unnamed:
    """Return which OAs and templates want a name.

    Args:
        pipeline: Where the tables are.
        seen: What the callbacks of this run name. Where no name is known at all, those
            of all earlier runs count too.
        as_of: Now, in UTC.
    """
    with pipeline.sql_client() as client:
        fresh = f"named_at > {moment_literal(as_of - NAMED_FOR)}"
        oas = _pairs(client, OAS.name, "oa_id, NULL", "1 = 1")
        if not oas and columns_of(client, CALLBACKS.name) is not None:
            columns = "DISTINCT oa_id, zns_temp_id"
            seen = seen | _pairs(client, CALLBACKS.name, columns, "1 = 1")
        named = {oa_id for oa_id, _ in _pairs(client, OAS.name, "oa_id, NULL", fresh)}
        known = _pairs(client, TEMPLATES.name, "oa_id, zns_temp_id", fresh)
    templates: dict[str, set[str]] = defaultdict(set)
    for oa_id, temp_id in seen - known:
        if temp_id and temp_id.strip():
            templates[oa_id].add(temp_id)
    return Unnamed({oa_id for oa_id, _ in seen} - named, dict(templates))


def _pairs(
    client: SqlClientBase[Any], table: str, columns: str, condition: str
) -> set[Seen]:
    name = client.make_qualified_table_name(table)
    rows = client.execute_sql(f"SELECT {columns} FROM {name} WHERE {condition}")
    return {(row[0], row[1]) for row in rows or ()}
