"""What every database takes: texts without NUL or half an emoji, and plain JSON."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any, Final

INT64: Final = range(-(2**63), 2**63)
"""Whole numbers that a column takes."""

MAX_DEPTH: Final = 64
"""Lists and objects in one another; what is nested deeper is kept as JSON text."""


def storable_text(text: str) -> str:
    r"""Write what can't be stored as escapes.

    Examples:
        >>> storable_text("half an emoji: \ud83d")
        'half an emoji: \\ud83d'
    """
    text = text.replace("\0", "\\u0000")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def storable(value: Any, depth: int = MAX_DEPTH) -> Any:  # noqa: ANN401  any JSON value
    """Do the same with all names and texts of a JSON value, and bound its depth.

    Lists and objects are changed in place: an answer may be large.

    Raises:
        RecursionError: It is nested too deep even for that.
    """
    if isinstance(value, str):
        return storable_text(value)
    if not isinstance(value, (list, dict)):
        return value
    if not depth:
        return storable_text(to_json(value))
    if isinstance(value, list):
        for place, item in enumerate(value):
            value[place] = storable(item, depth - 1)
        return value
    for name, item in value.items():
        value[name] = storable(item, depth - 1)
    names = [storable_text(name) for name in value]
    if names != list(value):
        return members(list(zip(names, value.values(), strict=True)))
    return value


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object that loses none of its members.

    Of several with one name the last one has it, as for most readers of JSON.

    Examples:
        >>> members([("a", 1), ("b", 2), ("a", 3)])
        {'a': 3, 'b': 2, 'a (2)': 1}
    """
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: Counter[str] = Counter()
    for name, value in reversed(pairs):
        seen[name] += 1
        if seen[name] == 1:
            continue
        while (other := f"{name} ({seen[name]})") in found:
            seen[name] += 1
        found[other] = value
    return found


def to_json(value: Any) -> str:  # noqa: ANN401  any JSON value
    """Write a JSON value; a decimal that JSON readers would round becomes text."""
    return json.dumps(value, ensure_ascii=False, default=_exact, separators=(",", ":"))


def _exact(number: Decimal) -> float | str:
    rounded = float(number)
    return rounded if Decimal(repr(rounded)) == number else str(number)
