"""The Dagster definitions, materialised for real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from filelock import FileLock

from esms_source.report import TITLE
from esms_source.tables import RUNS, TABLES
from esms_source.views import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from esms_source.simulator import Simulator
    from tests.conftest import Output

WRITTEN = {table.name for table in (*TABLES, RUNS)}
CHECKS = (
    *("sums_agree", "nothing_overdue", "all_answered", "codes_known"),
    "failures_are_free",
)


@pytest.fixture
def definitions(
    load_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The file as Dagster loads it, but that a retry comes at once."""
    policy = dg.RetryPolicy
    monkeypatch.setattr(
        dg, "RetryPolicy", lambda max_retries, **_: policy(max_retries=max_retries)
    )
    return load_module("dagster_defs.py")


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Dagster that keeps its events in memory."""
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def materialize(definitions: ModuleType, instance: Any) -> Callable[..., Any]:
    """Materialise all tables and run all checks, in this process."""

    def run(**choice: object) -> Any:
        return dg.materialize(
            [definitions.esms_tables, definitions.esms_checks],
            instance=instance,
            run_config={"ops": {"esms": {"config": choice}}},
            raise_on_error=False,
        )

    return run


@pytest.fixture
def failing_checks(definitions: ModuleType) -> Callable[[], set[str]]:
    """Run the checks alone; name those that fail."""
    return lambda: {
        result.check_name for result in definitions.esms_checks() if not result.passed
    }


def _metadata(result: Any) -> dict[str, dict[str, Any]]:
    return {
        event.asset_key.path[-1]: {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


def _retries(result: Any) -> int:
    kinds = [event.event_type_value for event in result.all_events]
    return kinds.count("STEP_UP_FOR_RETRY")


def test_the_definitions_are_loadable(definitions: ModuleType) -> None:
    """Assets, checks and schedule fit together, and share one pool."""
    dg.Definitions.validate_loadable(definitions.defs)
    assert definitions.esms_tables.op.pool == definitions.esms_checks.op.pool == "esms"
    names = {key.path[-1] for key in definitions.esms_tables.keys}
    assert names == WRITTEN | set(NAMES)
    assert definitions.esms_schedule.cron_schedule == "*/15 * * * *"


def test_the_way_from_the_warehouse_to_the_report_is_shown(
    definitions: ModuleType,
) -> None:
    """Each view and the report hang on what they are made of."""
    graph = definitions.defs.resolve_asset_graph()

    def above(*path: str) -> set[str]:
        return {
            key.to_user_string() for key in graph.get(dg.AssetKey(path)).parent_keys
        }

    assert above("warehouse", "zns_messages") == set()
    for name in ("ref_ids", "callbacks", "api_requests", "rejected_rows"):
        assert above("zalo", name) == {"warehouse/zns_messages"}
    assert above("zalo", "telcos") == set()
    assert above("zalo", "delivery_daily") > {"zalo/message_facts", "zalo/oas"}
    assert above("zalo", "message_facts") == {"zalo/ref_ids", "zalo/callbacks"}
    assert above("zalo", "report") > {"zalo/callbacks", "zalo/run_history"}
    fresh = {
        key.path[-1]
        for key in graph.get_all_asset_keys()
        if graph.get(key).freshness_policy
    }
    assert fresh == {"ref_ids", "callbacks", "report"}
    scheduled = definitions.esms_schedule.target.resolvable_to_job
    assert dg.AssetKey(["zalo", "report"]) in scheduled.selection.resolve(graph)


def test_the_report_is_written_from_what_was_loaded(
    serve: Callable[..., Simulator], definitions: ModuleType, instance: Any
) -> None:
    """It comes after the views, in the same run."""
    serve()
    assets = [definitions.esms_tables, definitions.esms_report]
    result = dg.materialize(assets, instance=instance)
    written = _metadata(result)["report"]
    page = Path(written["path"]).read_bytes()
    assert TITLE in page
    assert written["bytes"] == len(page)
    steps = [event.step_key for event in result.get_step_success_events()]
    assert steps == ["esms", "zalo__report"]


def test_views_show_the_columns_that_they_have(
    serve: Callable[..., Simulator],
    materialize: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Carried ones too, with types and meanings, as the database tells them."""
    monkeypatch.setenv("SOURCES__ESMS__REF_IDS__CARRY", '["campaign"]')
    serve()
    schema = _metadata(materialize())["messages"]["dagster/column_schema"]
    columns = {column.name: column for column in schema.columns}
    assert columns["campaign"].type == "VARCHAR"
    assert columns["ref_id"].description
    assert columns["sent_at"].type == "TIMESTAMP WITH TIME ZONE"


def test_unknown_codes_are_listed(
    serve: Callable[..., Simulator],
    materialize: Callable[..., Any],
    definitions: ModuleType,
    output: Output,
) -> None:
    """With how many messages have each, the most frequent first."""
    serve()
    materialize()
    output.execute(
        "UPDATE callbacks SET error_code = -987654",
        "UPDATE callbacks SET error_code = -1234567 WHERE ref_id ="
        " (SELECT min(ref_id) FROM callbacks)",
    )
    [check] = [c for c in definitions.esms_checks() if c.check_name == "codes_known"]
    assert check.metadata["share"].value == 1
    assert list(check.metadata["unknown"].value.items()) == [
        ("-987654", 596),
        ("-1234567", 1),
    ]


