"""What a destination must be, and a user must be allowed, before anything is asked."""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dlt.destinations.job_client_impl import SqlJobClientBase

from esms_source.config.credentials import check_credentials
from esms_source.config.refusal import refuse
from esms_source.databases import duckdb_file, installing, local_file
from esms_source.databases.alchemy import is_alchemy
from esms_source.exceptions import ConfigError, DestinationError
from esms_source.keeping import check_layout, format_of, is_lake
from esms_source.load.alchemy import check_alchemy, check_datasets
from esms_source.load.destination import credentials_of, is_postgres, reaching
from esms_source.tables import POLLED, REF_IDS, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import dlt
    from dlt.common.schema.typing import TTableSchemaColumns
    from dlt.destinations.sql_client import SqlClientBase

    from esms_source.config import Settings

PACKAGES: Final = {"delta": "deltalake", "iceberg": "pyiceberg"}
"""What writes a table format."""

AS_READ: Final = {"bool": "bigint", "json": "text"}
"""Types that MySQL calls otherwise than the statement that made the column."""


def check_destination(pipeline: dlt.Pipeline, settings: Settings | None = None) -> None:
    """Refuse destinations that would lose or double rows, or fail half way.

    Args:
        pipeline: To the destination.
        settings: How it is kept, where it is to be written to.

    Raises:
        ConfigError: It is named as nothing can be named, or a setting doesn't fit it.
        DestinationError: It can't be used.
    """
    if is_lake(pipeline):
        check_layout(pipeline)
        if settings is not None:
            _check_lake(pipeline, settings)
        return
    # Before any client, which may need what isn't installed.
    capabilities = pipeline.destination.capabilities()
    if "delete-insert" not in (capabilities.supported_merge_strategies or ()):
        fact = f"{pipeline.destination.destination_name} can't delete rows in a merge"
        text = f"{fact}, so that callbacks a later answer lacks would stay"
        raise DestinationError(text, "load into duckdb, an SQL warehouse or files")
    client = pipeline.sql_client()
    setting = credentials_of(pipeline.destination.destination_name)
    check_credentials(client.credentials, setting)
    check_alchemy(client)
    path = duckdb_file(client)
    if path and _duckdb_name(path).lower() == client.dataset_name.lower():
        name = f"the dataset {pipeline.dataset_name!r}"
        fact = f"{name} has the same name as its DuckDB file"
        raise ConfigError(fact, "choose another --dataset or another file")
    path = local_file(client)
    if path and not Path(path).parent.is_dir():
        fact = f"there is no folder {str(Path(path).parent)!r} for the DuckDB file"
        raise ConfigError(fact, f"make it or set {setting}")
    for place in (Path(path).parent, Path(path)) if path else ():
        if place.exists() and not os.access(place, os.W_OK):
            fact = f"{str(place)!r} can't be written to"
            raise DestinationError(fact, "let this user write there, or choose another")


def _check_lake(pipeline: dlt.Pipeline, settings: Settings) -> None:
    """Refuse settings with which a lake couldn't be read, or not be kept as promised.

    Raises:
        ConfigError: With the setting.
    """
    chosen = settings.table_format
    package = PACKAGES.get(chosen)
    if package and find_spec(package) is None:
        fact = f"{package} isn't installed, which writes {chosen} tables"
        raise refuse("table_format", fact, installing(chosen))
    found = format_of(pipeline)
    if found not in (None, chosen):
        name = pipeline.dataset_name
        fact = f"{chosen!r}, yet the dataset {name!r} is kept as {found}"
        remedy = f"set it to {found}, or name another dataset"
        raise refuse("table_format", fact, remedy)
    if settings.keep_requests is not None:
        fact = "no rows are deleted in files"
        raise refuse("keep_requests", fact, "leave it out for this destination")


def check_tables(pipeline: dlt.Pipeline) -> None:
    """Refuse tables that somebody changed so that no load would be taken.

    Compares what is there with what dlt loaded last.

    Raises:
        DestinationError: With the table, the column and what to do.
    """
    if SCHEMA not in pipeline.schema_names:
        return
    loaded = pipeline.schemas[SCHEMA].tables
    names = [table.name for table in POLLED if table.name in loaded]
    client = pipeline.destination_client()
    if not names or not isinstance(client, SqlJobClientBase):
        return
    as_read = AS_READ if is_alchemy(client.sql_client) else {}
    with client:
        present = dict(client.get_storage_tables(names))
    for name in names:
        if not present[name]:
            fact = f"the table {name!r} is gone, though loads of it are known"
            raise DestinationError(fact, "restore it, or choose another dataset")
        _check_columns(name, loaded[name]["columns"], present[name], as_read)


