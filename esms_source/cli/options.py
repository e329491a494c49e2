"""Options that several commands share."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_PIPELINE_OPTIONS = (
    click.option("--destination", default="duckdb", help="dlt's name for it."),
    click.option("--dataset", default="zalo", help="Dataset to load into."),
    click.option("--pipeline", default="esms", help="dlt's name of the pipeline."),
)


def pipeline_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take destination, dataset and pipeline, and read its settings."""

    @wraps(command)
    def of_pipeline(pipeline: str, **options: Any) -> None:  # noqa: ANN401  click's
        # dlt takes half a second to import: help does without.
        from esms_source.config.providers import settings_of  # noqa: PLC0415

        with settings_of(pipeline):
            command(pipeline=pipeline, **options)

    taking: Callable[..., None] = of_pipeline
    for option in reversed(_PIPELINE_OPTIONS):
        taking = option(taking)
    return taking


AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
OA_IDS = click.option(
    "--oa-id", "oa_ids", multiple=True, help="Only this OA; may be given again."
)
MAX_REF_IDS = click.option(
    "--max-ref-ids",
    metavar="N",
    type=click.IntRange(0),
    help="Ask at most so many, oldest first.",
)
moment_option = partial(
    click.option,
    metavar="DATE[ TIME]",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]),
)


def utc(moment: datetime | None) -> datetime | None:
    """Return what a moment option gives as a time in UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment else None
