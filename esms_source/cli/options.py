"""Options that several commands share."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_PIPELINE_OPTIONS = (
    click.option("--destination", default="duckdb", help="dlt's name for it."),
    click.option("--dataset", default="zalo", help="Dataset to load into."),
    click.option("--pipeline", default="esms", help="dlt's name of the pipeline."),
)


def pipeline_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take destination, dataset and pipeline."""
    for option in reversed(_PIPELINE_OPTIONS):
        command = option(command)
    return command


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

REF_IDS = click.option(
    "--ref-ids",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Only the RefIds of this file: CSV with a header, or one a line.",
)
REPOLL = click.option(
    "--repoll",
    metavar="STATE[,STATE]",
    help="Ask RefIds in these states again, settled or not, and no others.",
)
SINCE = moment_option("--since", help="With --repoll: sent from then on (UTC).")
UNTIL = moment_option("--until", help="With --repoll: sent before then (UTC).")
COMPARE_ALL = click.option(
    "--all",
    "compare_all",
    is_flag=True,
    help="Compare the whole warehouse table with the ledger, not only what is within"
    " lag.",
)


def utc(moment: datetime | None) -> datetime | None:
    """Return what a moment option gives as a time in UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment else None
