"""Text that a terminal prints and does not obey: data is never a command."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal obeys instead of printing it; line ends and tabs do no harm."""


def printable(text: str) -> str:
    r"""Write out what would steer the terminal.

    Examples:
        >>> printable("\x1b[2J and \x9b2J")
        '\\x1b[2J and \\x9b2J'
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def printable_json(value: object, **options: Any) -> str:  # noqa: ANN401  of json.dumps
    r"""Write JSON; what it has no form for, as text.

    Examples:
        >>> printable_json("\x7f and \x1b[2J", ensure_ascii=False)
        '"\\u007f and \\u001b[2J"'
    """
    text = json.dumps(value, default=str, **options)
    # JSON itself writes out the characters below the blank only.
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
