"""The same job in plain dlt, as its docs write it: a parallelised transformer.

Source: dlt's docs on parallelised resources, its requests helper and rate limits
("use a rate-limiting library").
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import dlt
import duckdb
from dlt.sources.helpers import requests
from pyrate_limiter import Duration, Limiter, Rate

URL = os.environ["BENCH_URL"] + "/ZaloCallback/GetCallback"
RATE = int(os.environ["BENCH_RATE"])
FILE_FORMAT: Any = sys.argv[1] if len(sys.argv) > 1 else None
LIMITER = Limiter(Rate(RATE, Duration.SECOND)) if RATE else None


@dlt.resource(selected=False)
def batches() -> Iterator[Any]:
    """Yield RefIds of one OA, 200 at a time."""
    with duckdb.connect(os.environ["BENCH_WAREHOUSE"], read_only=True) as warehouse:
        for (oa_id,) in warehouse.execute("SELECT DISTINCT oa FROM sent").fetchall():
            rows = warehouse.cursor().execute(
                "SELECT ref_id FROM sent WHERE oa = ?", [oa_id]
            )
            while chunk := rows.fetchmany(200):
                yield {"oa_id": oa_id, "ref_ids": [ref_id for (ref_id,) in chunk]}


@dlt.transformer(
    data_from=batches,
    primary_key="SMSID",
    write_disposition="merge",
    file_format=FILE_FORMAT,
    parallelized=True,
)
def callbacks(batch: dict[str, Any]) -> Any:
    """Ask for one batch."""
    if LIMITER:
        LIMITER.try_acquire("esms")
    body = {
        "ApiKey": "K",
        "SecretKey": "S",
        "OAId": batch["oa_id"],
        "ListRefid": batch["ref_ids"],
    }
    return requests.post(URL, json=body).json()["Data_callback"]


if __name__ == "__main__":
    pipeline = dlt.pipeline(
        "plain",
        destination=dlt.destinations.duckdb("plain.duckdb"),
        dataset_name="zalo",
        pipelines_dir="pipelines",
    )
    pipeline.run(callbacks())
