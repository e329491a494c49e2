"""SQL that is put together: every quoting and literal, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


def quote_name(name: str) -> str:
    """Quote an identifier for DuckDB and PostgreSQL."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Return a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def text_list(texts: Iterable[str]) -> str:
    """Return texts as the inside of an SQL list."""
    return ", ".join(map(text_literal, texts))


def moment_literal(moment: datetime) -> str:
    """Return a UTC time as SQL that every destination reads."""
    return f"CAST('{moment.isoformat(sep=' ')}' AS TIMESTAMP WITH TIME ZONE)"
