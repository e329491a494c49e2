"""Windows of OAs: rows that lie before them needn't leave the warehouse."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

WINDOW_SLACK: Final = {
    "TIMESTAMP WITH TIME ZONE": timedelta(),
    "TIMESTAMP": timedelta(days=1),
    "DATE": timedelta(days=1),
}
"""By what a window must be wider where the database compares without time zone."""

MOST_WINDOWS: Final = 20
"""Windows that a database is told of; each row is compared with all of them."""


def shared_windows(
    windows: Mapping[str, datetime],
) -> Iterator[tuple[list[str], datetime]]:
    """Yield groups of OAs, each with the earliest of their windows."""
    latest_first = sorted(windows, key=windows.__getitem__, reverse=True)
    size = max(-(-len(latest_first) // MOST_WINDOWS), 1)
    for first in range(0, len(latest_first), size):
        group = latest_first[first : first + size]
        yield group, windows[group[-1]]
