"""The same job on airbyte-cdk: a concurrent stream with an API budget.

Source: the CDK's HttpStream, ConcurrentSourceAdapter and HttpAPIBudget. It writes
records to stdout; loading them is the work of a destination in another process.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
from airbyte_cdk.entrypoint import launch, logger
from airbyte_cdk.models import ConnectorSpecification
from airbyte_cdk.sources.concurrent_source.concurrent_source import ConcurrentSource
from airbyte_cdk.sources.concurrent_source.concurrent_source_adapter import (
    ConcurrentSourceAdapter,
)
from airbyte_cdk.sources.message import InMemoryMessageRepository
from airbyte_cdk.sources.streams.call_rate import (
    HttpAPIBudget,
    MovingWindowCallRatePolicy,
    Rate,
)
from airbyte_cdk.sources.streams.concurrent.adapters import StreamFacade
from airbyte_cdk.sources.streams.concurrent.cursor import FinalStateCursor
from airbyte_cdk.sources.streams.http import HttpStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WORKERS = 16
RATE = int(os.environ["BENCH_RATE"])


def budget() -> HttpAPIBudget:
    """Return the budget of calls; none when the limit is lifted."""
    rates = [Rate(RATE, timedelta(seconds=1))]
    policies = [MovingWindowCallRatePolicy(rates=rates, matchers=[])] if RATE else []
    return HttpAPIBudget(policies=policies)


class Callbacks(HttpStream):
    """Ask for 200 RefIds of one OA per slice."""

    url_base = os.environ["BENCH_URL"]
    http_method = "POST"
    primary_key = "SMSID"

    def path(self, **_: Any) -> str:
        return "/ZaloCallback/GetCallback"

    def stream_slices(self, **_: Any) -> Iterable[Mapping[str, Any]]:
        with duckdb.connect(os.environ["BENCH_WAREHOUSE"], read_only=True) as warehouse:
            oa_ids = warehouse.execute("SELECT DISTINCT oa FROM sent").fetchall()
            for (oa_id,) in oa_ids:
                rows = warehouse.cursor().execute(
                    "SELECT ref_id FROM sent WHERE oa = ?", [oa_id]
                )
                while chunk := rows.fetchmany(200):
                    yield {"oa_id": oa_id, "ref_ids": [ref_id for (ref_id,) in chunk]}

    def request_body_json(
        self, stream_slice: Mapping[str, Any] | None = None, **_: Any
    ) -> Mapping[str, Any]:
        asked = stream_slice or {}
        return {
            "ApiKey": "K",
            "SecretKey": "S",
            "OAId": asked["oa_id"],
            "ListRefid": asked["ref_ids"],
        }

    def parse_response(self, response: Any, **_: Any) -> Iterable[Mapping[str, Any]]:
        yield from response.json()["Data_callback"]

    def next_page_token(self, response: Any) -> None:
        return None

    def get_json_schema(self) -> Mapping[str, Any]:
        return {"type": "object", "additionalProperties": True, "properties": {}}


class Source(ConcurrentSourceAdapter):
    """A source of one stream."""

    message_repository = InMemoryMessageRepository()

    def __init__(self) -> None:
        concurrent = ConcurrentSource.create(
            WORKERS, WORKERS // 2, logger, self._slice_logger, self.message_repository
        )
        super().__init__(concurrent)

    def check_connection(self, *_: Any) -> tuple[bool, None]:
        return True, None

    def spec(self, *_: Any) -> ConnectorSpecification:
        return ConnectorSpecification(connectionSpecification={})

    def streams(self, config: Mapping[str, Any]) -> list[Any]:
        stream = Callbacks(api_budget=budget())
        cursor = FinalStateCursor(stream.name, None, self.message_repository)
        return [StreamFacade.create_from_stream(stream, self, logger, {}, cursor)]


if __name__ == "__main__":
    launch(Source(), sys.argv[1:])
