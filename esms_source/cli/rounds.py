"""A run, or one after another: shown, printed, and what follows from its errors."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from esms_source.cli.output import print_report
from esms_source.cli.progress_bar import progress_bar
from esms_source.cli.stderr import BY, say
from esms_source.exceptions import ConfigError, CredentialsError, EsmsError, OutageError
from esms_source.run import sync
from esms_source.runtime import Progress

if TYPE_CHECKING:
    import dlt

    from esms_source.outcome import Report
    from esms_source.runtime import Stop


TOUCH_SECONDS: Final = 60
"""How often dlt's working folder is touched between rounds, for probes to see."""


def run_once(
    pipeline: dlt.Pipeline, choice: dict[str, Any], stop: Stop, *, as_json: bool
) -> Report:
    """Run, show how it goes on, and print the report, also of a run that failed.

    Raises:
        EsmsError: The run ended early.
    """
    progress = Progress()
    with progress_bar(progress, stop):
        try:
            report = sync(pipeline, progress=progress, stop=stop, **choice)
        except EsmsError as exc:
            if exc.report:
                print_report(exc.report, as_json=as_json)
            raise
    print_report(report, as_json=as_json)
    return report


def run_rounds(
    pipeline: dlt.Pipeline,
    choice: dict[str, Any],
    stop: Stop,
    every: float,
    *,
    as_json: bool,
) -> None:
    """Run again and again until a signal ends it in order.

    A round that fails is said and the next one tries; nothing is held between rounds.

    Args:
        pipeline: Where to load to.
        choice: What each round is limited to.
        stop: Ends the rounds.
        every: Seconds from the beginning of one round to that of the next.
        as_json: Whether reports are JSON.

    Raises:
        EsmsError: The key is refused, or a setting is wrong: no round can do better.
    """
    while not stop:
        began, least = stop.monotonic(), 0.0
        try:
            run_once(pipeline, choice, stop.part(), as_json=as_json)
        except (ConfigError, CredentialsError):
            raise
        except EsmsError as exc:
            if stop:
                break
            say(f"{BY}{exc}", logging.ERROR)
            if isinstance(exc, OutageError):
                least = exc.retry_after
        _rest(pipeline, stop, max(began + every - stop.monotonic(), least))
    say(f"{BY}{stop.reason}", logging.INFO)


def _rest(pipeline: dlt.Pipeline, stop: Stop, seconds: float) -> None:
    """Wait for the next round, and let the working folder's time say so."""
    until = stop.monotonic() + seconds
    while (left := until - stop.monotonic()) > 0:
        if stop.wait(min(left, TOUCH_SECONDS)):
            break
        with suppress(OSError):  # whoever removed it: the next round makes it anew
            os.utime(pipeline.working_dir)
