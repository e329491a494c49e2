"""A change of what is loaded, by hand: no run is under way meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from esms_source.load.alchemy import make_datasets
from esms_source.load.checks import check_destination, check_grants
from esms_source.load.destination import own_pipeline, reporting_errors
from esms_source.load.locks import pipeline_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dlt

    from esms_source.config import Settings


@contextmanager
def editing(pipeline: dlt.Pipeline, settings: Settings) -> Iterator[dlt.Pipeline]:
    """Yield our own pipeline to the same dataset, once it may be written to.

    Raises:
        ConfigError: The settings don't fit how it is kept.
        PipelineBusyError: A run is under way.
        DestinationError: It can't be reached, or a grant is missing.
    """
    with pipeline_lock(pipeline), reporting_errors(), own_pipeline(pipeline) as own:
        check_destination(own, settings)
        check_grants(own)
        make_datasets(own)
        yield own
