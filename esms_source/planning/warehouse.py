"""The user's table of RefIds: opened, and shown to the scratch database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import dlt
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.exceptions import (
    ConfigurationException,
    InvalidNativeValue,
)
from dlt.common.configuration.specs import ConnectionStringCredentials
from dlt.common.destination.exceptions import DestinationException
from dlt.common.destination.reference import DestinationReference
from dlt.common.schema import Schema
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.destinations.impl.postgres.configuration import PostgresCredentials

from esms_source.config.credentials import check_credentials, refuse_credentials
from esms_source.config.providers import find_fields
from esms_source.databases import (
    NotInstalled,
    ReadError,
    bound_lock_waits,
    cause_of,
    duckdb_file,
    explain,
    installing,
)
from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.planning.candidates import Candidates, Columns, match
from esms_source.planning.database import Database
from esms_source.redaction import first_line
from esms_source.sql import moment_literal, quote_name

if TYPE_CHECKING:
    from datetime import datetime

    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.config.ref_id_table import RefIdTable
    from esms_source.exceptions import EsmsError
    from esms_source.planning.scratch import Scratch

DENIED: Final = re.compile(
    r"permission denied for (schema|(?:foreign )?table|(?:materialized )?view) (.+)"
)
"""How PostgreSQL says which right is missing."""

CREDENTIALS: Final = "ref_ids.credentials"

WINDOW_SLACK: Final = {
    "TIMESTAMP WITH TIME ZONE": timedelta(),
    "TIMESTAMP": timedelta(days=1),
    "DATE": timedelta(days=1),
}
"""By what a window must be wider where the database compares without time zone."""


MOST_WINDOWS: Final = 20
"""Windows that a database is told of; each row is compared with all of them."""


def table_candidates(
    settings: Settings,
    scratch: Scratch,
    client: SqlClientBase[Any],
    windows: Mapping[str, datetime],
) -> Candidates:
    """Return the warehouse table of the settings as candidates.

    Args:
        settings: Which table.
        scratch: Where it is shown, or copied to.
        client: dlt's client of the warehouse.
        windows: By OA, a time before which rows needn't be copied.

    Raises:
        RefIdTableError: It can't be read, or a column isn't there.
    """
    table = settings.ref_ids
    try:
        database = Database(client, scratch, table.dataset_name)
        if database.is_missing:
            fact = f"the warehouse's DuckDB file {duckdb_file(client)!r} is not there"
            raise RefIdTableError(fact, "correct ref_ids.credentials")
        if table.query:
            # A line of its own: the query may end in a comment.
            relation = f"({table.query.strip().rstrip(';')}\n) AS query"
        else:
            relation = database.name_of(table.table or "")
        types = database.types(relation)
        if types is None:
            raise _not_there(table)
        columns = _find_columns(table, list(types))
        condition = ""
        if database.is_remote and columns.sent_at:
            kind = types[columns.sent_at]
            condition = _in_windows(database, columns, kind, windows)
        relation = database.readable(relation, columns.all, "raw", condition)
        as_text = database.is_postgres
        if not as_text:
            types = scratch.types(relation)
        found = Candidates(relation, columns, types, as_text)
        found.refuse_rounded_ids(scratch)
    except ReadError as exc:
        raise _why_not(table, exc, client) from cause_of(exc)
    return found


def _in_windows(
    database: Database, columns: Columns, kind: str, windows: Mapping[str, datetime]
) -> str:
    """Return a condition that leaves out what lies certainly before its OA's window.

    What is left is compared exactly once it is copied: rows whose own column names no
    OA are all left, and of many OAs some share the earliest of their windows.
    """
    slack = WINDOW_SLACK.get(kind)
    if slack is None or not windows or not columns.sent_at or not columns.oa_id:
        return ""
    oa_id = f"CAST({database.quote(columns.oa_id)} AS VARCHAR)"
    sent_at = database.quote(columns.sent_at)
    latest_first = sorted(windows, key=windows.__getitem__, reverse=True)
    size = -(-len(latest_first) // MOST_WINDOWS)
    groups = [latest_first[i : i + size] for i in range(0, len(latest_first), size)]
    before = " OR ".join(
        f"{oa_id} IN ({database.text_list(group)})"
        f" AND {sent_at} < {moment_literal(windows[group[-1]] - slack)}"
        for group in groups
    )
    return f" WHERE {oa_id} IS NULL OR {sent_at} IS NULL OR NOT ({before})"


def open_client(settings: Settings) -> SqlClientBase[Any]:
    """Return dlt's SQL client of the warehouse.

    Raises:
        ConfigError: The destination isn't known, or its settings are wrong.
    """
    table = settings.ref_ids
    if not table.table and not table.query:
        remedy = "set ref_ids.table or ref_ids.query (SOURCES__ESMS__REF_IDS__TABLE)"
        raise ConfigError("no warehouse table is named", remedy)
    open_destination = DestinationReference.from_reference
    try:
        factory: Any = open_destination(table.destination)
        credentials = _credentials(factory, table.credentials)
        if credentials is not None:
            factory = open_destination(table.destination, credentials=credentials)
        # With a schema of its own dlt doesn't connect to look for one.
        dataset = dlt.dataset(factory, "warehouse", Schema("warehouse"))
        client = dataset.sql_client
        check_credentials(client.credentials, CREDENTIALS)
        if client.capabilities.sqlglot_dialect == "postgres":
            bound_lock_waits(client.credentials)
    except NotInstalled as exc:
        fact = f"the warehouse {table.destination!r} is not installed"
        raise ConfigError(fact, installing(table.destination)) from exc
    except (ConfigurationException, DestinationException, ImportError) as exc:
        remedy = "see ref_ids.destination and ref_ids.credentials"
        what = "the warehouse can't be opened"
        raise refuse_credentials(exc, what, CREDENTIALS, remedy) from None
    return client


def _credentials(factory: Any, given: Any) -> Any:  # noqa: ANN401  as dlt takes them
    """Return the credentials of the settings, None where they say nothing.

    Each field is handed over: dlt would go on to any program's ``PASSWORD``.
    """
    kind = factory.spec.credentials_type(factory.spec())
    made = kind()
    has_url = isinstance(made, ConnectionStringCredentials)
    if isinstance(given, str) and has_url and not isinstance(made, DuckDbCredentials):
        try:
            made.parse_native_representation(given.strip())
        except ValueError as exc:
            raise InvalidNativeValue(kind, str, (), exc) from None
        given = made.as_dict_nondefault()
    if given is not None and not isinstance(given, Mapping):
        return given
    values = find_fields(kind, "ref_ids", "credentials") | dict(given or {})
    if not values:
        return None
    if isinstance(made, PostgresCredentials):
        # With an empty one the driver looks into .pgpass, or goes without.
        values.setdefault("password", "")
    return resolve_configuration(made, explicit_value=dict(made) | values)


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


def _not_there(table: RefIdTable) -> RefIdTableError:
    if table.query:
        fact = "ref_ids.query names a table that is not there"
        return RefIdTableError(fact, "correct it")
    name = ".".join(part for part in (table.dataset_name, table.table) if part)
    remedy = "correct ref_ids.dataset_name, ref_ids.table or ref_ids.credentials"
    return RefIdTableError(f"there is no table {name!r} in the warehouse", remedy)


def _why_not(
    table: RefIdTable, exc: Exception, client: SqlClientBase[Any]
) -> EsmsError:
    fact = first_line(exc)
    if denied := DENIED.match(fact):
        kind, name = denied.groups()
        schema = table.dataset_name if name == table.table else None
        parts = ".".join(quote_name(part) for part in (schema, name) if part)
        right = "USAGE ON SCHEMA" if kind == "schema" else "SELECT ON"
        user = getattr(client.credentials, "username", None) or "its user"
        grant = f"GRANT {right} {parts} TO {quote_name(user)}"
        return RefIdTableError(f"the warehouse can't be read: {fact}", grant)
    remedy = f"see ref_ids.{'query' if table.query else 'table'} and its grants"
    return explain(exc, "the warehouse can't be read", remedy, RefIdTableError)
