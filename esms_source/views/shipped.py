"""The views as they are shipped: SQL with placeholders, and what each column means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from esms_source.sql import text_literal
from esms_source.tables import VARIANT, is_carried

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from esms_source.config import Settings

NAMES: Final = (
    "message_facts",
    "messages",
    "delivery_daily",
    "failure_reasons",
    "maturity",
    "backlog",
    "run_history",
    "reconciliation",
)
"""All views, each after those that it stands on."""

DIALECTS: Final = ("duckdb", "postgres", "mysql", "sqlite")
"""The SQL dialects on which the views are tested, and so made."""

_COLUMN: Final = re.compile(r"([a-z0-9_]+): (.+)")


@dataclass(frozen=True)
class View:
    """A view as it is shipped.

    Attributes:
        name: Its name.
        description: What it shows.
        columns: The meaning of each column, in order, without carried ones.
        sql: A query with placeholders: ``{name}`` of a table or view, and those
            of ``setting_values``.
    """

    name: str
    description: str
    columns: Mapping[str, str]
    sql: str


@cache
def read_view(name: str) -> View:
    """Read a view and the comment on top of it from its file."""
    path = resources.files(__package__).joinpath(f"{name}.sql")
    lines = path.read_text("utf-8").splitlines()
    size = next(i for i, line in enumerate(lines) if not line.startswith("--"))
    header = "\n".join(line[2:].removeprefix(" ") for line in lines[:size])
    description, columns = re.sub(r"\n {4}", " ", header).split("\n\n")
    meanings = [_COLUMN.fullmatch(line) for line in columns.splitlines()]
    return View(
        name,
        description.replace("\n", " "),
        {match[1]: match[2] for match in meanings if match},
        "\n".join(lines[size:]),
    )


def setting_values(settings: Settings) -> dict[str, str]:
    """Return what stands for the settings in the SQL of the views."""
    return {
        "timezone": text_literal(settings.timezone),
        "batch_size": str(settings.batch_size),
        "requests_per_second": str(settings.requests_per_second),
        "longest_wait": text_literal(f"{int(settings.repoll_max) + 1} seconds"),
    }


def carried_columns(
    ledger: Sequence[str], quote: Callable[[str], str]
) -> dict[str, str]:
    """Return the carried columns of ``messages`` and their SQL, of ``ledger``.

    What a column doesn't take stands beside it in the ledger, as text: both are one
    here. A name that the view has already gets the prefix ``carried_``.
    """
    taken = read_view("messages").columns
    columns: dict[str, str] = {}
    for name in filter(is_carried, ledger):
        if name.endswith(VARIANT) and name.removesuffix(VARIANT) in ledger:
            continue
        value = f"ledger.{quote(name)}"
        if name + VARIANT in ledger:
            beside = quote(name + VARIANT)
            value = f"coalesce(CAST({value} AS VARCHAR), ledger.{beside})"
        columns[f"carried_{name}" if name.lower() in taken else name] = value
    return columns
