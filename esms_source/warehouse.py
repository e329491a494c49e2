"""RefIds out of the user's table, or out of an iterable in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination.exceptions import DestinationException
from dlt.common.destination.reference import DestinationReference
from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.common.schema import Schema

from esms_source.config import SECTIONS
from esms_source.database import (
    COPY_ROWS,
    UNKNOWN,
    Database,
    NotInstalled,
    ReadError,
    duckdb_file,
    installing,
    is_locked,
)
from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.ledger import FIXED, literal
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import RefIdTable, Settings
    from esms_source.database import Scratch

BLANKS: Final = " \t\r\n\v\f\u00a0\u200b\u3000\ufeff"
DAY_FIRST: Final = ("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y")
"""How dates are written in Vietnam, tried where ISO 8601 doesn't fit."""

FRACTIONAL: Final = ("FLOAT", "DOUBLE", "DECIMAL")
CARRIED_AS_THEY_ARE: Final = (
    "VARCHAR",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "DATE",
)

DENIED: Final = re.compile(
    r"permission denied for (schema|(?:foreign )?table|(?:materialized )?view) (.+)"
)
"""How PostgreSQL says which right is missing."""

WINDOW_SLACK: Final = {
    "TIMESTAMP WITH TIME ZONE": timedelta(),
    "TIMESTAMP": timedelta(days=1),
    "DATE": timedelta(days=1),
}
"""By what a window must be wider where the database compares without time zone."""

ARROW: Final = (pa.Table, pa.RecordBatch)

RefIds = Iterable[Any]
"""Dicts, texts, Arrow tables or a dlt resource of them, instead of a table."""


@dataclass(frozen=True)
class Columns:
    """The warehouse's own names of the columns that are read."""

    ref_id: str
    oa_id: str | None
    sent_at: str | None
    carried: Mapping[str, str]

    @property
    def all(self) -> list[str]:
        """Return every column once."""
        names = (self.ref_id, self.oa_id, self.sent_at, *self.carried.values())
        return list(dict.fromkeys(name for name in names if name))


@dataclass(frozen=True)
class Offer:
    """Rows with RefIds, ready to be selected from in the scratch database.

    Attributes:
        relation: What stands behind FROM.
        columns: Which columns to take.
        types: Their types in DuckDB, by name.
    """

    relation: str
    columns: Columns
    types: Mapping[str, str]

    def select(self, default_oa_id: str | None, windows: str | None = None) -> str:
        """Return SQL that selects oa_id, ref_id, sent_at and what is carried.

        Args:
            default_oa_id: For rows that name no OA.
            windows: A relation (oa_id, since); rows sent before their OA's
                ``since`` are left out.
        """
        columns = self.columns
        oa_id = self._oa_id(default_oa_id)
        sent_at = self._moment(columns.sent_at) if columns.sent_at else None
        carried = [
            f"{self._carried(name)} AS {_quote(alias)}"
            for alias, name in columns.carried.items()
        ]
        selected = [
            f"{oa_id} AS oa_id",
            f"{self._ref_id()} AS ref_id",
            f"{sent_at or 'NULL::TIMESTAMPTZ'} AS sent_at",
            *carried,
        ]
        sql = f"SELECT {', '.join(selected)} FROM (FROM {self.relation}) AS offer"
        if windows and sent_at:
            sql += (
                f" LEFT JOIN (SELECT oa_id AS esms_oa_id, since AS esms_since"
                f" FROM {windows}) AS esms_window ON esms_oa_id = {oa_id}"
                f" WHERE esms_since IS NULL OR {sent_at} >= esms_since"
                f" OR {sent_at} IS NULL"
            )
        return sql

    def _oa_id(self, default: str | None) -> str:
        """Return the SQL of a row's OA, null where it has none."""
        fallback = _literal(default) if default else "NULL::VARCHAR"
        if not self.columns.oa_id:
            return fallback
        return f"coalesce(nullif({self._text(self.columns.oa_id)}, ''), {fallback})"

    def _ref_id(self) -> str:
        """Return the SQL of a row's RefId; stripping is dear, and most are plain."""
        column, stripped = _quote(self.columns.ref_id), self._text(self.columns.ref_id)
        if self.types[self.columns.ref_id] != "VARCHAR":
            return stripped
        plain = f"regexp_full_match({column}, '[!-~]+')"
        return f"CASE WHEN {plain} THEN {column} ELSE {stripped} END"

    def _text(self, name: str) -> str:
        column = _quote(name)
        text = f"CAST({column} AS VARCHAR)"
        if self.types[name].startswith(FRACTIONAL):
            whole = f"CAST(TRY_CAST({column} AS HUGEINT) AS VARCHAR)"
            text = f"CASE WHEN {column} = trunc({column}) THEN {whole} ELSE {text} END"
        return f"trim(coalesce({text}, ''), {_literal(BLANKS)})"

    def _moment(self, name: str) -> str:
        is_text = self.types[name] == "VARCHAR"
        column = self._text(name) if is_text else _quote(name)
        moment = f"TRY_CAST({column} AS TIMESTAMPTZ)"
        if is_text:
            formats = ", ".join(_literal(form) for form in DAY_FIRST)
            day_first = f"TRY_CAST(try_strptime({column}, [{formats}]) AS TIMESTAMPTZ)"
            moment = f"coalesce({moment}, {day_first})"
        return f"CASE WHEN isfinite({moment}) THEN {moment} END"

    def _carried(self, name: str) -> str:
        column, kind = _quote(name), self.types[name]
        if kind.startswith("TIMESTAMP"):
            return f"CAST({column} AS TIMESTAMPTZ)"
        if kind.startswith(CARRIED_AS_THEY_ARE) and not kind.endswith("]"):
            return column
        return f"CAST({column} AS VARCHAR)"


