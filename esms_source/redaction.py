"""What no log line may hold: masked, wherever an error quotes data."""

from __future__ import annotations

import logging
import re
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_QUOTED: Final = re.compile(r"""(?<!\w)(["'])(?=[^"'/]*\d)[^"'/]*\1""")
_ID_LIKE: Final = re.compile(r"\b(?=(?:[\w-]*\d){6})([\w-]{3})[\w-]+")
_TRACEBACK: Final = "Traceback (most recent call last)"


_URL: Final = re.compile(r"""(?!https?://[^\s@]*(?:\s|$))(\b[\w+.-]+://)[^\s"'…]+""")
_ANY_QUOTED: Final = re.compile(r"""(["'`])[^"'`]*\1?""")
_ADDRESS: Final = re.compile(r" \([\da-fA-F.:]+\)")


def hide_names(text: str) -> str:
    """Cut out what an error of connecting quotes: host, user, parts of a password.

    Examples:
        >>> hide_names('could not translate host name "ss@host" to address: unknown')
        'could not translate host name "…" to address: unknown'
        >>> hide_names('server at "localhost" (127.0.0.1), port 5432 failed: refused')
        'server at "…", port 5432 failed: refused'
    """
    return _ADDRESS.sub("", _ANY_QUOTED.sub(r"\1…\1", text))


def mask(text: str) -> str:
    """Cut short what may be a phone number, a RefId or a URL.

    Examples:
        >>> mask('invalid date "0909090909" in column phone_number')
        'invalid date "…" in column phone_number'
        >>> mask("Key (ref_id)=(4a496110-9fd3-4838-ac8b-bcaa36616f7011) already exists")
        'Key (ref_id)=(4a4…) already exists'
        >>> mask("can't open postgresql://me:secret@host/db")
        "can't open postgresql://…"
    """
    text = _URL.sub(r"\1…", text)
    return _ID_LIKE.sub(r"\1…", _QUOTED.sub(r"\1…\1", text))


def first_line(exc: BaseException) -> str:
    r"""Return the first line of an error's text, masked, or its kind.

    Examples:
        >>> first_line(ValueError("bad value;\nsee below"))
        'bad value'
        >>> first_line(ValueError("Traceback (most recent call last):\n File\nE: no"))
        'E: no'
    """
    lines = str(exc)[:MOST_SAID].strip().splitlines()
    if lines and _TRACEBACK in lines[0]:  # DuckDB quotes those of file systems
        lines = _last_error("\n".join(lines))
    return mask(lines[0].rstrip(".;:")) if lines else type(exc).__name__


MOST_SAID: Final = 10_000
"""Characters of an error's text that are read: masking takes its time."""

MOST_LOADS: Final = 1_000
"""Loads of this process whose log lines are masked, the latest ones."""


def mask_load(load_id: str) -> None:
    """Mask what dlt logs from now on about a load; all other lines stay as they are.

    Plain dlt tells nobody when a load has ended.
    """
    _of_our_loads.load_ids.append(load_id)
    logging.getLogger("dlt").addFilter(_of_our_loads)


@contextmanager
def masked_log() -> Iterator[None]:
    """Mask all errors that dlt logs until the block ends."""
    everything = MaskedErrors([""])
    logging.getLogger("dlt").addFilter(everything)
    try:
        yield
    finally:
        logging.getLogger("dlt").removeFilter(everything)


class MaskedErrors(logging.Filter):
    """Make one masked line of a record that holds an error of the destination.

    Databases quote the value that they couldn't take, and dlt logs it all.

    Attributes:
        load_ids: dlt's ids of the loads that are meant; its log names them.
    """

    def __init__(self, load_ids: Iterable[str] = ()) -> None:
        super().__init__()
        self.load_ids = deque(load_ids, maxlen=MOST_LOADS)

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place."""
        text = record.getMessage()
        if not any(load_id in text for load_id in self.load_ids):
            return True
        error = record.exc_info[1] if record.exc_info else None
        if error is None and _TRACEBACK not in text:
            return True
        text, _, trace = text.partition(_TRACEBACK)
        lines = str(error or "").strip().splitlines() or _last_error(trace)
        record.msg = f"{text.strip()}: {mask(lines[0])}"
        record.args, record.exc_info, record.exc_text = (), None, None
        return True


_of_our_loads = MaskedErrors()


def _last_error(trace: str) -> list[str]:
    """Return the line of a traceback that says what went wrong."""
    said = [line for line in trace.splitlines() if re.match(r"[\w.]+: ", line)]
    return said[-1:] or ["see dlt's trace"]
