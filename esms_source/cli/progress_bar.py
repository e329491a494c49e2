"""Progress of a run on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from esms_source.cli.stderr import is_json, is_quiet, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from esms_source.runtime import Progress, Stop

BAR_SECONDS: Final = 0.2
LINE_SECONDS: Final = 5.0


@contextmanager
def progress_bar(progress: Progress, stop: Stop) -> Iterator[None]:
    """Show on stderr how a run goes on, until the block ends; not with --quiet."""
    if is_quiet():
        yield
        return
    console = Console(stderr=True)
    ended = threading.Event()
    draws = console.is_terminal and not is_json()
    show = partial(_bar, console) if draws else _lines
    thread = threading.Thread(target=show, args=(progress, stop, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bar(
    console: Console, progress: Progress, stop: Stop, ended: threading.Event
) -> None:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(
            "{task.fields[rate]:.1f} requests/s, {task.fields[flying]} in flight",
            markup=False,
        ),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(progress.stage, total=None, rate=0.0, flying=0)
        sent = _Rate(progress)
        while not ended.wait(BAR_SECONDS):
            bar.update(
                task,
                description=_doing(progress, stop),
                total=progress.total or None,
                completed=progress.asked,
                rate=sent.per_second(),
                flying=progress.in_flight,
            )


def _doing(progress: Progress, stop: Stop) -> str:
    """Say what a run is at, and that it is about to end where it was told to."""
    doing = progress.stage
    if progress.waits_for:
        doing = f"waiting: {progress.waits_for}"
    return f"stopping … ({doing})" if stop else doing


def _lines(progress: Progress, stop: Stop, ended: threading.Event) -> None:
    sent = _Rate(progress)
    waited, was_stopping = 0.0, False
    while not ended.wait(BAR_SECONDS):
        waited += BAR_SECONDS
        # That it is about to stop is said at once.
        if waited < LINE_SECONDS and was_stopping == bool(stop):
            continue
        waited, was_stopping = 0.0, bool(stop)
        rate = sent.per_second()
        line = _line(progress, stop, sent, rate)
        say(line, logging.INFO, **_figures(progress, rate))


def _figures(progress: Progress, rate: float) -> dict[str, object]:
    """Return what a program wants to know of a line, by name."""
    names = ("stage", "asked", "total", "in_flight", "waits_for")
    return {name: getattr(progress, name) for name in names} | {"rate": round(rate, 1)}


def _line(progress: Progress, stop: Stop, sent: _Rate, rate: float) -> str:
    if stop or progress.waits_for or progress.stage != "asking":
        return _doing(progress, stop)
    return (
        f"asked {progress.asked} of {progress.total} RefIds, {rate:.1f} requests/s,"
        f" {progress.in_flight} in flight, {_eta(progress, sent.started)}"
    )


def _eta(progress: Progress, started: float) -> str:
    left = progress.total - progress.asked
    if not progress.asked or left <= 0:
        return "time left unknown" if left > 0 else "done"
    seconds = left * (time.monotonic() - started) / progress.asked
    return f"about {seconds:.0f} s left"


class _Rate:
    """Attempts a second since the last look."""

    def __init__(self, progress: Progress) -> None:
        self.started = time.monotonic()
        self._progress = progress
        self._seen, self._at = progress.sent, self.started

    def per_second(self) -> float:
        now = time.monotonic()
        sent = self._progress.sent
        rate = (sent - self._seen) / max(now - self._at, 1e-9)
        self._seen, self._at = sent, now
        return rate
