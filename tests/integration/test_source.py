from __future__ import annotations

import dlt
import pyarrow as pa
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from esms_source import esms_source, sync
from esms_source.exceptions import ConfigError, CredentialsError, RefIdTableError
from esms_source.simulator import sample_row

TABLES = {"ref_ids", "callbacks", "api_requests", "rejected_rows"}


def chain(error: BaseException | None) -> list[type[BaseException]]:
    """Return the kinds of an error and of all that it came from."""
    kinds = []
    while error is not None:
        kinds.append(type(error))
        error = error.__cause__ or error.__context__
    return kinds


@pytest.fixture
def source(api_key, secret_key):
    """Make sources that ask a simulator quickly."""

    def make(simulator, ref_ids=None, **settings):
        given = {
            "api_key": api_key,
            "secret_key": secret_key,
            "base_url": simulator.url,
            "requests_per_second": 2_000,
            "max_in_flight": 8,
        }
        return esms_source(ref_ids, **(given | settings))

    return make


def test_plain_dlt_loads_everything_that_is_due(source, warehouse, simulate, output):
    """As in section 2; a second run asks nothing that is settled."""
    warehouse.fill(30, oas=2)
    simulator = simulate()
    made = source(simulator)
    assert made.name == "esms"
    assert set(made.selected_resources) >= TABLES
    output.pipeline().run(made)
    assert output.rows("SELECT state, count(*) FROM ref_ids GROUP BY 1") == [
        ("final", 30)
    ]
    assert output.rows("SELECT count(*) FROM callbacks") == [30]
    output.pipeline().run(source(simulator))
    assert set(simulator.arrivals.asks.values()) == {1}


@pytest.mark.parametrize("sync_comes_first", [True, False])
def test_plain_runs_and_syncs_replace_rows_of_each_other(
    sync_comes_first, source, warehouse, simulate, output, api_key, secret_key
):
    """Whoever comes later; a sync needs no key of single rows to replace them."""
    warehouse.fill(2)
    first, other = warehouse.rows("SELECT ref_id FROM sent ORDER BY sent_at")
    waiting = sample_row(first, SendStatus=2, SendSuccess=0)
    simulator = simulate(
        scripted={first: lambda _, times: [waiting] * (4 - times)},
    )
    for times in (1, 2, 3):
        pipeline = output.pipeline()
        if (times % 2 == 1) is sync_comes_first:
            sync(
                pipeline,
                api_key=api_key,
                secret_key=secret_key,
                base_url=simulator.url,
                repoll_after=0,
            )
        else:
            pipeline.run(source(simulator, repoll_after=0))
        rows = output.rows("SELECT ref_id, count(*) FROM callbacks GROUP BY 1")
        assert set(rows) == {(first, 4 - times), (other, 1)}
    assert simulator.arrivals.asks == {("oa0", first): 3, ("oa0", other): 1}


def test_a_sync_merges_callbacks_by_a_scope_alone(
    source, warehouse, simulate, output, api_key, secret_key
):
    """Also where a plain run had two keys: DuckDB compares all rows for an OR."""
    warehouse.fill(1)
    pipeline = output.pipeline()
    simulator = simulate()
    pipeline.run(source(simulator))
    warehouse.fill(2)
    sync(pipeline, api_key=api_key, secret_key=secret_key, base_url=simulator.url)
    schema = dlt.dataset(pipeline.destination, "zalo", "esms").schema
    columns = schema.get_table_columns("callbacks").values()
    for key in ("primary_key", "merge_key"):
        assert not [column["name"] for column in columns if column.get(key)]
    scope = dict(schema.get_table("callbacks"))["x-merge-destination-scope"]
    keys = "(oa_id, ref_id) IN (SELECT oa_id, ref_id FROM {staging_table})"
    assert keys in str(scope)
    assert output.rows("SELECT count(*) FROM callbacks") == [2]


def test_a_first_run_without_work_makes_all_tables(source, warehouse, simulate, output):
    """SQL on them works from then on."""
    warehouse.fill(0)
    simulator = simulate()
    output.pipeline().run(source(simulator))
    for table in TABLES:
        assert output.rows(f"SELECT count(*) FROM {table}") == [0]
    assert simulator.arrivals.requests == 0


ROWS = [{"ref_id": f"r{n}", "oa_id": "oa", "sent_at": "2026-01-02"} for n in range(4)]


@dlt.resource
def sent():
    """Dicts, page by page."""
    yield ROWS[:3]
    yield ROWS[3]


@pytest.mark.parametrize(
    "rows",
    [ROWS, [pa.Table.from_pylist(ROWS)], (row for row in ROWS), sent()],
    ids=["dicts", "arrow", "generator", "resource"],
)
def test_ref_ids_may_come_in_place_of_a_warehouse(rows, source, simulate, output):
    """Any iterable of dicts or Arrow tables, or a dlt resource: section 2."""
    output.pipeline().run(source(simulate(), rows))
    assert output.rows(
        "SELECT oa_id, ref_id, sent_at::DATE::VARCHAR FROM ref_ids ORDER BY 2"
    ) == [("oa", f"r{n}", "2026-01-02") for n in range(4)]


def test_settings_of_the_table_may_come_as_arguments(
    source, warehouse, simulate, output
):
    """ref_ids= takes a mapping, too."""
    warehouse.fill(3)
    given = {
        "table": "sent",
        "oa_id_column": "oa_id",
        "credentials": str(warehouse.path),
    }
    output.pipeline().run(source(simulate(), given))
    assert output.rows("SELECT count(*) FROM ref_ids") == [3]


def test_a_bad_setting_is_refused_where_the_source_is_made(source, simulate):
    """Before a pipeline has anything to do with it."""
    with pytest.raises(ConfigError, match="batch_size"):
        source(simulate(), batch_size=0)
    with pytest.raises(ConfigError, match="secret_key"):
        source(simulate(), secret_key=" ")


def test_a_table_that_is_not_there_is_told(source, warehouse, simulate, output):
    """Dlt wraps the error; ours is in the chain."""
    warehouse.execute("SELECT 1")
    warehouse.use("nowhere")
    with pytest.raises(PipelineStepFailed) as caught:
        output.pipeline().run(source(simulate()))
    assert RefIdTableError in chain(caught.value)


def test_a_key_refused_at_once_fails_the_run(source, warehouse, simulate, output):
    """A run that could do nothing is no success."""
    warehouse.fill(3)
    with pytest.raises(PipelineStepFailed) as caught:
        output.pipeline().run(source(simulate(faults="refuse_key=1")))
    assert CredentialsError in chain(caught.value)


def test_loads_of_other_sources_are_left_alone(source, simulate, output):
    """What another source left pending in dlt's active pipeline is its own."""
    pipeline = output.pipeline("other")
    pipeline.extract([{"n": 1}], table_name="numbers")
    pending = pipeline.list_extracted_load_packages()
    source(simulate())
    assert pipeline.list_extracted_load_packages() == pending
    assert "staging_dataset_name_layout" not in pipeline.destination.config_params
