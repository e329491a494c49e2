"""After the slices: names, and what eSMS says was sent; a failure is a warning."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dlt.common.schema import Schema
from dlt.extract import DltSource

from esms_source.codes import merged
from esms_source.databases import (
    ReadError,
    columns_of,
    execute,
)
from esms_source.exceptions import EsmsError
from esms_source.keeping import reading
from esms_source.polling.names import Unnamed, ask_names
from esms_source.polling.sent import VIETNAM, ask_sent
from esms_source.redaction import first_line
from esms_source.rows.sent import read_sent
from esms_source.sql import moment_literal
from esms_source.tables import (
    CALLBACKS,
    NAMED,
    OAS,
    REF_IDS,
    SCHEMA,
    SENT_MESSAGES,
    TEMPLATES,
)

if TYPE_CHECKING:
    from datetime import date, datetime

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.load.loader import Loader
    from esms_source.session import Session

NAMED_FOR: Final = timedelta(days=1)
"""How long a name holds, and that there is none."""

READ_BACK: Final = timedelta(days=90)
"""How far back what was sent is read at first; how long eSMS keeps it isn't known."""

READ_AFTER: Final = timedelta(hours=1)
"""How soon it is read again: each time all of the last day is, at least."""

OPEN_FOR: Final = timedelta(days=3)
"""How long a day is read again while results in it aren't known."""

MOST_ROWS: Final = 50_000
"""Rows that are loaded at once."""

NOWHERE: Final = (
    "nothing is asked, as base_url isn't eSMS's own; set rest_base_url to where"
    " GetSmsSentData_V2 is"
)

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
                loader.extract(DltSource(Schema(SCHEMA), SCHEMA, tables))
                loader.load()
    except (*ReadError, EsmsError) as exc:
        said = f"names of OAs and templates aren't known: {first_line(exc)}"
        session.counts.warn(f"{said}; the next run asks again")


def load_sent_messages(
    pipeline: dlt.Pipeline, loader: Loader, session: Session, settings: Settings
) -> None:
    """Load what eSMS says was sent, day by day, where the settings want it.

    The table itself says which days are to be read: those whose results aren't all
    known, and those since. Losing it costs reading them again.
    """
    url, now = settings.rest_url, session.clock.now()
    if not settings.sent_messages or url is None:
        if settings.sent_messages:
            session.counts.warn(f"sent_messages: {NOWHERE}")
        return
    try:
        with session.counts.timed("sent messages"):
            for day in _unread_days(pipeline, now):
                rows: list[dict[str, Any]] = []
                for page in ask_sent(settings, url, day, session.stop):
                    rows += page
                    if len(rows) >= MOST_ROWS:
                        _load_sent(loader, session, settings, rows)
                        rows = []
                if rows:
                    _load_sent(loader, session, settings, rows)
    except (*ReadError, EsmsError) as exc:
        said = f"what eSMS says was sent isn't known: {first_line(exc)}"
        session.counts.warn(f"{said}; the next run asks again")


def _load_sent(
    loader: Loader,
    session: Session,
    settings: Settings,
    rows: list[dict[str, Any]],
) -> None:
    content, without = read_sent(rows, settings, session.clock.now())
    if without:
        fact = f"{without} sent messages that eSMS lists have no ReferenceId"
        session.counts.warn(f"{fact} and aren't loaded")
    resource = merged(SENT_MESSAGES, content)
    loader.extract(DltSource(Schema(SCHEMA), SCHEMA, [resource]))
    loader.load()


def _unread_days(pipeline: dlt.Pipeline, now: datetime) -> list[date]:
    """Return the days in Vietnam that are to be read, oldest first."""
    open_after = moment_literal(now - OPEN_FOR)
    with reading(pipeline, REF_IDS, SENT_MESSAGES) as client:
        sent = client.make_qualified_table_name(SENT_MESSAGES.name)
        read_at, newest, open_since = _row(
            client,
            "SELECT max(read_at), max(sent_at), min(CASE WHEN send_result = 2"
            f" AND sent_at > {open_after} THEN sent_at END) FROM {sent}",
        )
        if newest is None:
            ledger = client.make_qualified_table_name(REF_IDS.name)
            (newest,) = _row(client, f"SELECT min(sent_at) FROM {ledger}")
    if read_at is not None and now - read_at < READ_AFTER:
        return []
    earliest = now - READ_BACK
    known = [at for at in (newest, open_since) if at is not None]
    first = max(min(known, default=earliest), earliest).astimezone(VIETNAM).date()
    last = now.astimezone(VIETNAM).date()
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _row(client: SqlClientBase[Any], sql: str) -> tuple[Any, ...]:
    """Return the one row of a query."""
    rows = execute(client, sql)
    return tuple(rows[0]) if rows else ()


def unnamed(pipeline: dlt.Pipeline, seen: set[Seen], as_of: datetime) -> Unnamed:
    """Return which OAs and templates want a name.

    Args:
        pipeline: Where the tables are.
        seen: What the callbacks of this run name. Where no name is known at all, those
            of all earlier runs count too.
        as_of: Now, in UTC.
    """
    with reading(pipeline, *NAMED, CALLBACKS) as client:
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
    rows = execute(client, f"SELECT {columns} FROM {name} WHERE {condition}")
    return {(row[0], row[1]) for row in rows or ()}
