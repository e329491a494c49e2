from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from esms_source.simulator import sample_row
from esms_source.tables import RUNS, SMALL, TABLES
from esms_source.views import NAMES
from tests.conftest import ref_id
from tests.integration.test_foreign import mariadb  # noqa: F401  a fixture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Ended, Esms

NUMBERS = itertools.count()
COUNT = 800
KILLS = int(os.environ.get("ESMS_TEST_KILLS", "10"))

MOMENTARY = {
    *("load_id", "run_id", "waited_ms", "latency_ms", "seconds", "rate_used"),
    *("requests_per_second", "api_hours", "hours_to_final_p50", "hours_to_final_p95"),
}
"""Columns whose values no two runs have in common, as all moments but ``sent_at``."""


class Place:
    """A dataset that SQLAlchemy reaches: for ``esms``, and for a test that looks in.

    Attributes:
        url: Where it is, for dlt.
    """

    def __init__(self, esms: Esms, url: str, look: Callable[[str], Any]) -> None:
        self.url = url
        self._esms = esms
        self._look = look
        esms.set(DESTINATION__SQLALCHEMY__CREDENTIALS=url)

    def run(self, *words: str, **more: Any) -> Ended:
        """Run a command, by default ``run --json``, on it."""
        words = words or ("run", "--json")
        return self._esms(*words, "--destination", "sqlalchemy", **more)

    def rows(self, sql: str) -> list[Any]:
        """Return what SQL of its own selects; bare values of one column."""
        rows = self._look(sql)
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]


@pytest.fixture(
    params=["sqlite", pytest.param("mariadb", marks=pytest.mark.slow)],
)
def place(request: pytest.FixtureRequest, esms: Esms, tmp_path: Path) -> Place:
    """An empty SQLite or MariaDB."""
    if request.param == "sqlite":

        def look(sql: str) -> list[Any]:
            # The dataset's own file, as anybody would open it.
            with closing(sqlite3.connect(tmp_path / "out__zalo.db")) as connection:
                return connection.execute(sql).fetchall()

        return Place(esms, f"sqlite:///{tmp_path / 'out.db'}", look)
    url: str = request.getfixturevalue("mariadb")
    engine = sa.create_engine(url, poolclass=sa.NullPool)

    def ask(sql: str, database: str = "zalo") -> list[Any]:
        with engine.begin() as connection:
            if database:
                connection.exec_driver_sql(f"USE {database}")
            # As it is: a per cent begins no parameter.
            found = connection.execute(sa.text(sql.replace(":", r"\:")))
            return list(found) if found.returns_rows else []

    for name in ("zalo", "zalo_staging_esms"):
        ask(f"DROP DATABASE IF EXISTS {name}", "")
    return Place(esms, url.replace("localhost/", "localhost/mysql"), ask)


def scripted() -> dict[str, Any]:
    """Script what is odd: two rows, none at first, one not final at first, a stray."""
    scripts: dict[str, Any] = {}
    pending = {"SendStatus": 1, "SendSuccess": 0, "SendFailed": 0}
    said = '{"error":-118,"message":"It\'s no \\"Zalo\\" user: 50% \\\\ 🎉","data":{"a":1}}'
    for number in range(0, COUNT, 40):
        two, late, held, stray, failed = (ref_id(number + step) for step in range(5))
        scripts[two] = [sample_row(two), sample_row(two, Telcoid=2, New={"a": [":b"]})]
        scripts[late] = lambda name, n: [sample_row(name)] if n > 1 else []
        scripts[held] = lambda name, n: [
            sample_row(name, **(pending if n == 1 else {"TotalPrice": "12345.6789"}))
        ]
        scripts[stray] = [sample_row(stray), sample_row(f"stranger-{number}")]
        scripts[failed] = [
            sample_row(failed, SendSuccess=0, SendFailed=1, ErrorInfo=said)
        ]
    return scripts


def plain(name: str, value: Any) -> Any:
    """Return a value as it is on every database."""
    if isinstance(value, str) and value[:1] in "{[":
        return json.dumps(json.loads(value), sort_keys=True)
    if name == "sent_day" or name.endswith("sent_at"):
        return value and str(value)[:19]
    is_moment = isinstance(value, datetime) or name.endswith("_at")
    if is_moment or name in MOMENTARY:
        return value is not None
    if isinstance(value, (bool, int, float, Decimal)):
        return round(float(value), 4)
    return str(value) if isinstance(value, date) else value


def content(rows: Callable[[str], list[Any]], table: str, names: list[str]) -> Any:
    """Return a table's rows in a form that doesn't depend on the database."""
    quote = '"row"' if rows.__self__.__class__ is not Place else None  # type: ignore[attr-defined]
    del quote
    selected = rows(f"SELECT {', '.join(names)} FROM {table}")
    tupled = [row if isinstance(row, tuple) else (row,) for row in selected]
    return sorted(
        repr([plain(name, value) for name, value in zip(names, row, strict=True)])
        for row in tupled
    )
