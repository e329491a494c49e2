"""Plain dlt's ways of running the source: done as dlt's users expect, or refused."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import dlt
from dlt.extract import DltSource

from esms_source.exceptions import ConfigError
from esms_source.tables import POLLED

NAMES: Final = frozenset(table.name for table in POLLED)

MOST_LOADS: Final = 1_000

_begun: Final[deque[str]] = deque(maxlen=MOST_LOADS)
"""The latest loads that a source of this process feeds."""


class EsmsSource(DltSource):
    """The source; what would lose answers or the ledger is refused."""

    def add_limit(self, *_args: Any, **_kwargs: Any) -> DltSource:  # noqa: ANN401  dlt's
        """Refuse a limit of pages.

        Raises:
            ConfigError: Always; ``max_ref_ids`` limits a run.
        """
        fact = "add_limit would cut a run off while answers come in"
        raise ConfigError(fact, "limit it by max_ref_ids")

    def with_resources(self, *resource_names: str) -> DltSource:
        """Leave out what can be left out: the small tables.

        Raises:
            ConfigError: A table is left out without which nothing is remembered.
        """
        missing = sorted(NAMES - set(resource_names))
        if missing:
            fact = f"a run without {', '.join(missing)} wouldn't remember what it asked"
            raise ConfigError(fact, "load all of them, and select by SQL afterwards")
        return super().with_resources(*resource_names)


def require_own_load(load_id: str) -> None:
    """Refuse a load that another source feeds too, or that drops tables first.

    Raises:
        ConfigError: With what to do instead.
    """
    if load_id in _begun:
        fact = "two esms_source() in one run would number their requests alike"
        remedy = "run one after another, or give one source all oa_ids"
        raise ConfigError(fact, remedy)
    _begun.append(load_id)
    if dlt.current.load_package_state()["state"].get("refresh"):
        fact = "refresh would drop the ledger, and with it what was asked so far"
        raise ConfigError(fact, "leave it out; repoll=[…] asks again")


def require_merges() -> None:
    """Refuse a write disposition that somebody put in place of ours.

    Call it once the first rows have come.

    Raises:
        ConfigError: It would lose or double rows.
    """
    tables = dlt.current.source_schema().tables
    for name in NAMES & set(tables):
        given = tables[name].get("write_disposition", "merge")
        if given != "merge":
            fact = f"write_disposition={given!r} would lose or double rows of {name}"
            raise ConfigError(fact, "leave it out; repoll=[…] asks again")


def forget_scopes() -> None:
    """Let merges compare all rows: what ``sync`` told dlt holds for its own loads only.

    Call it once the first rows have come.
    """
    tables: Any = dlt.current.source_schema().tables
    for name in NAMES & set(tables):
        tables[name].pop("x-merge-destination-scope", None)
