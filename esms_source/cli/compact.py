"""The current rows of a lake as plain tables, for programs that know no events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import dlt
from dlt.common.schema import Schema
from dlt.extract import DltSource

from esms_source.cli.editing import editing
from esms_source.databases import Patience, columns_of
from esms_source.exceptions import ConfigError, DestinationError
from esms_source.keeping import as_plain, is_lake, pages_of, reading
from esms_source.load.loader import Loader
from esms_source.load.recovery import recover
from esms_source.runtime import Counts
from esms_source.source import extracting, source_of
from esms_source.tables import CALLBACKS, REF_IDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from dlt.destinations.sql_client import SqlClientBase
    from dlt.extract import DltResource

    from esms_source.config import Settings
    from esms_source.tables import Table

COMPACT: Final = "esms_compact"
"""dlt's schema of the plain tables.

In that of the events dlt would take both for tables of one resource, and empty both.
"""


def compact(pipeline: dlt.Pipeline, settings: Settings) -> dict[str, int]:
    """Write the current ``ref_ids`` and ``callbacks`` as tables, in place of earlier.

    The events stay: they are what runs go by.

    Args:
        pipeline: To a lake.
        settings: In which format.

    Returns:
        The rows by table.

    Raises:
        ConfigError: The destination keeps current rows itself.
        DestinationError: Nothing is loaded there, or it can't be written.
    """
    if not is_lake(pipeline):
        name = pipeline.destination.destination_name
        fact = f"{name} keeps current rows in its tables"
        raise ConfigError(fact, "there is nothing to compact")
    counts: dict[str, int] = {}
    with editing(pipeline, settings) as own:
        loader = Loader(own, Patience(), settings, source_of, Counts())
        recover(own, loader)
        own.sync_destination()
        with reading(own, REF_IDS, CALLBACKS) as client:
            if columns_of(client, REF_IDS.name) is None:
                fact = f"nothing is loaded into the dataset {own.dataset_name!r}"
                raise DestinationError(fact, "name another --dataset, or run esms run")
            # One after the other: each reads by the same connection.
            for table in (REF_IDS, CALLBACKS):
                rows = _rows(client, table, counts)
                source = DltSource(Schema(COMPACT), COMPACT, [rows])
                own.extract(as_plain(source, settings.table_format))
        loader.load()
    return counts


def _rows(
    client: SqlClientBase[Any], table: Table, counts: dict[str, int]
) -> DltResource:
    def rows() -> Iterator[pa.Table]:
        counts[table.name] = 0
        name = client.make_qualified_table_name(table.name)
        with extracting(dlt.current.load_package_state()["load_id"]):
            yield table.schema.empty_table()
            for page in pages_of(client, f"SELECT * FROM {name}"):
                counts[table.name] += len(page)
                yield page

    return dlt.resource(rows, name=table.name, columns=table.to_dlt())
