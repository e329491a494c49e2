"""Ask a server without end, through a shared budget: URL, store, number."""

from __future__ import annotations

import sys

import pyarrow as pa

from esms_source.config import resolve_settings
from esms_source.ledger import WORK
from esms_source.session import Session


def main(base_url: str, store: str, number: str) -> None:
    """Ask for one RefId after another."""
    settings = resolve_settings(
        base_url=base_url, rate_limit_store=store, batch_size=1, max_in_flight=8
    )
    rows = [{"oa_id": "oa", "ref_id": f"{number}-{i}"} for i in range(2_000)]
    with Session(settings) as session:
        for _ in session.ask([[pa.Table.from_pylist(rows, WORK)]], "load"):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
