"""dlt's pipeline to the destination: opened and checked."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dlt
import duckdb
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.destination.exceptions import DestinationException
from dlt.destinations.exceptions import DatabaseException
from dlt.pipeline.exceptions import InvalidPipelineName, PipelineStepFailed

from esms_source.databases import (
    NotInstalled,
    cause_of,
    check_credentials,
    duckdb_file,
    explain,
    installing,
    is_locked,
    refuse_credentials,
)
from esms_source.exceptions import ConfigError, DestinationError, EsmsError, causes
from esms_source.redaction import first_line
from esms_source.tables import REF_IDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlt.destinations.sql_client import SqlClientBase

STAGING_LAYOUT: Final = "staging_dataset_name_layout"
SHARED_STAGING: Final = "%s_staging"
"""dlt's default; all pipelines of a dataset would empty and fill the same tables."""


LONGEST_NAME: Final = 200
"""Bytes; a file's name holds 255, and dlt and the lock add to it."""


def open_pipeline(destination: str, dataset: str, name: str) -> dlt.Pipeline:
    """Return the pipeline of a destination, known by dlt's name for it.

    Raises:
        ConfigError: dlt doesn't know the destination, an extra is missing, a name
            can't be one, or dlt's working folder can't be used.
    """
    for option, text in (("--pipeline", name), ("--dataset", dataset)):
        if not _is_name(text):
            shown = text if len(text) < LONGEST_NAME else f"{text[:20]}…"
            fact = f"{option}: {shown!r} can't be a name"
            raise ConfigError(fact, "use letters, digits, _ and -")
    try:
        pipeline = dlt.pipeline(name, destination=destination, dataset_name=dataset)
        check_credentials(
            pipeline.sql_client().credentials, _credentials_of(destination)
        )
    except InvalidPipelineName as exc:
        fact = f"--pipeline: {name!r} can't be a name"
        raise ConfigError(fact, "use letters, digits, _ and -") from exc
    except OSError as exc:
        fact = f"dlt's working folder can't be used ({first_line(exc)})"
        raise ConfigError(fact, "correct it, or name another PIPELINES_DIR") from exc
    except NotInstalled as exc:
        fact = f"the destination {destination!r} is not installed"
        raise ConfigError(fact, installing(destination)) from exc
    except (ConfigurationException, DestinationException, ImportError) as exc:
        what = f"the destination {destination!r} can't be opened"
        name = _credentials_of(destination)
        remedy = f"correct --destination or set {name}"
        raise refuse_credentials(exc, what, name, remedy) from None
    return pipeline


def _is_name(text: str) -> bool:
    """Tell whether a text may name a folder, and a schema."""
    return (
        bool(text.strip())
        and len(text.encode(errors="replace")) < LONGEST_NAME
        and text.isprintable()
        and not set(text) & set("/\\")
    )


def use_own_staging(pipeline: dlt.Pipeline) -> None:
    """Let workers of one dataset stage their rows each in a schema of its own."""
    config = pipeline.destination_client().config
    if getattr(config, STAGING_LAYOUT, None) == SHARED_STAGING:
        layout = f"{SHARED_STAGING}_{pipeline.pipeline_name}"
        pipeline.destination.config_params[STAGING_LAYOUT] = layout


def check_destination(pipeline: dlt.Pipeline) -> None:
    """Refuse destinations that would lose or double rows, or fail half way.

    Raises:
        DestinationError: With the remedy.
    """
    capabilities = pipeline.destination.capabilities()
    if "delete-insert" not in (capabilities.supported_merge_strategies or ()):
        fact = f"{pipeline.destination.destination_name} can't delete rows in a merge"
        text = f"{fact}, so that callbacks a later answer lacks would stay"
        raise DestinationError(text, "load into duckdb or an SQL warehouse")
    client = pipeline.sql_client()
    destination = pipeline.destination.destination_name
    check_credentials(client.credentials, _credentials_of(destination))
    path = duckdb_file(client)
    if path and _duckdb_name(path).lower() == client.dataset_name.lower():
        name = f"the dataset {pipeline.dataset_name!r}"
        fact = f"{name} has the same name as its DuckDB file"
        raise ConfigError(fact, "choose another --dataset or another file")
    if path and not Path(path).parent.is_dir():
        fact = f"there is no folder {str(Path(path).parent)!r} for the DuckDB file"
        raise ConfigError(fact, "make it or set DESTINATION__DUCKDB__CREDENTIALS")


