"""Names of OAs and templates: asked for when callbacks name them, once a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from esms_source.simulator.rest import GET_TEMPLATE, LIST_OAS

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow


@pytest.fixture
def named(esms: Esms, world: Callable[..., Simulator]) -> Callable[..., Simulator]:
    """Let the commands ask for messages of two OAs, and for names."""

    def one(**behaviour: Any) -> Simulator:
        simulator = world(40, oas=2, oa_names={"oa0": "Cửa hàng A"}, **behaviour)
        esms.set(rest_base_url=simulator.url)
        return simulator

    return one


def asked(simulator: Simulator) -> tuple[int, int]:
    """Return how often the two lists were asked for."""
    return simulator.others[LIST_OAS].requests, simulator.others[GET_TEMPLATE].requests


def test_names_stand_in_tables_and_views(
    esms: Esms, named: Callable[..., Simulator], output: Output
) -> None:
    """One list of OAs and one of templates for each OA; a second run asks nothing."""
    simulator = named()
    ended = esms()
    assert ended.status == 0, ended.err
    assert asked(simulator) == (1, 2)
    assert output.rows("SELECT oa_id, name FROM oas ORDER BY 1") == [
        ("oa0", "Cửa hàng A"),
        ("oa1", "OA oa1"),
    ]
    name = ("Cửa hàng A", "Xác nhận đơn hàng")
    for view in ("messages", "delivery_daily"):
        assert name in output.rows(
            f"SELECT DISTINCT oa_name, template_name FROM {view}"
        ), view
    assert name in output.rows("SELECT oa_name, template_name FROM failure_reasons")
    assert esms("run", "--json", "--repoll", "final").status == 0
    assert asked(simulator) == (1, 2)
    output.execute("UPDATE templates SET named_at = now() - INTERVAL 25 HOUR")
    assert esms("run", "--json", "--repoll", "final").status == 0
    assert asked(simulator) == (1, 4)
    columns = "count(*), count(DISTINCT zns_temp_id)"
    assert output.rows(f"SELECT {columns} FROM templates WHERE oa_id = 'oa0'") == [
        (41, 41)
    ]


def test_what_is_not_listed_is_not_asked_for_again_the_same_day(
    esms: Esms, named: Callable[..., Simulator], output: Output
) -> None:
    """A template that was deleted has no name; both types are tried for it."""
    simulator = named()
    assert esms().status == 0
    output.execute(
        "DELETE FROM templates",
        "UPDATE callbacks SET zns_temp_id = 'gone'",
        "DELETE FROM oas",
    )
    for _ in range(2):
        again = esms("run", "--json", "--repoll", "final", "--max-ref-ids", "1")
        assert again.status == 0
    gone = "SELECT name FROM templates WHERE zns_temp_id = 'gone'"
    assert output.rows(gone) == [None, None]
    assert asked(simulator) == (2, 2 + 4)


@pytest.mark.parametrize("fault", ["500", "html", "cut", "drop", "429", "refuse_key"])
def test_a_failure_is_a_warning(
    fault: str, esms: Esms, named: Callable[..., Simulator], output: Output
) -> None:
    """All else is loaded, and the exit code is 0."""
    named(rest_faults=f"{fault}=1")
    ended = esms()
    assert ended.status == 0
    assert "names of OAs and templates aren't known" in ended.err
    assert output.rows("SELECT count(*) FROM messages WHERE oa_name IS NULL") == [40]


def test_nothing_is_asked_where_no_address_is_known(
    esms: Esms, named: Callable[..., Simulator], output: Output
) -> None:
    """The key goes to no server that nobody named."""
    simulator = named()
    del esms.env["SOURCES__ESMS__REST_BASE_URL"]
    assert esms().status == 0
    assert asked(simulator) == (0, 0)
    assert output.rows("SELECT count(*) FROM oas") == [0]


def test_a_kill_while_names_are_loaded_costs_nothing(
    esms: Esms, named: Callable[..., Simulator], output: Output
) -> None:
    """They are asked for again once callbacks name them; no RefId is."""
    simulator = named()
    esms.killed_at("before the load", 2)
    assert esms().report["asked"] == 0
    assert esms("run", "--json", "--repoll", "final").status == 0
    assert output.rows("SELECT count(*) FROM oas") == [2]
    assert max(simulator.arrivals.asks.values()) == 2


def test_check_tells_the_names(esms: Esms, named: Callable[..., Simulator]) -> None:
    """One request, and a warning where none is answered."""
    simulator = named()
    assert esms().status == 0
    assert "names 2 OAs: Cửa hàng A (oa0), OA oa1 (oa1)" in esms("check").out
    assert asked(simulator) == (2, 2)
    named(rest_faults="500=1")
    checked = esms("check")
    assert "doesn't tell the OAs' names: HTTP 500" in checked.out
    assert checked.status == 0
