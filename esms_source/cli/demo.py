"""A small world to try everything in: a warehouse, and the settings to read it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.configuration.specs.runtime_configuration import RuntimeConfiguration

from esms_source.exceptions import ConfigError
from esms_source.redaction import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK: Final = "esms-demo.txt"
"""The file by which a demo knows that a folder is a demo's."""

MESSAGES: Final = 24_000
OA_IDS: Final = ("1090257973118325189", "2846253178204619375", "3571024689135780246")
LATE_REF_ID: Final = "4a496110-9fd3-4838-ac8b-bcaa36616f7011"

MAKE_WAREHOUSE: Final = """
    CREATE TABLE zns_messages AS
    SELECT
        md5('demo' || n) || (100 + n % 900) AS ref_id,
        list_element($oa_ids, 1 + n % 3) AS oa_id,
        now() - INTERVAL 4 DAY + to_seconds(n * 14) AS sent_at,
        list_element(['welcome', 'order', 'birthday', 'sale 11.11'], 1 + n // 7 % 4)
            AS campaign,
        list_element(['228386', '228401', '301177'], 1 + n % 3) AS template
    FROM range($messages) AS numbers(n)
"""

ADD_LATE_ROW: Final = """
    INSERT INTO zns_messages
    SELECT $ref_id, $oa_id, max(sent_at) - INTERVAL 3 HOUR, 'order', '228386'
    FROM zns_messages
"""

LATE_ROW: Final = f"SELECT state FROM zalo.ref_ids WHERE ref_id = '{LATE_REF_ID}'"

DELIVERY: Final = """
    SELECT oa_id, oa_name, sum(sent) AS messages, sum(delivered) AS delivered,
        sum(failed + partial) AS failed, sum(pending) AS pending,
        sum(missing) AS missing, sum(cost) AS cost_vnd
    FROM zalo.delivery_daily GROUP BY ALL ORDER BY oa_id
"""

TOP_ERRORS: Final = """
    SELECT error_code, meaning_en AS meaning, who_can_fix, sum(messages) AS messages
    FROM zalo.failure_reasons GROUP BY ALL ORDER BY sum(messages) DESC LIMIT 6
"""

QUERIES: Final = (
    "SELECT state, count(*) FROM ref_ids GROUP BY state",
    (
        "SELECT campaign, outcome, count(*), sum(total_price) FROM messages"
        " GROUP BY ALL ORDER BY ALL"
    ),
    "SELECT * FROM run_history ORDER BY ALL",
)


@dataclass(frozen=True)
class World:
    """Where the demo lives.

    Attributes:
        folder: Holds all of it; what an earlier demo left there is removed.
    """

    folder: Path

    @property
    def warehouse(self) -> Path:
        """The DuckDB file with the RefIds."""
        return self.folder / "warehouse.duckdb"

    @property
    def result(self) -> Path:
        """The DuckDB file that is loaded."""
        return self.folder / "esms.duckdb"

    @property
    def pipelines(self) -> Path:
        """Dlt's working folder."""
        return self.folder / "pipelines"

    def make(self) -> None:
        """Make a warehouse with one table of sent messages.

        Raises:
            ConfigError: The folder holds files that no demo made, or can't be used.
        """
        mark = self.folder / MARK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self.warehouse, self.result, self.pipelines):
                if os.path.lexists(path) and not mark.is_file():
                    fact = f"{str(path)!r} is not of an earlier demo"
                    raise ConfigError(fact, "choose another --folder, or move it away")
            mark.write_text("esms demo made this, and replaces it.\n")
            for path in (self.warehouse, self.result):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.pipelines, ignore_errors=True)
            self._fill()
        except (OSError, duckdb.IOException) as exc:
            fact = f"the folder {str(self.folder)!r} can't be used ({first_line(exc)})"
            raise ConfigError(fact, "choose another --folder") from exc

    def _fill(self) -> None:
        with duckdb.connect(self.warehouse) as connection:
            connection.execute(
                MAKE_WAREHOUSE, {"oa_ids": list(OA_IDS), "messages": MESSAGES}
            )

    def add_late_row(self) -> None:
        """Let a message turn up three hours behind the newest."""
        with duckdb.connect(self.warehouse) as connection:
            connection.execute(
                ADD_LATE_ROW, {"ref_id": LATE_REF_ID, "oa_id": OA_IDS[0]}
            )

    def settings(self, base_url: str) -> dict[str, Any]:
        """Return the settings that read this warehouse and ask that server."""
        return {
            "api_key": "demo-key",
            "secret_key": "demo-secret",
            "base_url": base_url,
            "rest_base_url": base_url,
            "ask_missing": True,
            # The second run asks again for what is open, and QueryZnsStatus as well.
            "repoll_after": 0.4,
            "ref_ids": {
                "destination": "duckdb",
                "credentials": str(self.warehouse),
                "table": "zns_messages",
                "oa_id_column": "oa_id",
                "sent_at_column": "sent_at",
                "carry": ["campaign", "template"],
            },
        }

    def commands(self) -> Iterator[str]:
        """Yield commands that work as they stand, on what was loaded."""
        program = [sys.argv[0]]
        if Path(sys.argv[0]).name != "esms":
            program = [sys.executable, "-m", "esms_source"]
        place = f"DESTINATION__DUCKDB__CREDENTIALS={shlex.quote(str(self.result))}"
        page = str(self.result.with_name("report.html"))
        for arguments in (
            *(["query", sql] for sql in QUERIES),
            ["report", "--output", page],
        ):
            yield f"{place} {shlex.join([*program, *arguments])}"

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return the column names and rows of a query on what was loaded."""
        with duckdb.connect(self.result, read_only=True) as connection:
            cursor = connection.execute(sql)
            return [c[0] for c in cursor.description or ()], cursor.fetchall()


class _OnlyRuntime(ConfigProvider):
    """What a provider says of dlt's own process: its log, and whether it calls home."""

    supports_sections = True

    def __init__(self, provider: ConfigProvider) -> None:
        self._provider = provider

    @property
    def name(self) -> str:
        return self._provider.name

    @property
    def supports_secrets(self) -> bool:
        return self._provider.supports_secrets

    def get_value(
        self, key: str, hint: type[Any], pipeline_name: str | None, *sections: str
    ) -> tuple[Any | None, str]:
        if pipeline_name or sections[:1] != (RuntimeConfiguration.__section__,):
            return None, key
        return self._provider.get_value(key, hint, pipeline_name, *sections)


@contextmanager
def apart_from_projects() -> Iterator[None]:
    """Let no setting of the project or the environment count in a block."""
    container = Container()[PluggableRunContext].providers
    kept = container.providers
    container.providers = [_OnlyRuntime(provider) for provider in kept]
    try:
        yield
    finally:
        container.providers = kept


@contextmanager
def simulated_api() -> Iterator[str]:
    """Run the simulator in a process of its own, as the API is; yield its URL."""
    command = [sys.executable, "-m", "esms_source", "simulate", "--port", "0"]
    with subprocess.Popen(  # noqa: S603  this package itself
        [*command, "--seed", "7"],
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the run: the API goes on until the run has ended in order.
        start_new_session=True,
    ) as server:
        try:
            yield server.stdout.readline().strip() if server.stdout else ""
        finally:
            server.terminate()