def _check_columns(
    table: str,
    loaded: TTableSchemaColumns,
    present: TTableSchemaColumns,
    as_read: Mapping[str, str],
) -> None:
    for name, column in loaded.items():
        if "data_type" not in column:
            continue
        what = f"the column {name!r} of the table {table!r}"
        kind: str = column["data_type"] or ""
        found = present.get(name)
        if found is None:
            raise DestinationError(f"{what} is gone", f"add it again, for {kind}")
        if found.get("data_type", kind) not in (kind, as_read.get(kind)):
            fact = f"{what} is for {found['data_type']} now, not for {kind}"
            raise DestinationError(fact, f"alter its type, to take {kind}")
        if column.get("nullable", True) and not found.get("nullable", True):
            fact = f"{what} takes no null any more"
            raise DestinationError(fact, "drop its NOT NULL")
    for name, column in present.items():
        if name not in loaded and not column.get("nullable", True):
            fact = f"the column {name!r} of the table {table!r} is required"
            raise DestinationError(fact, "drop its NOT NULL: no load fills it")


def check_grants(pipeline: dlt.Pipeline) -> None:
    """Refuse a PostgreSQL user who may not make what a load needs, and MySQL's latin1.

    Raises:
        DestinationError: With the grant that is missing.
    """
    check_datasets(pipeline)
    with on_postgres(pipeline) as client:
        if client is None:
            return
        schemas = (client.dataset_name, client.staging_dataset_name)
        rows = client.execute_sql(
            "SELECT current_user, current_database(),"
            " has_database_privilege(current_database(), 'CREATE') OR"
            " (SELECT count(*) = %s FROM pg_namespace WHERE nspname IN %s"
            " AND has_schema_privilege(oid, 'CREATE'))",
            len(schemas),
            schemas,
        )
        read_only = client.execute_sql("SHOW transaction_read_only")
        denied = client.execute_sql(
            "SELECT nspname, current_user FROM pg_namespace"
            " LEFT JOIN pg_class ON relnamespace = pg_namespace.oid AND relkind = 'r'"
            " WHERE nspname IN %s AND NOT (has_schema_privilege(nspname, 'USAGE')"
            " AND coalesce(has_table_privilege(pg_class.oid, 'SELECT')"
            " AND has_table_privilege(pg_class.oid, 'INSERT')"
            " AND has_table_privilege(pg_class.oid, 'DELETE')"
            " AND has_table_privilege(pg_class.oid, 'TRUNCATE'), true))"
            " ORDER BY nspname LIMIT 1",
            schemas,
        )
    if read_only and read_only[0][0] == "on":
        fact = "the PostgreSQL server, or this user's session, is read-only"
        raise DestinationError(fact, "load into the primary server, as another user")
    for schema, user in denied or ():
        fact = f"the user {user!r} may not read and write the tables of {schema!r}"
        usage = f'GRANT USAGE, CREATE ON SCHEMA "{schema}" TO "{user}"'
        tables = f'ON ALL TABLES IN SCHEMA "{schema}" TO "{user}"'
        rights = f"{usage} and GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE {tables}"
        raise DestinationError(fact, rights)
    for user, database, may_create in rows or ():
        if not may_create:
            grant = f'GRANT CREATE ON DATABASE "{database}" TO "{user}"'
            instead = f"make the schemas {' and '.join(schemas)} for it"
            fact = f"the user {user!r} may not create schemas in PostgreSQL"
            raise DestinationError(fact, f"{grant}, or {instead}")


def missing_index(pipeline: dlt.Pipeline) -> str | None:
    """Return the SQL of the index that a large PostgreSQL ledger has not, if any.

    Raises:
        DestinationError: The server can't be reached.
    """
    with on_postgres(pipeline) as client:
        if client is None:
            return None
        ledger = client.make_qualified_table_name(REF_IDS.name)
        rows = client.execute_sql(
            "SELECT 1 FROM pg_index WHERE indrelid = to_regclass(%s) AND indisvalid"
            " AND ARRAY['oa_id', 'ref_id'] = (SELECT array_agg(attname::text"
            " ORDER BY attname) FROM pg_attribute WHERE attrelid = indrelid"
            " AND attnum IN (indkey[0], indkey[1]))",
            ledger,
        )
    if rows:
        return None
    return f"CREATE UNIQUE INDEX CONCURRENTLY ON {ledger} (ref_id, oa_id)"


def _duckdb_name(path: str) -> str:
    """Return what DuckDB calls the database in a file."""
    return Path(path).name.lstrip(".").partition(".")[0]


@contextmanager
def on_postgres(pipeline: dlt.Pipeline) -> Iterator[SqlClientBase[Any] | None]:
    """Connect to the destination where it is a PostgreSQL, else yield None.

    Raises:
        DestinationError: The server can't be reached; the next run loads.
    """
    client = pipeline.sql_client()
    if not is_postgres(client):
        yield None
        return
    with reaching(client), client:
        yield client
