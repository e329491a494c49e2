"""The user's table of RefIds: opened, and shown to the scratch database."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Protocol

from esms_source.config.credentials import ALCHEMY_DRIVERS as DRIVERS
from esms_source.databases import ReadError, cause_of, explain
from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.planning.candidates import Candidates, Columns, match
from esms_source.planning.dlt_warehouse import DltWarehouse, open_client
from esms_source.planning.file_warehouse import IN_MEMORY, FileWarehouse
from esms_source.planning.foreign_url import foreign_url
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from esms_source.config import Settings
    from esms_source.config.ref_id_table import RefIdTable
    from esms_source.exceptions import EsmsError
    from esms_source.planning.scratch import Scratch


DEFAULT_SCHEMAS: Final = ("main", "public")
"""Where a table is whose schema isn't named: in DuckDB, in PostgreSQL."""


class Warehouse(Protocol):
    """A database with the user's table, or query.

    Attributes:
        as_text: Whether what it reads are texts, whatever their types.
    """

    as_text: bool

    def types(self) -> Mapping[str, str] | None:
        """Return the columns with their DuckDB types, None if there is no table."""

    def read(
        self, columns: Columns, windows: Mapping[str, datetime]
    ) -> tuple[str, Mapping[str, str]]:
        """Return what to select columns from, and their types.

        Args:
            columns: Which ones.
            windows: By OA, a time before which rows needn't be copied.
        """

    def grant(self, said: str) -> str | None:
        """Return the grant that is missing, where an error says so."""

    def tables(self) -> Mapping[tuple[str, str], list[str]]:
        """Return the columns of each table and view, by schema and name."""

    def close(self) -> None:
        """Close what is open."""


def table_candidates(
    settings: Settings, scratch: Scratch, windows: Mapping[str, datetime]
) -> Candidates:
    """Return the warehouse table of the settings as candidates.

    Args:
        settings: Which table.
        scratch: Where it is shown, or copied to.
        windows: By OA, a time before which rows needn't be copied.

    Raises:
        ConfigError: The destination isn't known, or its settings are wrong.
        RefIdTableError: It can't be read, or a column isn't there.
    """
    table = settings.ref_ids
    warehouse = open_warehouse(settings, scratch)
    try:
        types = warehouse.types()
        if types is None:
            raise _not_there(table, warehouse)
        columns = _find_columns(table, list(types))
        relation, types = warehouse.read(columns, windows)
        found = Candidates(relation, columns, types, warehouse.as_text)
        found.refuse_rounded_ids(scratch)
    except ReadError as exc:
        raise _why_not(table, exc, warehouse) from cause_of(exc)
    finally:
        warehouse.close()
    return found


def open_warehouse(settings: Settings, scratch: Scratch) -> Warehouse:
    """Return the warehouse of the settings.

    Raises:
        ConfigError: The destination isn't known, or its settings are wrong.
        RefIdTableError: There is no such DuckDB file.
    """
    table = settings.ref_ids
    if not table.table and not table.query:
        remedy = "set ref_ids.table or ref_ids.query (SOURCES__ESMS__REF_IDS__TABLE)"
        raise ConfigError("no warehouse table is named", remedy)
    if table.destination == "duckdb" and table.credentials == IN_MEMORY:
        return FileWarehouse(table, scratch)
    url = foreign_url(table)
    if url is None:
        return DltWarehouse(open_client(settings), table, scratch)
    # An extra brings SQLAlchemy along.
    from esms_source.planning.foreign import ForeignDatabase  # noqa: PLC0415

    try:
        return ForeignDatabase(url, table, scratch)
    except ImportError:
        fact = f"the driver of this {url.get_backend_name()} URL is not installed"
        raise ConfigError(fact, DRIVERS) from None


def _find_columns(table: RefIdTable, present: list[str]) -> Columns:
    """Find all columns that the settings name."""

    def find(name: str, setting: str) -> str:
        found = match(name, present)
        if found is None:
            fact = f"there is no column {name!r}, only {', '.join(map(repr, present))}"
            raise RefIdTableError(fact, f"correct ref_ids.{setting}")
        return found

    return Columns(
        find(table.ref_id_column, "ref_id_column"),
        find(table.oa_id_column, "oa_id_column") if table.oa_id_column else None,
        find(table.sent_at_column, "sent_at_column") if table.sent_at_column else None,
        {alias: find(name, "carry") for alias, name in table.carried.items()},
    )


def _not_there(table: RefIdTable, warehouse: Warehouse) -> RefIdTableError:
    if table.query:
        fact = "ref_ids.query names a table that is not there"
        return RefIdTableError(fact, "correct it")
    name = ".".join(part for part in (table.dataset_name, table.table) if part)
    fact = f"there is no table {name!r} in the warehouse"
    remedy = "correct ref_ids.dataset_name, ref_ids.table or ref_ids.credentials"
    try:
        tables = warehouse.tables()
    except ReadError:
        return RefIdTableError(fact, remedy)
    names = {name for _, name in tables}
    schemas = [table.dataset_name] if table.dataset_name else DEFAULT_SCHEMAS
    for schema, found in tables:
        if found == table.table and schema in schemas:
            fact = f"the view {found!r} stands on a table that is not there"
            remedy = "let ref_ids.query name what it reads, or build it as a table"
            return RefIdTableError(fact, remedy)
        if found.lower() == str(table.table).lower():
            told = f"set ref_ids.dataset_name = {schema!r}, ref_ids.table = {found!r}"
            return RefIdTableError(f"{fact}; there is one in schema {schema!r}", told)
    if near := get_close_matches(str(table.table), names, 1):
        fact += f"; there is {near[0]!r}"
    return RefIdTableError(fact, remedy)


def _why_not(table: RefIdTable, exc: Exception, warehouse: Warehouse) -> EsmsError:
    fact = first_line(exc)
    if grant := warehouse.grant(fact):
        return RefIdTableError(f"the warehouse can't be read: {fact}", grant)
    remedy = f"see ref_ids.{'query' if table.query else 'table'} and its grants"
    return explain(exc, "the warehouse can't be read", remedy, RefIdTableError)
