"""The views that analysts read: shipped as SQL, made and refreshed on a destination."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from dlt.destinations.exceptions import DatabaseException, DatabaseUndefinedRelation

from esms_source.codes import read_code_table
from esms_source.databases import (
    Patience,
    columns_of,
    execute,
    is_ducklake,
    quoted_column,
    translated,
)
from esms_source.databases.alchemy import is_alchemy, literally
from esms_source.keeping import is_lake, reading
from esms_source.redaction import first_line
from esms_source.sql import in_dialect, quote_name, text_literal
from esms_source.tables import (
    ELSEWHERE,
    LOADS,
    REF_IDS,
    SMALL,
    TABLES,
)
from esms_source.views.shipped import (
    DIALECTS,
    NAMES,
    View,
    carried_columns,
    read_view,
    setting_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import dlt
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.tables import Table

__all__ = [
    "DIALECTS",
    "NAMES",
    "View",
    "carried_columns",
    "has_all_columns",
    "lacks_small_tables",
    "read_view",
    "refresh_views",
    "setting_values",
    "show_views",
]

logger = logging.getLogger("esms_source")

SEAL: Final = "_esms_views"
"""A view that holds the fingerprint of all others and breaks when one is gone."""

REMEDY: Final = (
    "check its grants and what stands on the views, then run again; no data is lost"
)


def refresh_views(
    pipeline: dlt.Pipeline, settings: Settings, patience: Patience | None = None
) -> bool:
    """Make the views where they are missing or would now be made differently.

    Does nothing on a destination without SQL views that were tested, or before
    the first load of this version. Where nothing changed it costs two small queries.

    Args:
        pipeline: Where the tables are.
        settings: The time zone of days, the rate and the batch size.
        patience: How long to wait for who else holds the destination.

    Returns:
        Whether views were made.

    Raises:
        DestinationError: The destination refused; the tables are untouched.
    """
    with translated("the views can't be made", REMEDY):
        return (patience or Patience())(lambda: _refresh(pipeline, settings))


def lacks_small_tables(pipeline: dlt.Pipeline, patience: Patience) -> bool:
    """Tell whether a destination has other rows in the small tables than we ship.

    Raises:
        DestinationError: The destination can't be read.
    """
    with translated("the small tables can't be read", REMEDY):
        return patience(lambda: _lacks_small_tables(pipeline))


def show_views(client: SqlClientBase[Any], settings: Settings) -> None:
    """Make the views where a lake is shown, for as long as it is."""
    ledger = columns_of(client, REF_IDS.name)
    if ledger is not None:
        _Maker(client, settings, ledger).show()


def _refresh(pipeline: dlt.Pipeline, settings: Settings) -> bool:
    if is_lake(pipeline):
        logger.info("no views are made in files; esms query shows them")
        return False
    with reading(pipeline) as client:
        is_tested = client.capabilities.sqlglot_dialect in DIALECTS
        if not is_tested:
            name = pipeline.destination.destination_name
            logger.warning("no views are made on %s, where nobody tried them", name)
        ledger = columns_of(client, REF_IDS.name) if is_tested else None
        if ledger is None:
            return False
        maker = _Maker(client, settings, ledger)
        if maker.is_done() or not has_all_columns(client):
            return False
        try:
            maker.make()
        except DatabaseException as exc:
            # Another run may have made them at the same moment.
            if maker.is_done():
                return True
            if not is_alchemy(client):
                raise
            # A release of MySQL or SQLite may lack what they are made of.
            logger.warning("the views aren't made: %s; %s", first_line(exc), REMEDY)
            return False
        return True


def _lacks_small_tables(pipeline: dlt.Pipeline) -> bool:
    with reading(pipeline, *SMALL, *ELSEWHERE) as client:
        return not all(_is_current(client, table) for table in SMALL) or any(
            columns_of(client, table.name) is None for table in ELSEWHERE
        )


class _Maker:
    """The SQL that makes all views on one destination."""

    def __init__(
        self, client: SqlClientBase[Any], settings: Settings, ledger: Sequence[str]
    ) -> None:
        self._client = client
        self._quote = client.capabilities.escape_identifier
        self._views = [read_view(name) for name in NAMES]
        self._dialect = client.capabilities.sqlglot_dialect
        names = (*(table.name for table in TABLES), *NAMES, LOADS)
        self._names = {name: client.make_qualified_table_name(name) for name in names}
        relations = self._names
        if self._is_sqlite:
            # A dataset is a file, which anybody may open under another name.
            relations = {name: quote_name(name) for name in names}
        self._values = {
            **relations,
            **setting_values(settings),
            **self._carried(ledger),
        }
        self._creations = [self._creation(view) for view in self._views]
        self._comments = self._all_comments() if not is_alchemy(client) else []
        text = "\n".join([*self._creations, *self._comments])
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()

    @property
    def _is_sqlite(self) -> bool:
        return self._dialect == "sqlite"

    def _all_comments(self) -> list[str]:
        return [
            *(
                comment
                for table in TABLES
                for comment in self._comments_on_table(table)
            ),
            *(
                comment
                for view in self._views
                for comment in self._comments_on_view(view)
            ),
        ]

    def is_done(self) -> bool:
        """Tell whether all views are there, as they would be made now."""
        seal = self._client.make_qualified_table_name(SEAL)
        try:
            rows = self._client.execute_sql(f"SELECT fingerprint FROM {seal}")
        except DatabaseException:
            return False
        return [row[0] for row in rows or ()] == [self._fingerprint]

    def show(self) -> None:
        """Make the views, undescribed."""
        for sql in self._creations:
            self._client.execute_sql(sql)

    def make(self) -> None:
        """Make the views and describe them, all or none; MySQL commits each alone."""
        try:
            if not self._is_sqlite:
                self._execute(self._creations)
                return
        except DatabaseException:
            # PostgreSQL can't replace a view by one with other columns.
            if is_alchemy(self._client):
                raise
        drops = [self._drop(name) for name in (SEAL, *reversed(NAMES))]
        self._execute([*drops, *self._creations])

    def _execute(self, creations: Iterable[str]) -> None:
        with self._client.begin_transaction():
            for sql in (*creations, *self._comments, self._sealing()):
                self._client.execute_sql(literally(self._client, sql))

    def _carried(self, ledger: Sequence[str]) -> dict[str, str]:
        """Return the carried columns as they follow the others in a SELECT."""
        carried = carried_columns(ledger, self._quote)
        return {
            "carried_from_ledger": "".join(
                f",\n    {value} AS {self._quote(alias)}"
                for alias, value in carried.items()
            ),
            "carried_from_facts": "".join(
                f",\n    facts.{self._quote(alias)}" for alias in carried
            ),
        }

    def _creation(self, view: View) -> str:
        return self._creating(self._names[view.name], view.sql.format_map(self._values))

    def _creating(self, name: str, sql: str) -> str:
        # SQLite can't replace a view: it is dropped before.
        verb = "CREATE VIEW" if self._is_sqlite else "CREATE OR REPLACE VIEW"
        relations = [self._values[known] for known in self._names]
        return f"{verb} {name} AS\n{in_dialect(sql, self._dialect, relations)}"

    def _drop(self, name: str) -> str:
        return f"DROP VIEW IF EXISTS {self._client.make_qualified_table_name(name)}"

    def _sealing(self) -> str:
        seal = self._client.make_qualified_table_name(SEAL)
        present = " AND ".join(
            f"NOT EXISTS (SELECT 1 FROM {self._values[name]} WHERE FALSE)"
            for name in NAMES
        )
        fingerprint = text_literal(self._fingerprint)
        return self._creating(
            seal,
            f"SELECT {fingerprint} AS fingerprint FROM (SELECT 1 AS one) AS here"
            f" WHERE {present}",
        )

    def _comments_on_table(self, table: Table) -> Iterator[str]:
        meanings = {column.name: column.description for column in table.columns}
        yield from self._describe("TABLE", table.name, table.description, meanings)

    def _comments_on_view(self, view: View) -> Iterator[str]:
        columns = {} if is_ducklake(self._client) else view.columns
        yield from self._describe("VIEW", view.name, view.description, columns)

    def _describe(
        self, kind: str, name: str, description: str, columns: Mapping[str, str]
    ) -> Iterator[str]:
        relation = self._names[name]
        yield f"COMMENT ON {kind} {relation} IS {text_literal(description)}"
        for column, meaning in columns.items():
            path = f"{relation}.{self._quote(column)}"
            yield f"COMMENT ON COLUMN {path} IS {text_literal(meaning)}"


def has_all_columns(client: SqlClientBase[Any]) -> bool:
    """Tell whether the tables are those of this version, not of an earlier one."""
    present = ((table, columns_of(client, table.name)) for table in TABLES)
    return all(
        set(table.schema.names) <= set(columns or ()) for table, columns in present
    )


def _is_current(client: SqlClientBase[Any], table: Table) -> bool:
    columns = ", ".join(quoted_column(client, name) for name in table.schema.names)
    name = client.make_qualified_table_name(table.name)
    try:
        loaded = execute(client, f"SELECT {columns} FROM {name}")
    except DatabaseUndefinedRelation:
        return False
    shipped = {tuple(row.values()) for row in read_code_table(table).to_pylist()}
    # Counted, as two first runs side by side may have loaded them twice. Codes that an
    # earlier version shipped stay.
    counted = Counter(map(tuple, loaded or ()))
    return shipped <= counted.keys() and max(counted.values(), default=1) == 1
