"""The alerts of docs/alerts.md: quiet after a good run, and each has its damage."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from esms_source import sync
from esms_source.exceptions import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "alerts.md"

LATE = "CURRENT_TIMESTAMP - INTERVAL '25 hours'"
DAMAGES = {
    "run_failed": ["UPDATE runs SET exit_code = 1"],
    "no_run": ["UPDATE runs SET ended_at = ended_at - INTERVAL '2 hours'"],
    "overdue": [f"UPDATE ref_ids SET state = 'pending', next_poll_at = {LATE}"],
    "unknown_codes": ["UPDATE callbacks SET error_code = -31337, delivery = 'failed'"],
    "nothing_new": [f"UPDATE ref_ids SET first_polled_at = {LATE}"],
    "rows_skipped": ["UPDATE runs SET unreadable = 1"],
    "no_callbacks": [
        "DELETE FROM callbacks",
        "UPDATE ref_ids SET state = 'missing', next_poll_at = CURRENT_TIMESTAMP",
        "UPDATE ref_ids SET sent_at = CURRENT_TIMESTAMP - INTERVAL '3 days'",
    ],
}


@pytest.fixture
def alerts(monkeypatch: pytest.MonkeyPatch, output: Output) -> ModuleType:
    """The file as a scheduler imports it, on the test's DuckDB file."""
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(output.path))
    path = ROOT / "pipelines" / "esms_alerts.py"
    spec = spec_from_file_location("esms_alerts", path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def firing(alerts: ModuleType) -> Callable[[], set[str]]:
    """Name the alerts that find something."""
    return lambda: {name for name in alerts.ALERTS if alerts.wrong(name)}


@pytest.fixture
def run(
    warehouse: Warehouse,
    output: Output,
    simulate: Callable[..., Simulator],
    api_key: str,
    secret_key: str,
) -> Callable[..., None]:
    """Load what a simulator says of ten more messages of two OAs."""
    sent = count(step=10)

    def run(**behaviour: object) -> None:
        warehouse.fill(10, oas=2, start=next(sent))
        sync(
            output.pipeline(),
            api_key=api_key,
            secret_key=secret_key,
            base_url=simulate(**behaviour).url,
            requests_per_second=1_000,
        )

    return run


def test_the_page_has_the_queries_of_the_file(alerts: ModuleType):
    """Both name them alike, in one order."""
    text = PAGE.read_text("utf-8")
    shown = re.findall(r"(?ms)^`(\w+)`\. .*?```sql\n(.*?)```", text)
    assert dict(shown) == {
        name: dedent(sql).lstrip("\n") for name, sql in alerts.ALERTS.items()
    }


def test_each_alert_has_its_damage(
    alerts: ModuleType,
    run: Callable[..., None],
    output: Output,
    firing: Callable[[], set[str]],
):
    """After a good run all are quiet; each fires on its own damage, and alone."""
    run()
    assert firing() == set()
    assert set(DAMAGES) == set(alerts.ALERTS) - {"refused"}
    sound = output.path.read_bytes()
    for alert, statements in DAMAGES.items():
        output.execute(*statements)
        assert firing() == {alert}
        output.path.write_bytes(sound)


def test_a_refused_oa_and_its_failed_ref_ids_are_told(
    alerts: ModuleType, run: Callable[..., None], firing: Callable[[], set[str]]
):
    """The code's meaning says what to do, until the OA is answered again."""
    run()
    run(refused_oas=frozenset({"oa1"}))
    assert firing() == {"refused", "run_failed"}
    [(oa_id, code, meaning, who, *_)] = alerts.wrong("refused")
    assert (oa_id, code, who) == ("oa1", 204, "oa_admin")
    assert "OA" in meaning
    run()
    assert "refused" not in firing()


def test_a_refused_key_is_told(
    alerts: ModuleType, run: Callable[..., None], firing: Callable[[], set[str]]
):
    """It stands in the table of requests and in that of runs."""
    run()
    with pytest.raises(CredentialsError):
        run(api_key="another")
    assert {"refused", "run_failed"} <= firing()
    assert {code for _, code, *_ in alerts.wrong("refused")} >= {101}