@dataclass(frozen=True)
class Skipped:
    """Rows of the warehouse that were read and can't be asked."""

    no_ref_id: int = 0
    no_oa_id: int = 0
    no_sent_at: int = 0

    @property
    def total(self) -> int:
        """Return how many there were."""
        return self.no_ref_id + self.no_oa_id + self.no_sent_at

    def remedies(self) -> list[str]:
        """Return a line for each kind that there is, with what to do."""
        kinds = (
            (self.no_ref_id, "no RefId", "fill ref_ids.ref_id_column"),
            (self.no_oa_id, "no OA", "set oa_id or fill ref_ids.oa_id_column"),
            (self.no_sent_at, "no sent_at", "fill ref_ids.sent_at_column"),
        )
        return [
            f"{count} {'row has' if count == 1 else 'rows have'} {what}"
            f" and {'is' if count == 1 else 'are'} not asked; {remedy}"
            for count, what, remedy in kinds
            if count
        ]


def offer_table(
    settings: Settings,
    scratch: Scratch,
    client: SqlClientBase[Any],
    windows: str | None = None,
) -> Offer:
    """Offer the warehouse table of the settings.

    Args:
        settings: Which table.
        scratch: Where it is shown, or copied to.
        client: dlt's client of the warehouse.
        windows: As for ``Offer.select``: rows before them needn't be copied.

    Raises:
        RefIdTableError: It can't be read, or a column isn't there.
    """
    table = settings.ref_ids
    try:
        database = Database(client, scratch, table.dataset_name)
        if database.is_missing:
            fact = f"the warehouse's DuckDB file {duckdb_file(client)!r} is not there"
            raise RefIdTableError(f"{fact}; correct ref_ids.credentials")
        if table.query:
            # A line of its own: the query may end in a comment.
            relation = f"({table.query.strip().rstrip(';')}\n) AS query"
        else:
            relation = database.name_of(table.table or "")
        types = database.types(relation)
        if types is None:
            raise RefIdTableError(_not_there(table))
        columns = _find_columns(table, list(types))
        if windows and database.is_postgres and columns.sent_at:
            known = scratch.rows(
                f"SELECT oa_id, since FROM {windows} WHERE since < 'infinity'"
            )
            kind = types[columns.sent_at]
            relation = _in_windows(
                database, relation, columns, kind, known, settings.oa_id
            )
        relation = database.readable(relation, columns.all, "raw")
        return Offer(relation, columns, scratch.types(relation))
    except ReadError as exc:
        raise RefIdTableError(_why_not(table, exc, client)) from exc


