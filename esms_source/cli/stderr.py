"""What goes to stderr: text for people, or one JSON object a line for programs."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import datetime, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import click

from esms_source.cli.printable import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

TEXT: Final = "text"
JSON: Final = "json"
LOG_FORMATS: Final = (TEXT, JSON)

BY: Final = "esms: "
"""What a message for people begins with where it is about the command as a whole."""

_said = logging.getLogger("esms_source.cli")


class _Talk:
    """How much is said beside results, and in which form.

    Attributes:
        quiet: Whether no progress is shown.
        log_format: One of ``LOG_FORMATS``.
    """

    quiet = False
    log_format = TEXT


def talk(*, verbose: bool, quiet: bool, log_format: str) -> None:
    """Say how much is said beside results, and in which form."""
    _Talk.quiet, _Talk.log_format = quiet, log_format
    logger = logging.getLogger("esms_source")
    if verbose:
        logger.setLevel(logging.INFO)
    if log_format == JSON:
        _log_as_json()
    elif verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)


def format_named_in(args: Sequence[str]) -> str:
    """Read the form from arguments that are refused before any of them counts.

    Examples:
        >>> format_named_in(["--log-format", "json", "--nonsense"])
        'json'
        >>> format_named_in(["--nonsense"])
        'text'
    """
    words = " ".join(args).replace("=", " ").split()
    return JSON if ("--log-format", JSON) in pairwise(words) else TEXT


def is_quiet() -> bool:
    """Tell whether no progress is to be shown."""
    return _Talk.quiet


def is_json() -> bool:
    """Tell whether programs read stderr."""
    return _Talk.log_format == JSON


def say(text: object, level: int = logging.WARNING, **figures: object) -> None:
    """Say something beside results; a program also gets the figures in it."""
    if is_json():
        said = str(text).removeprefix(BY)
        _said.log(level, "%s", said, extra={"figures": figures})
    else:
        click.echo(printable(str(text)), err=True)


class _JsonLines(logging.Handler):
    """Write each record as one JSON object on a line of its own.

    It heeds no formatter: dlt sets one on the handler of its logger.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        try:
            click.echo(self.format(record), err=True)
        except OSError:  # nobody reads any more, which is no reason to end a run
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, in ASCII: no text in it can end the line."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "figures", {}),
        }
        if record.exc_info:
            line["exception"] = logging.Formatter().formatException(record.exc_info)
        return printable_json(line)


def _log_as_json() -> None:
    """Let nothing of this process write to stderr in another form."""
    handler = _JsonLines()
    logging.getLogger().addHandler(handler)
    # dlt's logger tells no other; it takes the handler that it finds there.
    logging.getLogger("dlt").handlers = [handler]
    _said.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda of: _log_uncaught(
        of.exc_type, of.exc_value or of.exc_type(), of.exc_traceback
    )


def _log_uncaught(
    kind: type[BaseException], exc: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger("esms_source").critical(
        "%s: %s", kind.__name__, exc, exc_info=(kind, exc, trace)
    )
