"""A warehouse that a destination of dlt reads: DuckDB, PostgreSQL and others."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
    bound_lock_waits,
    duckdb_file,
    installing,
)
from esms_source.exceptions import ConfigError, RefIdTableError
from esms_source.planning.database import Database
from esms_source.planning.foreign_url import CREDENTIALS
from esms_source.planning.windows import in_windows, parts_in_windows
from esms_source.sql import quote_name

if TYPE_CHECKING:
    from datetime import datetime

    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings
    from esms_source.config.ref_id_table import RefIdTable
    from esms_source.planning.candidates import Columns
    from esms_source.planning.scratch import Scratch

DENIED: Final = re.compile(
    r"permission denied for (schema|(?:foreign )?table|(?:materialized )?view) (.+)"
)
"""How PostgreSQL says which right is missing."""

TABLES: Final = (
    "SELECT table_schema, table_name, column_name FROM information_schema.columns"
    " WHERE table_schema NOT IN ('information_schema', 'pg_catalog')"
    " AND table_catalog = current_database()"
    " ORDER BY table_schema, table_name, ordinal_position"
)


class DltWarehouse:
    """A warehouse that a destination of dlt reads.

    Args:
        client: dlt's client of it.
        table: The settings: a table and its schema, or a query.
        scratch: Where it is shown, or copied to.
    """

    def __init__(
        self, client: SqlClientBase[Any], table: RefIdTable, scratch: Scratch
    ) -> None:
        self._client, self._table, self._scratch = client, table, scratch
        self._database = database = Database(client, scratch, table.dataset_name)
        self.as_text = database.is_postgres
        if database.is_missing:
            fact = f"the warehouse's DuckDB file {duckdb_file(client)!r} is not there"
            raise RefIdTableError(fact, "correct ref_ids.credentials")
        self._relation = database.name_of(table.table or "")
        if table.query:
            # A line of its own: the query may end in a comment.
            self._relation = f"({table.query.strip().rstrip(';')}\n) AS query"
        self._types: Mapping[str, str] = {}

    def types(self) -> Mapping[str, str] | None:
        """Return the columns with their DuckDB types, None if there is no table."""
        types = self._database.types(self._relation)
        if types is None and not self._table.query:
            # Who writes zns_log means ZNS_LOG where names are folded like that.
            self._relation = self._database.name_of(str(self._table.table), folded=True)
            types = self._database.types(self._relation)
        self._types = types or {}
        return types

    def read(
        self, columns: Columns, windows: Mapping[str, datetime]
    ) -> tuple[str, Mapping[str, str]]:
        """Return what to select columns from, and their types."""
        database, relation = self._database, self._relation
        condition = ""
        # A view would be worked out anew for each part.
        if database.is_remote or not database.is_table(relation):
            condition = in_windows(columns, self._types, windows, database.quote)
        else:
            relation = parts_in_windows(relation, columns, self._types, windows)
        relation = database.readable(relation, columns.all, "raw", condition)
        types = self._types if self.as_text else self._scratch.types(relation)
        return relation, types

    def grant(self, said: str) -> str | None:
        """Return the grant that is missing, where an error says so."""
        denied = DENIED.match(said)
        if not denied:
            return None
        kind, name = denied.groups()
        right = "USAGE ON SCHEMA" if kind == "schema" else "SELECT ON"
        schema = self._table.dataset_name if name == self._table.table else None
        parts = ".".join(quote_name(part) for part in (schema, name) if part)
        user = getattr(self._client.credentials, "username", None) or "its user"
        return f"GRANT {right} {parts} TO {quote_name(user)}"

    def tables(self) -> Mapping[tuple[str, str], list[str]]:
        """Return the columns of each table and view, by schema and name."""
        tables: dict[tuple[str, str], list[str]] = {}
        for schema, table, column in self._database.rows(TABLES):
            tables.setdefault((schema, table), []).append(column)
        return tables

    def close(self) -> None:
        """Close nothing: dlt's client opens a connection for each statement."""


def open_client(settings: Settings) -> SqlClientBase[Any]:
    """Return dlt's SQL client of the warehouse.

    Raises:
        ConfigError: The destination isn't known, or its settings are wrong.
    """
    table = settings.ref_ids
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
