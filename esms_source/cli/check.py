"""Are settings, warehouse, destination and API key right? An answer for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa

from esms_source.api.client import Client
from esms_source.api.remedies import remedy_for
from esms_source.api.request import Request
from esms_source.config import resolve_settings
from esms_source.exceptions import EsmsError, OaRefusedError, RetryableApiError
from esms_source.load.checks import check_destination, check_grants, missing_index
from esms_source.load.destination import open_pipeline, own_pipeline, reporting_errors
from esms_source.planning.comparison import compare
from esms_source.planning.planner import Choice, make_plan
from esms_source.polling.shared_rate_limit import SharedRateLimiter, open_limiter
from esms_source.runtime import Clock, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dlt

    from esms_source.config import Settings

LARGE_LEDGER: Final = 5_000_000
"""RefIds from which on an index helps PostgreSQL: see docs/destinations.md."""

Sample = tuple[str, str]
"""An OA and one of its RefIds."""


def checks(
    pipeline: str, dataset: str, destination: str
) -> Iterator[tuple[str, str | EsmsError]]:
    """Yield what was checked, with what is well or the error."""
    found: dict[str, Sample | None] = {"sample": None}

    def warehouse(settings: Settings) -> str:
        target = _known_target(pipeline, dataset, destination)
        found["sample"], words = _check_warehouse(settings, target)
        return words

    def target(settings: Settings) -> str:
        return _check_destination(settings, pipeline, dataset, destination)

    def api_key(settings: Settings) -> str:
        return check_api_key(settings, found["sample"])

    try:
        settings = resolve_settings()
        settings.require_credentials()
    except EsmsError as exc:
        yield "settings", exc
        return
    yield "settings", f"complete; asking {settings.base_url}"
    steps: tuple[tuple[str, Callable[[Settings], str]], ...] = (
        ("warehouse", warehouse),
        ("destination", target),
        ("rate limit", _check_rate_limit),
        ("API key", api_key),
    )
    for name, step in steps:
        try:
            yield name, step(settings)
        except EsmsError as exc:
            yield name, exc


def _known_target(pipeline: str, dataset: str, destination: str) -> dlt.Pipeline | None:
    """Open the destination; what is wrong with it is said in a line of its own."""
    try:
        with reporting_errors():
            target = open_pipeline(destination, dataset, pipeline)
            check_destination(target)
    except EsmsError:
        return None
    return target


def _check_warehouse(
    settings: Settings, target: dlt.Pipeline | None
) -> tuple[Sample | None, str]:
    """Compare the whole table with the ledger; return one RefId and what was found."""
    found = compare(settings, target, Clock().started_at)
    words = f"{found.rows} rows, {found.unknown} of them not in the ledger"
    return found.sample, "; ".join([words, *found.remedies()])


def _check_destination(
    settings: Settings, pipeline: str, dataset: str, destination: str
) -> str:
    with (
        reporting_errors(),
        own_pipeline(open_pipeline(destination, dataset, pipeline)) as target,
    ):
        check_destination(target)
        check_grants(target)
        nothing = Choice(repoll=("final",), max_ref_ids=0)
        plan = make_plan(target, settings, nothing, Clock().started_at)
        plan.close()
        known = sum(oa.settled + oa.waiting + oa.due for oa in plan.oas)
        index = missing_index(target) if known >= LARGE_LEDGER else None
    words = f"{destination}, dataset {dataset}: {known} RefIds in the ledger"
    if index:
        words += f", and no index on ref_id and oa_id; merges are faster with {index}"
    return words


def _check_rate_limit(settings: Settings) -> str:
    limiter = open_limiter(settings, Stop())
    words = f"at most {settings.requests_per_second:g} requests a second"
    if not isinstance(limiter, SharedRateLimiter):
        return f"{words}, by this process alone"
    limiter.close()
    kind = settings.rate_limit_store.partition(":")[0]
    return f"{words}, by all processes with this key and {kind} store"


def check_api_key(settings: Settings, sample: Sample | None) -> str:
    """Spend one request on a RefId of the warehouse."""
    if sample is None:
        return "not tried: there is no RefId to ask for"
    oa_id, ref_id = sample
    work = pa.table({"ref_id": [ref_id]})
    stop = Stop()
    client, limiter = Client(settings), open_limiter(settings, stop)
    try:
        slot = limiter.acquire()
        if slot is None:
            return f"not tried: {stop.reason}"
        client.ask(Request(oa_id, work), lambda: limiter.sent(slot))
    except OaRefusedError as exc:
        return f"accepted, but {exc}"
    except RetryableApiError as exc:
        raise EsmsError(
            f"not known, as the API gave no usable answer: {exc}", remedy_for(exc)
        ) from exc
    finally:
        client.close()
        if isinstance(limiter, SharedRateLimiter):
            limiter.close()
    return "accepted"