def test_a_second_materialisation_in_one_process_asks_what_is_due(
    serve: Callable[..., Simulator],
    materialize: Callable[..., Any],
    unanswered: set[tuple[str, str]],
    asked_times: Callable[[Simulator, int], set[tuple[str, str]]],
) -> None:
    """All tables are there after the first, and the second asks three RefIds again."""
    simulator = serve()
    first, second = materialize(), materialize()
    assert first.success
    assert second.success
    assert asked_times(simulator, 2) == unanswered
    assert len(asked_times(simulator, 1)) == 597
    assert set(_metadata(first)) == WRITTEN | set(NAMES)
    assert _metadata(second)["runs"]["dagster/row_count"] == 2
    assert _metadata(first)["ref_ids"]["asked"] == 600
    figures = _metadata(second)["ref_ids"]
    assert figures["asked"] == figures["missing"] == figures["backlog"] == 3
    assert figures["dagster/row_count"] == 600
    assert figures["requests_per_second"] > 0
    assert _metadata(second)["callbacks"]["dagster/row_count"] == 597


def test_the_checks_pass_after_a_run(
    serve: Callable[..., Simulator], materialize: Callable[..., Any]
) -> None:
    """All checks run with the tables, and pass."""
    serve()
    evaluations = materialize().get_asset_check_evaluations()
    assert {e.check_name for e in evaluations} == set(CHECKS)
    assert all(e.passed for e in evaluations)


def test_an_alert_that_finds_something_fails_its_check(
    serve: Callable[..., Simulator],
    materialize: Callable[..., Any],
    pipeline_file: Callable[[str], Path],
    load_module: Callable[[str], ModuleType],
    output: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All is well after a run; a run that failed is told, and nothing else."""
    monkeypatch.syspath_prepend(str(pipeline_file("esms_alerts.py").parent))
    alerts = load_module("dagster_alerts.py")
    dg.Definitions.validate_loadable(alerts.defs)
    serve()
    materialize()
    assert all(check().passed for check in alerts.checks)
    output.execute("UPDATE runs SET exit_code = 1, error = 'said why'")
    results = {next(iter(c.check_keys)).name: c() for c in alerts.checks}
    [failing] = [name for name, result in results.items() if not result.passed]
    assert failing == "run_failed"
    assert "said why" in results[failing].metadata["rows"].value


def test_a_run_can_be_limited_and_repeated_by_config(
    serve: Callable[..., Simulator], materialize: Callable[..., Any]
) -> None:
    """The config of a run chooses among settled RefIds what to ask again."""
    serve()
    assert _metadata(materialize(max_ref_ids=100))["ref_ids"]["asked"] == 100
    materialize()
    choice = {"repoll": ["final"], "oa_ids": ["oa1"], "since": "2026-01-05T00:05:00Z"}
    again = _metadata(materialize(**choice, until="2026-01-05T00:06:00"))
    assert again["ref_ids"]["asked"] == 30


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("DELETE FROM ref_ids WHERE ref_id = (SELECT min(ref_id) FROM ref_ids)", 0),
        ("UPDATE api_requests SET answered = answered + 1", 0),
        ("UPDATE ref_ids SET next_poll_at = now() - INTERVAL 25 HOUR", 1),
        ("UPDATE ref_ids SET state = 'failed' WHERE state = 'missing'", 2),
        ("UPDATE callbacks SET error_code = -987654", 3),
        ("UPDATE callbacks SET delivery = 'failed'", 4),
    ],
)
def test_a_check_fails_when_its_rule_is_broken(
    damage: str,
    check: int,
    serve: Callable[..., Simulator],
    materialize: Callable[..., Any],
    output: Output,
    failing_checks: Callable[[], set[str]],
) -> None:
    """Each damage to the tables fails the one check that is about it."""
    serve()
    materialize()
    output.execute(damage)
    assert failing_checks() == {CHECKS[check]}


def test_what_somebody_must_fix_is_not_tried_again(
    serve: Callable[..., Simulator], materialize: Callable[..., Any]
) -> None:
    """A refused key fails the step at once, with the remedy."""
    serve(api_key="another key")
    result = materialize()
    assert not result.success
    assert _retries(result) == 0
    failure = result.failure_data_for_node("esms")
    assert "check api_key and secret_key" in failure.error.message


def test_a_busy_pipeline_is_tried_again(
    serve: Callable[..., Simulator],
    materialize: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pipeline that another run holds is tried four times more, and asks nothing."""
    monkeypatch.setenv("PIPELINES_DIR", str(tmp_path))
    simulator = serve()
    with FileLock(tmp_path / "esms.esms.lock"):
        result = materialize()
    assert not result.success
    assert _retries(result) == 4
    assert simulator.arrivals.requests == 0