def _in_windows(
    database: Database,
    relation: str,
    columns: Columns,
    kind: str,
    known: list[tuple[str, datetime]],
    default_oa_id: str | None,
) -> str:
    """Return SQL that leaves out what lies certainly before its OA's window.

    What is left is compared exactly once it is copied.
    """
    slack = WINDOW_SLACK.get(kind)
    if slack is None or not known or not columns.sent_at:
        return relation
    oa_ids = database.text_list([oa_id for oa_id, _ in known])
    moments = ", ".join(literal(since - slack) for _, since in known)
    oa_id = (
        f"CAST({database.quote(columns.oa_id)} AS text)" if columns.oa_id else "NULL"
    )
    default = database.text_list([default_oa_id]) if default_oa_id else "NULL"
    return (
        f"(SELECT offer.* FROM (SELECT * FROM {relation}) AS offer"
        f" LEFT JOIN unnest(ARRAY[{oa_ids}], ARRAY[{moments}])"
        f" AS esms_window (esms_oa_id, esms_since)"
        f" ON esms_oa_id = coalesce({oa_id}, {default})"
        f" WHERE esms_since IS NULL OR {database.quote(columns.sent_at)} IS NULL"
        f" OR {database.quote(columns.sent_at)} >= esms_since) AS windowed"
    )


def offer_rows(settings: Settings, scratch: Scratch, ref_ids: RefIds) -> Offer:
    """Offer an iterable in place of a warehouse table.

    Raises:
        RefIdTableError: The rows can't be read, or a column isn't there.
    """
    table = settings.ref_ids
    chunks = _chunks(ref_ids, table)
    first = next(chunks, pa.table({"ref_id": pa.array([], pa.string())}))
    scratch.create("plan.main.raw", dict.fromkeys(first.column_names, UNKNOWN))
    for chunk in chain([first], chunks):
        scratch.fill("plan.main.raw", chunk)
    types = scratch.types("plan.main.raw")
    return Offer("plan.main.raw", _find_row_columns(table, list(types)), types)


def open_client(settings: Settings) -> SqlClientBase[Any]:
    """Return dlt's SQL client of the warehouse.

    Raises:
        ConfigError: The destination isn't known, or its settings are wrong.
    """
    table = settings.ref_ids
    if not table.table and not table.query:
        remedy = "set ref_ids.table or ref_ids.query (SOURCES__ESMS__REF_IDS__TABLE)"
        raise ConfigError(f"no warehouse table is named; {remedy}")
    open_destination = DestinationReference.from_reference
    try:
        factory: Any = open_destination(table.destination)
        credentials_type = factory.spec.credentials_type(factory.spec())
        credentials = table.credentials
        if credentials is None or isinstance(credentials, Mapping):
            credentials = resolve_configuration(
                credentials_type(),
                sections=(*SECTIONS, "ref_ids"),
                explicit_value=credentials,
                accept_partial=True,
            )
            if not getattr(credentials, "__resolved_fields_set__", None):
                credentials = None
        if credentials is not None:
            factory = open_destination(table.destination, credentials=credentials)
        config = factory.spec()._bind_dataset_name(dataset_name="warehouse")  # noqa: SLF001
        client: SqlClientBase[Any] = factory.client(
            Schema("warehouse"), config
        ).sql_client
    except NotInstalled as exc:
        fact = f"the warehouse {table.destination!r} is not installed"
        raise ConfigError(f"{fact}; {installing(table.destination)}") from exc
    except (ConfigurationException, DestinationException, ImportError) as exc:
        fact = first_line(exc)
        remedy = "see ref_ids.destination and ref_ids.credentials"
        raise ConfigError(f"the warehouse can't be opened: {fact}; {remedy}") from exc
    return client


def count_skipped(scratch: Scratch, *, timed: bool) -> Skipped:
    """Count what can't be asked of the rows in ``plan.main.offered``.

    Args:
        scratch: Where they are.
        timed: Whether they must have a ``sent_at``.
    """
    row = scratch.rows(
        "SELECT count(*) FILTER (ref_id = ''),"
        " count(*) FILTER (ref_id <> '' AND oa_id IS NULL),"
        " count(*) FILTER (ref_id <> '' AND oa_id IS NOT NULL"
        " AND sent_at IS NULL AND ?) FROM plan.main.offered",
        [timed],
    )[0]
    return Skipped(*row)


