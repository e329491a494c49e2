"""Plain dlt's ways of running the source: right, or refused with the remedy."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from esms_source import esms_source
from esms_source.exceptions import ConfigError, causes

Source = Callable[..., Any]


@pytest.fixture
def source(warehouse, simulate, api_key, secret_key) -> Source:
    """Make sources of three messages of two OAs."""
    warehouse.fill(3, oas=2)
    simulator = simulate()

    def make(**more: Any) -> Any:
        keys = {"api_key": api_key, "secret_key": secret_key}
        return esms_source(base_url=simulator.url, **keys, **more)

    make.simulator = simulator  # type: ignore[attr-defined]
    return make


def refused(run: Callable[[], object]) -> str:
    """Return the text of the ConfigError that a run ends with."""
    with pytest.raises((ConfigError, PipelineStepFailed)) as caught:
        run()
    (error,) = {link for link in causes(caught.value) if isinstance(link, ConfigError)}
    return str(error)


def test_a_limit_of_pages_is_refused(source):
    """Dlt would close the source while answers come in."""
    assert "max_ref_ids" in refused(lambda: source().add_limit(1))


def test_a_source_without_its_ledger_is_refused(source):
    """It would ask the same again for ever."""
    assert "ref_ids" in refused(lambda: source().with_resources("callbacks"))


def test_small_tables_may_be_left_out(source, output):
    """Nothing is lost by it."""
    polled = ("ref_ids", "callbacks", "api_requests", "rejected_rows")
    output.pipeline().run(source().with_resources(*polled))
    assert output.rows("SELECT count(*) FROM callbacks") == [3]


@pytest.mark.parametrize("disposition", ["replace", "append"])
def test_another_write_disposition_is_refused(disposition, source, output):
    """Before anything is asked; what is there stays."""
    pipeline = output.pipeline()
    pipeline.run(source(max_ref_ids=1))
    run = lambda: pipeline.run(source(), write_disposition=disposition)  # noqa: E731
    assert "repoll" in refused(run)
    assert source.simulator.arrivals.requests == 1
    assert output.rows("SELECT count(*) FROM ref_ids") == [1]


@pytest.mark.parametrize("refresh", ["drop_sources", "drop_resources", "drop_data"])
def test_a_refresh_is_refused(refresh, source, output):
    """It would forget what was asked before the window."""
    pipeline = output.pipeline()
    pipeline.run(source(max_ref_ids=1))
    assert "repoll" in refused(lambda: pipeline.run(source(), refresh=refresh))
    assert output.rows("SELECT count(*) FROM ref_ids") == [1]
    pipeline.drop_pending_packages() if pipeline.has_pending_data else None
    pipeline.run(source())
    assert output.rows("SELECT count(*) FROM ref_ids") == [3]


def test_two_sources_in_one_run_are_refused(source, output):
    """Their requests would bear the same numbers."""
    both = [source(oa_ids=["oa0"]), source(oa_ids=["oa1"])]
    assert "oa_ids" in refused(lambda: output.pipeline().run(both))


def test_making_a_source_does_nothing(source, output, tmp_path):
    """Nothing is read, asked, patched or made."""
    before = sorted(tmp_path.rglob("*"))
    filters = list(logging.getLogger("dlt").filters)
    source()
    assert sorted(tmp_path.rglob("*")) == before
    assert logging.getLogger("dlt").filters == filters
    assert source.simulator.arrivals.requests == 0
