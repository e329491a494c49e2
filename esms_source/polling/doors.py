"""The endpoints that RefIds are asked at: each with a client and a pace of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from esms_source.api.endpoints import CallbackClient, QueryClient
from esms_source.polling.batches import batches, queries
from esms_source.polling.shared_rate_limit import open_limiter
from esms_source.tables import QUERY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from esms_source.api.client import Client
    from esms_source.api.request import Request
    from esms_source.config import Settings
    from esms_source.polling.backoff import Backoff
    from esms_source.polling.rate_limit import RateLimiter
    from esms_source.runtime import Stop

GROUP_REQUESTS: Final = 50
"""Requests to GetCallback that are turned into tables at once."""

GROUP_QUERIES: Final = 200
"""The same for QueryZnsStatus: they make one row of ``api_requests``."""


@dataclass(frozen=True)
class Door:
    """An endpoint as a run asks it.

    Attributes:
        client: What sends a request.
        limiter: When the next one may leave.
        cut: Makes requests of some work.
        group: How many of them are turned into tables at once.
        pauses: Another endpoint's pace, which falls silent when this one is refused:
            nobody says whether eSMS counts both together.
    """

    client: Client
    limiter: RateLimiter
    cut: Callable[[Iterable[pa.Table]], Iterator[Request]]
    group: int
    pauses: RateLimiter | None = None


def callback_door(
    settings: Settings, stop: Stop, backoff: Backoff, queries: Door | None
) -> Door:
    """Return the door of GetCallback.

    Raises:
        ConfigError: The shared budget can't be opened.
    """
    return Door(
        CallbackClient(settings),
        open_limiter(settings, stop, backoff.refused),
        partial(batches, size=settings.batch_size),
        GROUP_REQUESTS,
        None if queries is None else queries.limiter,
    )


def query_door(settings: Settings, stop: Stop, backoff: Backoff) -> Door:
    """Return the door of QueryZnsStatus.

    Raises:
        ConfigError: The shared budget can't be opened.
    """
    return Door(
        QueryClient(settings, str(settings.rest_url)),
        open_limiter(settings, stop, backoff.refused, QUERY),
        partial(queries, type_id=settings.ref_ids.type_id),
        GROUP_QUERIES,
    )