def _find_columns(table: RefIdTable, present: list[str]) -> Columns:
    """Find all columns that the settings name."""

    def find(name: str, setting: str) -> str:
        found = _match(name, present)
        if found is None:
            fact = f"there is no column {name!r}, only {', '.join(map(repr, present))}"
            raise RefIdTableError(f"{fact}; correct ref_ids.{setting}")
        return found

    return Columns(
        find(table.ref_id_column, "ref_id_column"),
        find(table.oa_id_column, "oa_id_column") if table.oa_id_column else None,
        find(table.sent_at_column, "sent_at_column") if table.sent_at_column else None,
        {alias: find(name, "carry") for alias, name in _aliases(table).items()},
    )


def _find_row_columns(table: RefIdTable, present: list[str]) -> Columns:
    """Find columns of rows given in place of a table: theirs, or our names for them."""
    ref_id = _match(table.ref_id_column, present) or _match("ref_id", present)
    if ref_id is None:
        fact = f"the rows have no ref_id, only {', '.join(map(repr, present))}"
        raise RefIdTableError(f"{fact}; name their column ref_id")
    carried = {alias: _match(name, present) for alias, name in _aliases(table).items()}
    return Columns(
        ref_id,
        _match(table.oa_id_column, present) or _match("oa_id", present),
        _match(table.sent_at_column, present) or _match("sent_at", present),
        {alias: found for alias, found in carried.items() if found},
    )


def _match(name: str | None, present: list[str]) -> str | None:
    """Find a column to the letter, else in another letter case."""
    if name is None or name in present:
        return name
    matches = [column for column in present if column.lower() == name.lower()]
    return matches[0] if len(matches) == 1 else None


def _aliases(table: RefIdTable) -> dict[str, str]:
    """Return the carried columns by their names in the ledger."""
    naming = NamingConvention()
    carried: dict[str, str] = {}
    for name in table.carry:
        alias = naming.normalize_identifier(name)
        if alias in FIXED or alias in carried:
            fact = f"{name!r} would be a second column {alias!r} in the ledger"
            raise ConfigError(f"ref_ids.carry: {fact}; rename it in ref_ids.query")
        carried[alias] = name
    return carried


def _chunks(ref_ids: RefIds, table: RefIdTable) -> Iterator[pa.Table]:
    """Turn rows of any form into Arrow tables of one schema."""
    rows: list[dict[str, Any]] = []
    if isinstance(ref_ids, ARROW):
        ref_ids = [ref_ids]  # by itself it would yield its columns
    for item in ref_ids:
        if isinstance(item, ARROW):
            batches = [item] if isinstance(item, pa.RecordBatch) else item.to_batches()
            yield pa.Table.from_batches(batches, item.schema)
            continue
        row = item if isinstance(item, Mapping) else {table.ref_id_column: item}
        rows.append({name: _plain(value) for name, value in row.items()})
        if len(rows) >= COPY_ROWS:
            yield _from_rows(rows)
            rows = []
    if rows:
        yield _from_rows(rows)


def _plain(value: Any) -> Any:  # noqa: ANN401  any value of a row
    """Write numbers as text, as ids come both ways."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number else value


def _from_rows(rows: list[dict[str, Any]]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table({name: [row.get(name) for row in rows] for name in names})
    except pa.ArrowException as exc:
        fact = f"the rows of ref_ids don't agree in type: {exc}"
        raise RefIdTableError(f"{fact}; give each column one type") from exc


def _not_there(table: RefIdTable) -> str:
    if table.query:
        return "ref_ids.query names a table that is not there; correct it"
    name = ".".join(part for part in (table.dataset_name, table.table) if part)
    remedy = "correct ref_ids.dataset_name, ref_ids.table or ref_ids.credentials"
    return f"there is no table {name!r} in the warehouse; {remedy}"


def _why_not(table: RefIdTable, exc: Exception, client: SqlClientBase[Any]) -> str:
    if is_locked(exc):
        return "another process holds the warehouse's DuckDB file open; close it there"
    fact = first_line(exc)
    if denied := DENIED.match(fact):
        kind, name = denied.groups()
        schema = table.dataset_name if name == table.table else None
        parts = ".".join(_quote(part) for part in (schema, name) if part)
        right = "USAGE ON SCHEMA" if kind == "schema" else "SELECT ON"
        user = getattr(client.credentials, "username", None) or "its user"
        grant = f"GRANT {right} {parts} TO {_quote(user)}"
        return f"the warehouse can't be read: {fact}; {grant}"
    part = "query" if table.query else "table"
    return f"the warehouse can't be read: {fact}; see ref_ids.{part} and its grants"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
