"""dlt's pipeline to the destination: opened and checked."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dlt
import duckdb
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.utils import get_resolved_traces
from dlt.common.destination.configuration import ParquetFormatConfiguration
from dlt.common.destination.exceptions import DestinationException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseException
from dlt.pipeline.exceptions import InvalidPipelineName, PipelineStepFailed

from esms_source.config.credentials import (
    ALCHEMY_DRIVERS,
    check_credentials,
    refuse_credentials,
)
from esms_source.databases import (
    NotInstalled,
    bound_lock_waits,
    cause_of,
    duckdb_file,
    explain,
    installing,
    is_locked,
)
from esms_source.databases.alchemy import alchemy_errors, driver_errors, is_alchemy
from esms_source.exceptions import ConfigError, DestinationError, EsmsError, causes
from esms_source.load.ducklake import DUCKLAKE, install_extensions
from esms_source.redaction import first_line
from esms_source.runtime import keep_private
from esms_source.tables import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlt.destinations.sql_client import SqlClientBase


OWN_FOLDER: Final = "esms_sync"

POSTGRES: Final = "postgres"

TRANSACTIONS: Final = "supports_transactions"
WHOLE_BY_TRANSACTION: Final = ("duckdb", "postgres")
"""Dialects for which dlt 1.31 leaves open whether a merge is one transaction.

Without one, DuckDB keeps the merge's DELETE when its INSERT is refused.
"""

STAGING_LAYOUT: Final = "staging_dataset_name_layout"
SHARED_STAGING: Final = "%s_staging"
"""dlt's default; all pipelines of a dataset would empty and fill the same tables."""


LONGEST_NAME: Final = 200
"""Bytes; a file's name holds 255, and dlt and the lock add to it."""


def open_pipeline(destination: str, dataset: str, name: str) -> dlt.Pipeline:
    """Return the pipeline of a destination, known by dlt's name for it.

    Unless PIPELINES_DIR names one, it has a folder for this project, destination and
    dataset: dlt's own would be shared by all projects of the user.

    Raises:
        ConfigError: dlt doesn't know the destination, an extra is missing, a name
            can't be one, or dlt's working folder can't be used.
    """
    for option, text in (("--pipeline", name), ("--dataset", dataset)):
        if not _is_name(text):
            shown = text if len(text) < LONGEST_NAME else f"{text[:20]}…"
            fact = f"{option}: {shown!r} can't be a name"
            raise ConfigError(fact, "use letters, digits, _ and -")
    if destination == DUCKLAKE:
        install_extensions()
    try:
        where = _folder_of(destination, dataset)
        pipeline: dlt.Pipeline = dlt.pipeline(
            name, destination=destination, dataset_name=dataset, **where
        )
        check_credentials(
            pipeline.sql_client().credentials, credentials_of(destination)
        )
    except InvalidPipelineName as exc:
        fact = f"--pipeline: {name!r} can't be a name"
        raise ConfigError(fact, "use letters, digits, _ and -") from exc
    except OSError as exc:
        fact = f"dlt's working folder can't be used ({first_line(exc)})"
        raise ConfigError(fact, "correct it, or name another PIPELINES_DIR") from exc
    except (*NotInstalled, *alchemy_errors()) as exc:  # type: ignore[misc]
        fact = f"the destination {destination!r} is not installed"
        if destination.endswith("sqlalchemy"):  # what it says quotes the URL
            fact = f"{credentials_of(destination)}: its driver isn't there"
            raise ConfigError(fact, ALCHEMY_DRIVERS) from None
        raise ConfigError(fact, installing(destination)) from exc
    except (ConfigurationException, DestinationException, ImportError) as exc:
        what = f"the destination {destination!r} can't be opened"
        name = credentials_of(destination)
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


def _folder_of(destination: str, dataset: str) -> dict[str, Any]:
    """Name dlt's folder for this project, destination and dataset, if nobody has."""
    if dlt.config.get("pipelines_dir") is not None:
        return {}
    target = dlt.dataset(destination, dataset, Schema(SCHEMA))
    project, identity = _project(), _identity(target.destination_client)
    name = f"{project.name or 'root'}-{digest(str(project), identity, dataset)}"
    return {"pipelines_dir": str(Path(get_dlt_pipelines_dir(), name))}


def _project() -> Path:
    """Return the folder from which dlt counts relative paths."""
    return Path(dlt.current.run_context().run_dir).resolve()


@contextmanager
def own_pipeline(pipeline: dlt.Pipeline) -> Iterator[dlt.Pipeline]:
    """Yield a pipeline to the same dataset that shares no load packages with plain dlt.

    Plain dlt resumes what a killed load had begun, and loads what is pending into
    whatever destination it is given next. So ours has a folder of its own, one for each
    project, as dlt counts relative paths from where a folder was made; and a staging of
    its own. Afterwards the user's pipeline is active again.
    """
    if pipeline.destination.destination_name == DUCKLAKE:
        install_extensions()
    folder = Path(pipeline.pipelines_dir, OWN_FOLDER, digest(str(_project())))
    destination = copy(pipeline.destination)
    destination.config_params = dict(pipeline.destination.config_params)
    destination.caps_params = dict(pipeline.destination.caps_params)
    known = _resolve_once(destination)
    own = dlt.pipeline(
        pipeline.pipeline_name,
        pipelines_dir=str(folder),
        destination=destination,
        staging=pipeline.staging,
        dataset_name=pipeline.dataset_name,
        progress=pipeline.collector,
    )
    try:
        keep_private(Path(own.working_dir))
        _set_up(own)
        known.clear()  # what it has set up counts from now on
        _make_clients_once(own)
        yield own
    finally:
        pipeline.activate()
        # dlt 1.31 keeps what it looked up until something is loaded: 0.7 MB a run with
        # nothing due.
        get_resolved_traces().clear()