def check_grants(pipeline: dlt.Pipeline) -> None:
    """Refuse a PostgreSQL user who may not make what a load needs.

    Raises:
        DestinationError: With the grant that is missing.
    """
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
        denied = client.execute_sql(
            "SELECT nspname, current_user FROM pg_namespace"
            " LEFT JOIN pg_class ON relnamespace = pg_namespace.oid AND relkind = 'r'"
            " WHERE nspname IN %s AND NOT (has_schema_privilege(nspname, 'USAGE')"
            " AND coalesce(has_table_privilege(pg_class.oid, 'SELECT')"
            " AND has_table_privilege(pg_class.oid, 'INSERT')"
            " AND has_table_privilege(pg_class.oid, 'DELETE'), true))"
            " ORDER BY nspname LIMIT 1",
            schemas,
        )
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


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Turn dlt's errors into ours.

    Raises:
        EsmsError: The one that dlt had wrapped, or what dlt's own amounts to.
        KeyboardInterrupt: dlt had wrapped it.
    """
    try:
        yield
    except PipelineStepFailed as exc:
        for link in causes(exc):
            if isinstance(link, (EsmsError, KeyboardInterrupt)):
                raise link from link.__cause__
        raise _unwrap(exc) from exc
    except (ConfigurationException, ImportError) as exc:
        what, name = "the destination can't be opened", "its credentials"
        raise refuse_credentials(exc, what, name, "") from None
    except (DestinationException, DatabaseException) as exc:
        remedy = "check its name, credentials and grants"
        what = "the destination can't be used"
        raise explain(exc, what, remedy) from cause_of(exc)
    except (duckdb.Error, OSError) as exc:
        remedy = "check the room on the disks and the columns of ref_ids"
        raise explain(exc, "planning or loading failed", remedy) from exc


def _duckdb_name(path: str) -> str:
    """Return what DuckDB calls the database in a file."""
    return Path(path).name.lstrip(".").partition(".")[0]


def _credentials_of(destination: str) -> str:
    return f"DESTINATION__{destination.upper()}__CREDENTIALS"


@contextmanager
def on_postgres(pipeline: dlt.Pipeline) -> Iterator[SqlClientBase[Any] | None]:
    """Connect to the destination where it is a PostgreSQL, else yield None.

    Raises:
        DestinationError: The server can't be reached; the next run loads.
    """
    if pipeline.destination.capabilities().sqlglot_dialect != "postgres":
        yield None
        return
    client = pipeline.sql_client()
    driver_error: type[Exception] = getattr(client.dbapi, "Error")  # noqa: B009
    try:
        with client:
            yield client
    except (driver_error, DatabaseException) as exc:
        remedy = "what was answered is kept and the next run loads it"
        what = "the destination can't be reached"
        raise explain(exc, what, remedy) from cause_of(exc)


def innermost(exc: BaseException) -> str:
    """Return the first line of the error that an error was raised from."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return first_line(exc)


def _unwrap(exc: PipelineStepFailed) -> EsmsError:
    # dlt drops what an extract that fails has read, and keeps a load.
    outcome = "is due again" if exc.step == "extract" else "is loaded by the next run"
    fact = f"the {exc.step} step failed"
    if is_locked(exc):
        return explain(exc, fact, "")
    return DestinationError(f"{fact}: {innermost(exc)}", f"what was asked {outcome}")
