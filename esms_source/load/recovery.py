"""What an earlier run left behind: what has begun and not ended is undone."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from dlt.destinations.exceptions import DatabaseUndefinedRelation

from esms_source.databases import execute
from esms_source.exceptions import ConfigError
from esms_source.keeping import reading
from esms_source.load.destination import identity_of
from esms_source.load.packages import drop, has_begun, pending_packages
from esms_source.sql import moment_literal
from esms_source.tables import LOADS, SCHEMA

if TYPE_CHECKING:
    import dlt

    from esms_source.load.loader import Loader

DESTINATION: Final = "esms_destination"
"""Under which name a pipeline remembers what its packages are for."""


def recover(pipeline: dlt.Pipeline, loader: Loader) -> None:
    """Load what is pending and whole; drop what began to write, or came too late.

    What is dropped costs nothing but asking again: its RefIds are due.

    Raises:
        ConfigError: What is pending is for another destination.
        DestinationError: The destination can't be read, or refuses.
    """
    identity = identity_of(pipeline)
    packages = list(pending_packages(pipeline))
    if packages:
        known = _remembered(pipeline)
        if known not in (None, identity):
            raise _for_another_destination(pipeline)
        load_ids = [package.load_id for package in packages]
        # A run may be killed just when dlt moves a package to its next folder.
        half_moved = len(set(load_ids)) < len(load_ids)
        must_go = known is None or half_moved or _is_overtaken(pipeline, min(load_ids))
        for package in packages:
            if package.schema_name == SCHEMA and (must_go or has_begun(package)):
                drop(package)
        if pipeline.has_pending_data:
            loader.load()
        # Where dlt lost its own state it would consume nothing, again and again.
        for package in pending_packages(pipeline):
            drop(package)
    pipeline.set_local_state_val(DESTINATION, identity)


def remember_destination(pipeline: dlt.Pipeline) -> None:
    """Let a later run know what the packages of this one are for."""
    pipeline.set_local_state_val(DESTINATION, identity_of(pipeline))


def _remembered(pipeline: dlt.Pipeline) -> str | None:
    try:
        known: str = pipeline.get_local_state_val(DESTINATION)
    except KeyError:
        return None
    return known


def _for_another_destination(pipeline: dlt.Pipeline) -> ConfigError:
    name, folder = pipeline.pipeline_name, pipeline.pipelines_dir
    fact = (
        f"the pipeline {name!r} in {folder} has loads pending for another destination"
    )
    remedy = (
        "run once for that one, or drop them:"
        f" dlt pipeline --pipelines-dir {folder} {name} drop-pending-packages"
    )
    return ConfigError(fact, remedy)


def _is_overtaken(pipeline: dlt.Pipeline, oldest: str) -> bool:
    """Tell whether any load completed since the oldest pending one was begun."""
    # dlt makes load ids of the time.
    begun_at = datetime.fromtimestamp(float(oldest), timezone.utc)
    try:
        with reading(pipeline) as client:
            loads = client.make_qualified_table_name(LOADS)
            rows = execute(
                client,
                f"SELECT count(*) FROM {loads} WHERE schema_name = '{SCHEMA}'"
                f" AND inserted_at >= {moment_literal(begun_at)}",
            )
    except DatabaseUndefinedRelation:
        return False
    return bool(rows and rows[0][0])
