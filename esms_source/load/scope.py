"""Which rows of a table a merge compares: those that came since what it may replace.

Without that dlt's merge reads the keys of all that is settled, with every slice.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from esms_source.databases import columns_of, duckdb_file, execute
from esms_source.load.destination import is_postgres
from esms_source.sql import moment_literal, text_literal
from esms_source.tables import CALLBACKS, LOADS, REF_IDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

NOTES: Final = "_esms_since"
"""A table with one row: for which load, beside how many others, which moment holds."""

CAME_AT: Final = {REF_IDS.name: "first_polled_at", CALLBACKS.name: "polled_at"}
"""By table, the column that says when a row came; no answer to a RefId is older than
the time of its first poll."""

MARGIN: Final = timedelta(days=1)
"""What a clock may have been set back between two polls of a RefId."""


def scopes_of(pipeline: dlt.Pipeline) -> dict[str, str]:
    """Return, by table, the SQL of the rows that a merge may delete.

    It holds whatever is noted: rows are left out of it only where the note is for the
    very load, and no other load has completed since the ledger was read. It is the same
    for all loads, as dlt keeps a version of the schema for each text.
    """
    client = pipeline.sql_client()
    if not _has_notes(client):
        return {}
    notes, loads = map(client.make_qualified_table_name, (NOTES, LOADS))
    # dlt fills in the name of the staging table.
    staged = "{staging_table}"
    since = (
        f"SELECT coalesce(min(since), TIMESTAMPTZ '-infinity') FROM {_braced(notes)}"
        f" WHERE load_id IN (SELECT load_id FROM {staged})"
        f" AND loads = (SELECT count(*) FROM {_braced(loads)})"
    )
    keys = f"(oa_id, ref_id) IN (SELECT oa_id, ref_id FROM {staged})"
    return {
        table: f"{came_at} >= ({since}) AND {keys}"
        for table, came_at in CAME_AT.items()
    }


def completed_loads(pipeline: dlt.Pipeline) -> int:
    """Return how many loads of whomever the dataset holds."""
    client: Any = pipeline.sql_client()
    if not _has_notes(client):
        return 0
    with client:
        if columns_of(client, LOADS) is None:
            return 0
        loads = client.make_qualified_table_name(LOADS)
        ((count,),) = execute(client, f"SELECT count(*) FROM {loads}") or [(0,)]
        return int(count)


def note(
    pipeline: dlt.Pipeline, load_ids: Sequence[str], loads: int, since: datetime | None
) -> None:
    """Note which rows a load may replace: those that came since a moment.

    Args:
        pipeline: Where it is loaded to; held by whoever calls.
        load_ids: The load's packages.
        loads: How many loads there were when what it replaces was read, and are now if
            nobody else has loaded.
        since: When the oldest of the RefIds was first polled; None where nobody knows.
    """
    client: Any = pipeline.sql_client()
    if not _has_notes(client):
        return
    with client:
        notes = client.make_qualified_table_name(NOTES)
        if columns_of(client, NOTES) is None:
            if not client.has_dataset():
                client.create_dataset()
            client.execute_sql(
                f"CREATE TABLE {notes}"
                " (load_id VARCHAR, loads BIGINT, since TIMESTAMP WITH TIME ZONE)"
            )
        if since is None:
            return
        moment = moment_literal(since - MARGIN)
        rows = ", ".join(f"({text_literal(i)}, {loads}, {moment})" for i in load_ids)
        client.execute_sql(f"DELETE FROM {notes}")
        client.execute_sql(f"INSERT INTO {notes} VALUES {rows}")


def _has_notes(client: SqlClientBase[Any]) -> bool:
    """Tell whether this was measured, and tested, with a destination."""
    return duckdb_file(client) is not None or is_postgres(client)


def _braced(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")