def _resolve_once(destination: Any) -> dict[Any, Any]:  # noqa: ANN401  of any kind
    """Let a destination resolve each configuration once: dlt 1.31 asks dozens of times.

    That was half of the processor's time of a small run. The threads of dlt's loader
    share a configuration, too.
    """
    resolve = destination.configuration
    known: dict[Any, Any] = {}

    def configuration(initial_config: Any, accept_partial: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002  dlt's signature
        key = type(initial_config), repr(dict(initial_config or {})), accept_partial
        if key not in known:
            known[key] = resolve(initial_config, accept_partial)
        return known[key]

    destination.configuration = configuration
    return known


def _make_clients_once(own: dlt.Pipeline) -> None:
    """Let a pipeline make its SQL client once: dlt 1.31 reads all schemas for each.

    Whoever asks for one gets another of the same, without a connection. With the file
    opened less often that saves a fifth of a run with nothing due.
    """
    made: Any = own.sql_client()
    # Others hold more than names and credentials.
    if duckdb_file(made) is not None or is_postgres(made):
        kind: Any = type(made)
        vars(own)["sql_client"] = partial(
            kind,
            made.dataset_name,
            made.staging_dataset_name,
            made.credentials,
            made.capabilities,
        )


def _set_up(own: dlt.Pipeline) -> None:
    """Let tables change wholly, workers stage apart, and no lock be waited for long."""
    # One client for all: dlt resolves a configuration for each.
    client: Any = own.destination_client()
    config, capabilities = client.config, client.capabilities
    parameters = own.destination.config_params
    if duckdb_file(client.sql_client) is not None:
        # They live for seconds on this disk; packed they took 0.9 CPU s a million more.
        unpacked = ParquetFormatConfiguration(compression="none")
        own.destination.caps_params["parquet_format"] = unpacked
    if getattr(config, STAGING_LAYOUT, None) == SHARED_STAGING:
        parameters[STAGING_LAYOUT] = f"{SHARED_STAGING}_{own.pipeline_name}"
    if capabilities.sqlglot_dialect in WHOLE_BY_TRANSACTION:
        own.destination.caps_params[TRANSACTIONS] = True
    if is_alchemy(client.sql_client):
        from esms_source.load.alchemy_types import set_up  # noqa: PLC0415  an extra

        set_up(own.destination, config, client.sql_client)
    if capabilities.sqlglot_dialect == POSTGRES:
        parameters["credentials"] = config.credentials
        bound_lock_waits(config.credentials)


def can_skip_dedup(pipeline: dlt.Pipeline) -> bool:
    """Tell whether no row can come to staging twice, so that dlt needn't look.

    In a DuckDB file only a kill leaves open whether rows came, and what it had begun
    is dropped; a connection to a server may break at any time.
    """
    client = pipeline.sql_client()
    # Through SQLAlchemy each staging table has a unique index.
    return duckdb_file(client) is not None or is_alchemy(client)


def identity_of(pipeline: dlt.Pipeline) -> str:
    """Return what tells a pipeline's dataset from all others; it holds no secret."""
    return digest(_identity(pipeline.destination_client()), pipeline.dataset_name)


def _identity(client: Any) -> str:  # noqa: ANN401  dlt's client of any destination
    config = client.config
    where = [
        str(getattr(config.credentials, name, None) or "")
        for name in ("host", "port", "database", "catalog", "project_id")
    ]
    return "\n".join([config.destination_type, config.fingerprint(), *where])


def digest(*texts: str) -> str:
    """Return a short name that stands for some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def is_postgres(client: SqlClientBase[Any]) -> bool:
    """Tell whether a database understands what only PostgreSQL does."""
    return client.capabilities.sqlglot_dialect == POSTGRES


@contextmanager
def reaching(client: SqlClientBase[Any]) -> Iterator[None]:
    """Turn errors of a server's driver, which dlt leaves as they are, into ours.

    Raises:
        DestinationError: The server can't be reached; the next run loads.
    """
    try:
        yield
    except (*driver_errors(client), DatabaseException) as exc:  # type: ignore[misc]
        remedy = "what was answered is kept and the next run loads it"
        what = "the destination can't be reached"
        raise explain(exc, what, remedy) from cause_of(exc)


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
    except (DestinationException, DatabaseException, *alchemy_errors()) as exc:  # type: ignore[misc]
        remedy = "check its name, credentials and grants"
        what = "the destination can't be used"
        raise explain(exc, what, remedy) from cause_of(exc)
    except (duckdb.Error, OSError) as exc:
        remedy = "check the room on the disks and the columns of ref_ids"
        raise explain(exc, "planning or loading failed", remedy) from exc


def credentials_of(destination: str) -> str:
    """Return the setting that holds a destination's credentials."""
    name = destination.rpartition(".")[2].upper()
    what = "BUCKET_URL" if name == "FILESYSTEM" else "CREDENTIALS"
    return f"DESTINATION__{name}__{what}"


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
