"""Are settings, warehouse, destination and API key right? An answer for each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import dlt
import pyarrow as pa

from esms_source.api.remedies import remedy_for
from esms_source.api.request import Request
from esms_source.config import resolve_settings
from esms_source.databases import (
    columns_of,
    execute,
    local_file,
)
from esms_source.databases.alchemy import sqlite_file
from esms_source.exceptions import EsmsError, OaRefusedError, RetryableApiError
from esms_source.keeping import reading, url_of
from esms_source.ledger import query_after
from esms_source.load.checks import (
    check_destination,
    check_grants,
    check_tables,
    missing_index,
)
from esms_source.load.destination import open_pipeline, own_pipeline, reporting_errors
from esms_source.planning.comparison import compare
from esms_source.polling.backoff import Backoff
from esms_source.polling.batches import SMS_TYPES
from esms_source.polling.doors import callback_door, query_door
from esms_source.polling.names import list_oas
from esms_source.polling.shared_rate_limit import SharedRateLimiter, open_limiter
from esms_source.runtime import Clock, Stop
from esms_source.session import NOWHERE_TO_ASK
from esms_source.sql import moment_literal
from esms_source.tables import CALLBACK, QUERY, REF_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.config import Settings
    from esms_source.polling.doors import Door

LARGE_LEDGER: Final = 5_000_000
"""RefIds from which on an index helps PostgreSQL: see docs/postgresql.md."""

Sample = tuple[str, str]
"""An OA and one of its RefIds."""


class Outcome(NamedTuple):
    """What a check came to.

    Attributes:
        name: What was checked.
        status: ok, warn, skip or FAIL.
        said: What is well, or the fact and its remedy.
        exit_code: What the command line ends with because of it.
    """

    name: str
    status: Literal["ok", "warn", "skip", "FAIL"]
    said: str
    exit_code: int = 0


Found = tuple[Literal["ok", "warn", "skip", "FAIL"], str]


def checks(pipeline: str, dataset: str, destination: str) -> Iterator[Outcome]:
    """Yield what was checked, one after another."""
    found: dict[str, Sample | None] = {"sample": None}

    def warehouse(settings: Settings) -> Found:
        target = known_target(pipeline, dataset, destination)
        found["sample"], outcome = _check_warehouse(settings, target)
        return outcome

    def target(settings: Settings) -> Found:
        return _check_destination(settings, pipeline, dataset, destination)

    def api_key(settings: Settings) -> Found:
        return check_api_key(settings, found["sample"])

    def missing(settings: Settings) -> Found:
        known = known_target(pipeline, dataset, destination)
        return _check_missing(settings, known, found["sample"])

    try:
        settings = resolve_settings()
        settings.require_credentials()
    except EsmsError as exc:
        yield Outcome("settings", "FAIL", str(exc), exc.exit_code)
        return
    where = Path(dlt.current.run_context().run_dir).resolve()
    asking = f"complete, in {where}; asking {settings.base_url}"
    yield Outcome("settings", "ok", asking)
    steps: tuple[tuple[str, Callable[[Settings], Found]], ...] = (
        ("warehouse", warehouse),
        ("destination", target),
        ("rate limit", _check_rate_limit),
        ("API key", api_key),
        ("missing RefIds", missing),
        ("other endpoints", _check_names),
    )
    for name, step in steps:
        try:
            status, said = step(settings)
        except EsmsError as exc:
            yield Outcome(name, "FAIL", str(exc), exc.exit_code)
        else:
            yield Outcome(name, status, said, int(status == "FAIL"))


def known_target(pipeline: str, dataset: str, destination: str) -> dlt.Pipeline | None:
    """Open the destination where there is one; what is wrong is said elsewhere."""
    try:
        with reporting_errors():
            target = open_pipeline(destination, dataset, pipeline)
            check_destination(target)
            return target if _is_there(target) else None
    except EsmsError:
        return None


def _check_warehouse(
    settings: Settings, target: dlt.Pipeline | None
) -> tuple[Sample | None, Found]:
    """Compare the whole table with the ledger; return one RefId and what was found."""
    found = compare(settings, target, Clock().started_at)
    words = f"{found.rows} rows, {found.unknown} of them not in the ledger"
    said = "; ".join([words, *found.remedies()])
    skipped = found.skipped
    if found.rows and found.sample is None:
        return None, ("FAIL", said)
    is_odd = skipped.total or skipped.unreadable or skipped.in_future or found.late
    return found.sample, ("warn" if is_odd else "ok", said)


def _check_destination(
    settings: Settings, pipeline: str, dataset: str, destination: str
) -> Found:
    with (
        reporting_errors(),
        own_pipeline(open_pipeline(destination, dataset, pipeline)) as target,
    ):
        check_destination(target, settings)
        check_grants(target)
        path = url_of(target) or _file_of(target)
        known = _count(target) if _is_there(target) else 0
        index = missing_index(target) if known >= LARGE_LEDGER else None
    where = f"{destination} ({path})" if path else destination
    said = f"{where}, dataset {dataset}: {known} RefIds in the ledger"
    if index is None:
        return "ok", said
    return "warn", f"{said}, and no index on its key; merges are faster with {index}"


def _file_of(target: dlt.Pipeline) -> str | None:
    client = target.sql_client()
    path = local_file(client) or sqlite_file(client)
    return None if path is None else str(path)


def _is_there(target: dlt.Pipeline) -> bool:
    """Tell whether there can be a ledger: a file is made by a run, not by looking."""
    path = _file_of(target)
    return path is None or Path(path).exists()


def _count(target: dlt.Pipeline) -> int:
    """Compare the tables with what a run loads, and count the ledger."""
    target.sync_destination()
    check_tables(target)
    with reading(target, REF_IDS) as client:
        if columns_of(client, REF_IDS.name) is None:
            return 0
        name = client.make_qualified_table_name(REF_IDS.name)
        rows = execute(client, f"SELECT count(*) FROM {name}")
    return int(rows[0][0]) if rows else 0


def _check_rate_limit(settings: Settings) -> Found:
    limiter = open_limiter(settings, Stop())
    words = f"at most {settings.requests_per_second:g} requests a second"
    limiter.close()
    if not isinstance(limiter, SharedRateLimiter):
        return "ok", f"{words}, by this process alone"
    kind = settings.rate_limit_store.partition(":")[0]
    return "ok", f"{words}, by all processes with this key and {kind} store"


def check_api_key(settings: Settings, sample: Sample | None) -> Found:
    """Spend one request on a RefId of the warehouse."""
    if sample is None:
        return "skip", "not tried: there is no RefId to ask for"
    stop = Stop()
    door = callback_door(settings, stop, Backoff(), None)
    return _try(door, stop, sample)


def _check_missing(
    settings: Settings, target: dlt.Pipeline | None, sample: Sample | None
) -> Found:
    """Count what GetCallback has no row of, and try who else may know it."""
    missing, due = (0, 0) if target is None else _count_missing(target, settings)
    said = f"{missing} RefIds have no row at GetCallback"
    if not settings.ask_missing:
        remedy = "; ask_missing = true asks QueryZnsStatus for them"
        return "ok", said + remedy * bool(missing)
    if not settings.asks_missing:
        return "warn", NOWHERE_TO_ASK
    rate = settings.query_requests_per_second
    said += f"; {due} RefIds are asked of QueryZnsStatus by the next run that they are"
    said += f" due in: {due / rate:.0f} s at {rate:g} requests/s"
    if sample is None:
        return "skip", f"{said}; not tried: there is no RefId to ask for"
    stop = Stop()
    door = query_door(settings, stop, Backoff())
    try:
        status, tried = _try(door, stop, sample, QUERY)
    except EsmsError as exc:
        # A run goes on without it.
        status, tried = "warn", str(exc)
    return status, f"{said}; QueryZnsStatus: {tried}"


def _check_names(settings: Settings) -> Found:
    """Spend one request on the names of the account's OAs."""
    url = settings.rest_url
    if url is None:
        return "skip", "not asked, as base_url isn't eSMS's own; see rest_base_url"
    try:
        names = list_oas(settings, url, Stop())
    except EsmsError as exc:
        return "warn", f"{url} doesn't tell the OAs' names: {exc}"
    known = ", ".join(f"{name} ({oa_id})" for oa_id, name in sorted(names.items()))
    return "ok", f"{url} names {len(names)} OAs: {known}"


