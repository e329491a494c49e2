"""One RefId that the server can't answer: it fails alone."""

from __future__ import annotations

from hashlib import md5
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output
    from tests.integration.conftest import Esms


def test_a_poisonous_ref_id_fails_alone(
    hasty: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """Its 199 neighbours are loaded; it is said why, and it is asked again later."""
    poison = md5(b"77").hexdigest() + "07"  # noqa: S324  no secret
    simulator = world(200, faults=f"poison={poison}")
    ended = hasty(max_attempts=2)
    assert (ended.status, ended.report["failed"]) == (1, 1)
    assert "1 RefIds failed: HTTP 500" in ended.err
    assert poison not in ended.err
    assert output.rows(
        "SELECT ref_id, last_error, next_poll_at > last_polled_at FROM ref_ids"
        " WHERE state <> 'final'"
    ) == [(poison, "HTTP 500", True)]
    assert output.rows("SELECT count(DISTINCT ref_id) FROM callbacks") == [199]
    assert output.rows(
        "SELECT sum(asked), sum(answered), sum(failed) FROM api_requests"
        " WHERE outcome <> 'split'"
    ) == [(200, 199, 1)]
    # 200, 100, 50, 25, 13, 7, 4, 2 or 3, and at last it alone.
    splits = output.rows("SELECT count(*) FROM api_requests WHERE outcome = 'split'")
    assert splits[0] in (7, 8)
    assert output.rows("SELECT sum(attempts) FROM api_requests") == [
        simulator.arrivals.requests
    ]
    assert max(simulator.arrivals.answers.values()) == 1


def test_many_splits_at_once_leave_carried_columns_as_they_are(
    hasty: Esms,
    output: Output,
    world: Callable[..., Simulator],
) -> None:
    """A group of requests that were all split makes no row of the ledger."""
    broken = lambda _number, _oa, ids: "500" if len(ids) > 1 else None  # noqa: E731
    world(120, on_request=broken, latency=0.3)
    hasty.set(batch_size=2, max_in_flight=64, max_attempts=1)
    ended = hasty(ref_ids__carry='["campaign"]')
    assert ended.status == 0, ended.err
    assert output.rows("SELECT count(campaign) FROM ref_ids") == [120]
