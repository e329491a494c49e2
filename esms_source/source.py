"""The dlt source: wiring of resources, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dlt
import pyarrow as pa
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.schema import Schema
from dlt.extract import DltResource, DltSource
from typing_extensions import Unpack

from esms_source.codes import small_tables
from esms_source.config import SettingArguments, resolve_call
from esms_source.exceptions import ConfigError
from esms_source.keeping import is_lake
from esms_source.load.alchemy import require_own
from esms_source.load.checks import check_destination
from esms_source.load.locks import dataset_lock
from esms_source.load.recovery import remember_destination
from esms_source.load.sweep import sweep
from esms_source.plain import (
    EsmsSource,
    forget_scopes,
    require_merges,
    require_own_load,
)
from esms_source.planning.given_rows import RefIds
from esms_source.planning.planner import Choice, make_plan
from esms_source.redaction import mask_load
from esms_source.rows.recorder import Polled
from esms_source.runtime import keep_private
from esms_source.session import Session
from esms_source.tables import POLLED, SCHEMA, Table, stamp

if TYPE_CHECKING:
    from dlt.common.schema.typing import TDeleteInsertStrategyDict

    from esms_source.config import Settings


class _JsonTravelsAsText(logging.Filter):
    """Drop dlt's warning, for every page, that a JSON column is text in Arrow.

    Arrow has no JSON type that dlt knows; dlt itself loads such columns as text.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return "several column hints were different" not in record.getMessage()


WRITE_AT_ONCE: Final = f"sources.{SCHEMA}.data_writer.buffer_max_items"
"""How many rows dlt gathers of a table of ours before it writes them."""


@contextmanager
def extracting(load_id: str) -> Iterator[None]:
    """Keep phones and needless warnings out of dlt's log, and what came on its disk.

    dlt gathers 5 000 rows whatever they take, and a page is bounded by its bytes.
    """
    mask_load(load_id)
    # Where no provider takes it, as in the demo, dlt goes on as it does.
    with suppress(StopIteration):
        if dlt.config.get(WRITE_AT_ONCE) is None:
            dlt.config[WRITE_AT_ONCE] = 1
    needless = _JsonTravelsAsText()
    logging.getLogger("dlt").addFilter(needless)
    try:
        yield
    finally:
        logging.getLogger("dlt").removeFilter(needless)


# An empty spec: dlt would look for the arguments in any program's SINCE or REF_IDS.
@dlt.source(name=SCHEMA, section=SCHEMA, spec=BaseConfiguration, _impl_cls=EsmsSource)
def esms_source(
    ref_ids: RefIds | None = None,
    *,
    oa_ids: Sequence[str] = (),
    repoll: Sequence[str] = (),
    since: date | None = None,
    until: date | None = None,
    max_ref_ids: int | None = None,
    **settings: Unpack[SettingArguments],
) -> Sequence[DltResource]:
    """Ask eSMS for everything that is due, as one load.

    Loads the tables ``ref_ids``, ``callbacks``, ``api_requests`` and
    ``rejected_rows``, and the small tables. For large amounts prefer ``sync``,
    which loads slice by slice, so that a crash costs little, and makes the views.

    Args:
        ref_ids: Dicts, Arrow tables or a dlt resource with the columns
            ``ref_id``, ``oa_id`` and ``sent_at``, in place of the warehouse
            table; or a mapping, which overrides ``[sources.esms.ref_ids]``.
        oa_ids: Only these OAs.
        repoll: Ask RefIds of the ledger in these states again, and no others.
        since: With ``repoll``: sent from then on. A date begins at midnight in the
            setting ``timezone``.
        until: With ``repoll``: sent before then.
        max_ref_ids: At most so many; what isn't reached stays due.
        **settings: Any setting of ``[sources.esms]``, by name.

    Raises:
        ConfigError: A setting is missing or makes no sense.

    Examples:
        >>> import dlt
        >>> pipeline = dlt.pipeline("esms", destination="duckdb", dataset_name="zalo")
        >>> pipeline.run(esms_source())  # doctest: +SKIP
    """
    resolved, rows = resolve_call(ref_ids, settings)
    choice = Choice(
        oa_ids=oa_ids,
        repoll=repoll,
        since=since,
        until=until,
        max_ref_ids=max_ref_ids,
    )
    resolved.require_credentials()

    ask = partial(_ask_all, resolved, choice, rows)
    return [*polled_tables(ask), *small_tables()]