def _count_missing(target: dlt.Pipeline, settings: Settings) -> tuple[int, int]:
    """Return how many RefIds are missing, and for how many their time has come."""
    with reporting_errors(), reading(target, REF_IDS) as client:
        if columns_of(client, REF_IDS.name) is None:
            return 0, 0
        before = moment_literal(Clock().started_at - query_after(settings))
        rows = execute(
            client,
            f"SELECT count(*), sum(CASE WHEN first_polled_at <= {before} THEN 1 ELSE 0"
            f" END) FROM {client.make_qualified_table_name(REF_IDS.name)}"
            " WHERE state = 'missing'",
        )
    ((missing, due),) = rows or [(0, 0)]
    return int(missing), int(due or 0)


def _try(door: Door, stop: Stop, sample: Sample, endpoint: str = CALLBACK) -> Found:
    """Spend one request."""
    oa_id, ref_id = sample
    work = pa.table({"ref_id": [ref_id]})
    client, limiter = door.client, door.limiter
    types = SMS_TYPES if endpoint == QUERY else ()
    request = Request(oa_id, work, endpoint=endpoint, sms_types=types)
    try:
        slot = limiter.acquire()
        if slot is None:
            return "skip", f"not tried: {stop.reason}"
        client.ask(request, lambda: limiter.sent(slot))
    except OaRefusedError as exc:
        return "warn", f"accepted, but {exc}"
    except RetryableApiError as exc:
        raise EsmsError(
            f"not known, as the API gave no usable answer: {exc}", remedy_for(exc)
        ) from exc
    finally:
        client.close()
        limiter.close()
    return "ok", "accepted"
