"""The same job on singer-sdk: a REST stream that asks batch after batch.

Source: the SDK's RESTStream. It asks in sequence and has no limiter, so a library
keeps the rate. It writes records to stdout; loading is a target's work.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import duckdb
from pyrate_limiter import Duration, Limiter, Rate
from singer_sdk import Tap
from singer_sdk import typing as th
from singer_sdk.streams import RESTStream

if TYPE_CHECKING:
    from collections.abc import Iterable

RATE = int(os.environ["BENCH_RATE"])
LIMITER = Limiter(Rate(RATE, Duration.SECOND)) if RATE else None
TEXTS = "SMSID RequestId PhoneNumber CallbackUrl Partnerids ErrorInfo OAId ZnsTempId"
NUMBERS = "SendFailed SendSuccess SendStatus TotalReceiver TotalSent TypeId Telcoid"


class Callbacks(RESTStream[None]):
    """Ask for 200 RefIds of one OA per request."""

    name = "callbacks"
    path = "/ZaloCallback/GetCallback"
    http_method = "POST"
    primary_keys = ("SMSID",)
    records_jsonpath = "$.Data_callback[*]"
    url_base = os.environ["BENCH_URL"]
    schema = th.PropertiesList(
        *(th.Property(name, th.StringType) for name in TEXTS.split()),
        *(th.Property(name, th.IntegerType) for name in NUMBERS.split()),
        th.Property("TotalPrice", th.NumberType),
    ).to_dict()

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        with duckdb.connect(os.environ["BENCH_WAREHOUSE"], read_only=True) as warehouse:
            oa_ids = warehouse.execute("SELECT DISTINCT oa FROM sent").fetchall()
            for (oa_id,) in oa_ids:
                rows = warehouse.cursor().execute(
                    "SELECT ref_id FROM sent WHERE oa = ?", [oa_id]
                )
                while chunk := rows.fetchmany(200):
                    asked = {"oa_id": oa_id, "ref_ids": [ref_id for (ref_id,) in chunk]}
                    if LIMITER:
                        LIMITER.try_acquire("esms")
                    yield from self.request_records(asked)

    def prepare_request_payload(
        self, context: Any, next_page_token: None
    ) -> dict[str, Any]:
        return {
            "ApiKey": "K",
            "SecretKey": "S",
            "OAId": context["oa_id"],
            "ListRefid": context["ref_ids"],
        }


class TapEsms(Tap):
    """A tap of one stream."""

    name = "tap-esms"

    def discover_streams(self) -> list[Callbacks]:
        return [Callbacks(tap=self)]


if __name__ == "__main__":
    TapEsms.cli()
