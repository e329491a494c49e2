"""Texts that every database takes: no NUL, and no half of a surrogate pair."""

from __future__ import annotations

import re
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Lists and objects in one another that are read; none is known to hold above four."""

MAY_BE_UNSTORABLE: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""The escapes in JSON of ASCII or UTF-8 that may become what no database takes."""


def storable_text(text: str) -> str:
    r"""Write what can't be stored as escapes.

    Examples:
        >>> storable_text("half an emoji: \ud83d")
        'half an emoji: \\ud83d'
    """
    text = text.replace("\0", "\\u0000")
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode()


def storable(value: Any, depth: int = MAX_DEPTH) -> Any:  # noqa: ANN401  any JSON value
    """Do the same with all names and texts of a JSON value.

    Raises:
        RecursionError: It is nested too deep to be read.
    """
    if isinstance(value, str):
        return storable_text(value)
    if not isinstance(value, (list, dict)):
        return value
    if not depth:
        raise RecursionError("nested too deep")
    if isinstance(value, list):
        return [storable(item, depth - 1) for item in value]
    return {
        storable_text(name): storable(item, depth - 1) for name, item in value.items()
    }
