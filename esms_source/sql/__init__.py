"""SQL that is put together: every quoting and literal, once."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

OURS: Final = "postgres"
"""The dialect that all SQL is written in which goes to a destination."""

AS_IT_STANDS: Final = (None, OURS, "duckdb")
"""Dialects that read it as it stands; None is one that sqlglot doesn't know."""

_MARK: Final = "esms_relation_"
_MARKED: Final = re.compile(rf"""([`"]){_MARK}(\d+)\1|{_MARK}(\d+)""")


@cache
def read_statements(package: str, file: str) -> dict[str, str]:
    """Return the statements of a file by the names in the comments in front of them."""
    text = resources.files(package).joinpath(file).read_text("utf-8")
    parts = re.split(r"^-- ([a-z_]+): ", text, flags=re.MULTILINE)[1:]
    return {
        name: "-- " + part.strip().removesuffix(";")
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    }


def quote_name(name: str) -> str:
    """Quote an identifier for DuckDB and PostgreSQL."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Return a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def text_list(texts: Iterable[str]) -> str:
    """Return texts as the inside of an SQL list."""
    return ", ".join(map(text_literal, texts))


def in_dialect(sql: str, dialect: str | None, relations: Iterable[str] = ()) -> str:
    """Return SQL of ours as another database reads it.

    Args:
        sql: A statement, written for PostgreSQL.
        dialect: sqlglot's name of the other one.
        relations: Names and queries in it that the other one wrote, and which stay.

    Examples:
        >>> in_dialect("SELECT a FROM [b] WHERE c LIMIT 1", "tsql", ["[b]"])
        'SELECT TOP 1 a FROM [b] WHERE c <> 0'
    """
    if dialect in AS_IT_STANDS:
        return sql
    import sqlglot  # noqa: PLC0415  half a second, which few destinations need

    from esms_source.sql import dialects  # noqa: PLC0415  the same

    longest_first = sorted(set(relations), key=len, reverse=True)
    for number, relation in enumerate(longest_first):
        sql = sql.replace(relation, f"{_MARK}{number}")
    tree = sqlglot.parse_one(sql, read=OURS)
    is_adapted = dialect in dialects.DIALECTS
    if is_adapted:
        tree = dialects.adapted(tree, dialect)
    # Which names are reserved differs: rows is one in MySQL.
    said = tree.sql(dialect, identify=is_adapted, comments=False)
    return _MARKED.sub(lambda mark: longest_first[int(mark[2] or mark[3])], said)


def moment_literal(moment: datetime) -> str:
    """Return a UTC time as SQL that every destination reads."""
    return f"CAST('{moment.isoformat(sep=' ')}' AS TIMESTAMP WITH TIME ZONE)"
