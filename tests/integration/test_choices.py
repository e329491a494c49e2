"""What a run is limited to, and that nothing it leaves out is forgotten."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.simulator import sample_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Warehouse
    from tests.integration.conftest import Esms

pytestmark = pytest.mark.slow


COUNT = 60

STATES = "SELECT state, count(*) FROM ref_ids GROUP BY 1"


def ref_id(number: int) -> str:
    """Return the RefId that the warehouse has under a number."""
    return md5(str(number).encode()).hexdigest() + "07"  # noqa: S324  no secret


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        (("--max-ref-ids", "7"), 7),
        (("--max-ref-ids", "0"), 0),
        (("--oa-id", "oa2"), 20),
        (("--oa-id", "oa2", "--oa-id", "oa0"), 40),
        (("--oa-id", "oa2", "--max-ref-ids", "3"), 3),
        (("--oa-id", "unknown"), 0),
        (("--ref-ids", "some.txt"), 2),
        (("--ref-ids", "some.csv"), 2),
        (("--repoll", "failed,expired"), 0),
    ],
)
def test_no_choice_hides_a_ref_id_from_a_later_run(
    choice: tuple[str, ...],
    asked: int,
    esms: Esms,
    warehouse: Warehouse,
    output: Output,
    tmp_path: Path,
    world: Callable[..., Simulator],
) -> None:
    """The newest first or the oldest first: the next plain run asks all the rest."""
    (tmp_path / "some.txt").write_text(f"{ref_id(59)}\n\n{ref_id(31)}\n")
    (tmp_path / "some.csv").write_text(
        f'ref_id,oa_id\n"{ref_id(59)}",oa2\n{ref_id(31)},oa1\n'
    )
    simulator = world(COUNT, oas=3)
    chosen = esms("run", "--json", *choice)
    assert (chosen.status, chosen.report["asked"]) == (0, asked), chosen.err
    # Late rows, older than all that was read, come too.
    warehouse.fill(3, oas=3, start=-3)
    rest = esms()
    assert (rest.status, rest.report["asked"]) == (0, COUNT + 3 - asked)
    assert set(simulator.arrivals.asks.values()) == {1}
    assert output.rows(STATES) == [("final", COUNT + 3)]


def test_since_and_until_choose_by_sent_at(
    esms: Esms,
    world: Callable[..., Simulator],
) -> None:
    """From the first moment on, before the second one; a second lies between two."""
    world(COUNT)
    esms()
    words = ("run", "--json", "--repoll", "final")
    since = ("--since", "2026-01-05T00:00:10+00:00")
    until = ("--until", "2026-01-05 07:00:20+07:00")
    assert esms(*words).report["asked"] == COUNT
    assert esms(*words, *since).report["asked"] == COUNT - 10
    assert esms(*words, *until).report["asked"] == 20
    assert esms(*words, *since, *until).report["asked"] == 10
    # A date is midnight in Vietnam, 17:00 the day before here.
    assert esms(*words, "--since", "2026-01-05").report["asked"] == COUNT
    assert esms(*words, "--until", "2026-01-05").report["asked"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--repoll", "gone"),
        ("--since", "2026-01-05"),
        ("--max-ref-ids", "-1"),
        ("--ref-ids", "nowhere.txt"),
        ("--since", "yesterday", "--repoll", "final"),
        ("--since", "2026-01-05T00:00:10", "--repoll", "final"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(
    words: tuple[str, ...],
    esms: Esms,
    world: Callable[..., Simulator],
) -> None:
    """Exit code 2, and nothing is asked."""
    simulator = world(COUNT)
    assert esms("run", *words).status == 2
    assert simulator.arrivals.requests == 0


def test_what_expired_is_fetched_on_demand(
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """Given up after a while and left alone, until somebody names the state."""
    first, second = ref_id(0), ref_id(1)
    late: list[Any] = []
    world(
        2,
        scripted={
            first: lambda *_: late,
            second: [sample_row(second, SendStatus=1)],
        },
    )
    esms.set(repoll_after=0)
    assert esms().report["missing"] == 1
    assert esms(give_up_after=0).report["asked"] == 2
    assert output.rows(STATES) == [("expired", 2)]
    late.append(sample_row(first))
    assert esms().report["asked"] == 0
    words = ("run", "--json", "--repoll", "expired")
    assert esms(*words, give_up_after=0).report["answered"] == 2
    states = dict(output.rows("SELECT ref_id, state FROM ref_ids"))
    assert states == {first: "final", second: "expired"}


def test_a_final_answer_never_falls_back(
    esms: Esms,
    simulate: Callable[..., Simulator],
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """Neither to rows that aren't final, nor to none, nor to a failure."""
    rows = [
        [sample_row(ref_id(0), Telcoid=1)],
        [sample_row(ref_id(0), SendStatus=1, Telcoid=2)],
        [],
    ]

    def answer(_ref_id: str, times_asked: int) -> list[Any]:
        return rows[min(times_asked, len(rows)) - 1]

    words = ("run", "--json", "--repoll", "final")
    world(1, scripted={ref_id(0): answer})
    assert esms().status == 0
    for _ in range(3):
        assert esms(*words).report["asked"] == 1
    broken = simulate(faults="500=1").url
    assert esms(*words, base_url=broken, max_attempts=1).status == 1
    assert output.rows("SELECT state, next_poll_at FROM ref_ids") == [("final", None)]
    assert output.rows("SELECT telco_id, delivery FROM callbacks") == [(1, "delivered")]


def test_a_clock_that_was_set_back_holds_nobody_up(
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """A time further off than any wait was written under a wrong clock."""
    world(COUNT, scripted={ref_id(i): [] for i in range(COUNT)})
    assert esms().report["missing"] == COUNT
    assert esms().report["asked"] == 0
    output.execute(
        "UPDATE ref_ids SET next_poll_at = now() + INTERVAL 30 DAY,"
        " first_polled_at = now() + INTERVAL 30 DAY,"
        " last_polled_at = now() + INTERVAL 30 DAY"
    )
    again = esms()
    assert (again.status, again.report["asked"]) == (0, COUNT)
    assert output.rows(STATES) == [("missing", COUNT)]
    assert esms().report["asked"] == 0


def test_times_are_the_same_in_every_zone(
    esms: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """The host's zone, and its summer time, change nothing that is stored or due."""
    world(COUNT, scripted={ref_id(i): [] for i in range(COUNT)})
    for zone in ("America/New_York", "Asia/Ho_Chi_Minh", "UTC"):
        assert esms(TZ=zone, repoll_after=0).report["asked"] == COUNT
        assert output.rows(
            "SELECT count(*) FROM ref_ids WHERE abs(epoch(now()) -"
            " epoch(last_polled_at)) < 60 AND epoch(sent_at) BETWEEN"
            f" epoch(TIMESTAMPTZ '2026-01-05 00:00:00+00') AND 1767571200 + {COUNT}"
        ) == [COUNT]
    assert esms(TZ="Pacific/Auckland").report["asked"] == COUNT
    assert esms(TZ="America/New_York").report["asked"] == 0