def _ask_all(
    settings: Settings, choice: Choice, rows: RefIds | None, load_id: str
) -> Iterator[Polled]:
    """Plan, and yield all that is asked as rows by table, for one load."""
    with Session(settings) as session:
        started_at = session.clock.started_at
        pipeline = dlt.current.pipeline()
        require_own_load(load_id)
        check_destination(pipeline)
        if is_lake(pipeline):
            fact = "a plain run merges rows, which files can't"
            raise ConfigError(fact, "use sync(pipeline), or esms run: they append")
        require_own(pipeline, pipeline.sql_client())
        keep_private(Path(pipeline.working_dir))
        remember_destination(pipeline)
        with dataset_lock(pipeline, session.patience) as is_locked:
            sweep(pipeline, locked=is_locked)
        plan = make_plan(
            pipeline,
            settings,
            choice,
            started_at,
            rows,
            patience=session.patience,
        )
        try:
            pages = session.ask(plan.slices(), load_id)
            yield next(pages)
            require_merges()
            forget_scopes()
            yield from pages
        finally:
            plan.close()
        # What was answered is worth more than the error: the next run meets it.
        if session.stop.reason and not session.counts.answered + session.counts.missing:
            raise session.stop.reason


def polled_tables(
    ask: Callable[[str], Iterator[Polled]],
    *,
    deduplicated: bool = False,
    scopes: Mapping[str, str] | None = None,
) -> list[DltResource]:
    """Return one resource per table, all fed by the same requests.

    Args:
        ask: Takes the id of the load package, yields rows by table.
        deduplicated: Whether no row can come to the destination's staging twice.
            dlt then doesn't look for such rows, which takes as long as the rest.
        scopes: By table, the SQL of the rows that a merge may delete; without, all rows
            with the keys of its own.
    """

    @dlt.resource(name="polled", selected=False)
    def polled() -> Iterator[Polled | None]:
        load_id = dlt.current.load_package_state()["load_id"]
        with extracting(load_id):
            for page in ask(load_id):
                yield page
                # dlt takes turns: each table writes its rows before the next page.
                yield from [None] * len(POLLED)

    merging: TDeleteInsertStrategyDict = {
        "disposition": "merge",
        "strategy": "delete-insert",
        "deduplicated": deduplicated,
    }
    return [
        _table_resource(polled, table, merging, (scopes or {}).get(table.name))
        for table in POLLED
    ]


def _table_resource(
    polled: DltResource,
    table: Table,
    merging: TDeleteInsertStrategyDict,
    scope: str | None,
) -> DltResource:
    columns = table.to_dlt()
    # Of two keys dlt makes an OR, for which DuckDB compares all rows of the table: with
    # 12 million 7 s, not 0.5. Replaced rows need a key of their own for doubles only.
    needs_key = not (table.replace_by and merging["deduplicated"])
    # False is said, too: dlt remembers what an earlier run has told it.
    for name in table.key:
        columns[name]["primary_key"] = needs_key
    for name in table.replace_by:
        columns[name]["merge_key"] = scope is None
    merging = copy(merging)
    if scope:
        merging["destination_scope"] = scope

    @dlt.transformer(data_from=polled, name=table.name, columns=columns)
    def rows(polled: Polled) -> pa.Table:
        return polled[table.name]

    return rows().apply_hints(write_disposition=merging)


def source_of(tables: Polled) -> DltSource:
    """Return a source of some tables, with the small ones; for parts of a load."""

    def rows(load_id: str) -> Iterator[Polled]:
        yield {
            table.name: stamp(
                tables.get(table.name, table.schema.empty_table()), load_id
            )
            for table in POLLED
        }

    return DltSource(Schema(SCHEMA), SCHEMA, [*polled_tables(rows), *small_tables()])
