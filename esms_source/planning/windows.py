"""Windows of OAs: rows that lie before them needn't leave the warehouse."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from esms_source.sql import moment_literal, quote_name, text_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from esms_source.planning.candidates import Columns

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


def in_windows(
    columns: Columns,
    types: Mapping[str, str],
    windows: Mapping[str, datetime],
    quote: Callable[[str], str],
) -> str:
    """Return a WHERE that leaves out what lies certainly before its window, or nothing.

    What is left is compared exactly once it is copied: rows whose own column names no
    OA are all left, and of many OAs some share the earliest of their windows.
    """
    slack = _slack(columns, types)
    if not windows or slack is None:
        return ""
    oa_id, sent_at = _names(columns, quote)
    before = " OR ".join(
        f"{oa_id} IN ({text_list(group)})"
        f" AND {sent_at} < {moment_literal(since - slack)}"
        for group, since in shared_windows(windows)
    )
    return f" WHERE {oa_id} IS NULL OR {sent_at} IS NULL OR NOT ({before})"


def parts_in_windows(
    table: str,
    columns: Columns,
    types: Mapping[str, str],
    windows: Mapping[str, datetime],
) -> str:
    """Return SQL of the same rows of a table in DuckDB, part by part.

    No part has an OR between columns: the least and greatest values that DuckDB keeps
    of each row group let it skip most, where it would else compare all rows.
    """
    slack = _slack(columns, types)
    if not windows or slack is None:
        return table
    oa_id, sent_at = _names(columns, quote_name)
    known = f"{oa_id} IN ({text_list(sorted(windows))})"
    conditions = [
        f"{oa_id} IN ({text_list(group)})"
        f" AND {sent_at} >= {moment_literal(since - slack)}"
        for group, since in shared_windows(windows)
    ]
    conditions += [
        f"{known} AND {sent_at} IS NULL",
        f"{oa_id} IS NULL OR NOT {known}",
    ]
    parts = (f"SELECT * FROM {table} WHERE {condition}" for condition in conditions)
    return f"({' UNION ALL '.join(parts)}) AS windowed"


def _slack(columns: Columns, types: Mapping[str, str]) -> timedelta | None:
    """Return by what windows are wider; None where no rows can be left out."""
    if not columns.sent_at or not columns.oa_id:
        return None
    return WINDOW_SLACK.get(types[columns.sent_at])


def _names(columns: Columns, quote: Callable[[str], str]) -> tuple[str, str]:
    oa_id = f"CAST({quote(str(columns.oa_id))} AS VARCHAR)"
    return oa_id, quote(str(columns.sent_at))
