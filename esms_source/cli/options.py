"""Options that several commands share."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.planning.ref_id_file import RefIdFile

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


class _Moment(click.ParamType[Any]):
    """A date, or a time with its offset from UTC."""

    name = "date or time"

    def convert(
        self,
        value: Any,  # noqa: ANN401  click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> date:
        """Read ISO 8601; a date begins at midnight in the setting ``timezone``."""
        if isinstance(value, date):
            return value
        with suppress(ValueError):
            return date.fromisoformat(value)
        try:
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            fact = (
                f"{value!r} is no date such as 2026-11-01, and no time with an offset"
            )
            self.fail(f"{fact} such as 2026-11-01T09:00:00+07:00", param, ctx)
        return moment


_CHOICE_OPTIONS = (
    click.option(
        "--max-ref-ids",
        metavar="N",
        type=click.IntRange(0),
        help="Ask at most so many, oldest first.",
    ),
    click.option(
        "--oa-id", "oa_ids", multiple=True, help="Only this OA; may be given again."
    ),
    click.option(
        "--ref-ids",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Only the RefIds of this file: CSV with a header, or one a line.",
    ),
    click.option(
        "--repoll",
        metavar="STATE[,STATE]",
        help="Ask RefIds in these states again, settled or not, and no others.",
    ),
    click.option(
        "--since",
        metavar="DATE|TIME",
        type=_Moment(),
        help="With --repoll: sent from then on; a date is midnight in timezone.",
    ),
    click.option(
        "--until",
        metavar="DATE|TIME",
        type=_Moment(),
        help="With --repoll: sent before then.",
    ),
    click.option(
        "--all",
        "compare_all",
        is_flag=True,
        help="Compare the whole warehouse table, not only what is within lag.",
    ),
)


def choice_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take what a run is limited to, as ``choice``: see ``sync``."""

    @wraps(command)
    def with_choice(
        ref_ids: Path | None,
        repoll: str | None,
        oa_ids: tuple[str, ...],
        since: date | None,
        until: date | None,
        max_ref_ids: int | None,
        *,
        compare_all: bool,
        **options: Any,  # noqa: ANN401  click's
    ) -> None:
        choice = {
            "ref_ids": ref_ids and read_ref_id_file(ref_ids),
            "oa_ids": oa_ids,
            "repoll": () if repoll is None else repoll.split(","),
            "since": since,
            "until": until,
            "max_ref_ids": max_ref_ids,
            "compare_all": compare_all,
        }
        command(choice=choice, **options)

    taking: Callable[..., None] = with_choice
    for option in reversed(_CHOICE_OPTIONS):
        taking = option(taking)
    return taking


def read_ref_id_file(path: Path) -> RefIdFile:
    """Return the RefIds of a file, by the column that the settings name."""
    from esms_source.config import resolve_settings  # noqa: PLC0415  as above
    from esms_source.planning.ref_id_file import RefIdFile  # noqa: PLC0415

    return RefIdFile(path, resolve_settings().ref_ids.ref_id_column)
