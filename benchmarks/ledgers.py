"""Warehouses and ledgers of any size, made by SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from pathlib import Path


def open_duckdb(path: Path) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB file that draws no progress bars into the output."""
    connection = duckdb.connect(path)
    connection.execute("SET enable_progress_bar = false")
    return connection


def make_warehouse(path: Path, ref_ids: int, first: int = 0) -> None:
    """Make a DuckDB file with a table ``sent``: three OAs, spread over 100 days."""
    with open_duckdb(path) as connection:
        connection.execute(
            "CREATE TABLE sent AS SELECT 'oa' || (i % 3) AS oa,"
            " md5(i::VARCHAR) || (100 + i % 900) AS ref_id,"
            " TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(i * 8640000.0 / ?)"
            " AS sent_at, 'campaign ' || (i % 5) AS campaign"
            " FROM range(?, ?) AS numbers(i)",
            [first + ref_ids, first, first + ref_ids],
        )


def settle(ledger: Path, warehouse: Path) -> None:
    """Let a ledger hold a whole warehouse, all of it settled when it was sent.

    Each RefId has a callback.
    """
    ids = "sent.oa AS oa_id, sent.ref_id AS ref_id"
    known = "sent.sent_at AS sent_at, sent.campaign AS campaign"
    polled = "sent.sent_at AS first_polled_at, sent.sent_at AS last_polled_at"
    final = f"{ids}, {known}, {polled}, 'final' AS state, NULL AS next_poll_at"
    answered = f"{ids}, sent.sent_at AS polled_at"
    with open_duckdb(ledger) as connection:
        connection.execute(f"ATTACH '{warehouse}' AS w (READ_ONLY)")
        for table, replaced in (("zalo.ref_ids", final), ("zalo.callbacks", answered)):
            connection.execute(f"CREATE TEMP TABLE one AS FROM {table} LIMIT 1")
            connection.execute(f"TRUNCATE {table}")
            connection.execute(
                f"INSERT INTO {table} BY NAME"  # noqa: S608  names of ours
                f" SELECT one.* REPLACE ({replaced}) FROM w.sent, one"
            )
            connection.execute("DROP TABLE one")


def add_new(warehouse: Path, ref_ids: int, label: str) -> None:
    """Add RefIds sent in the two days after all others.

    Args:
        warehouse: Where to.
        ref_ids: How many.
        label: Makes them differ from those that were added before.
    """
    with open_duckdb(warehouse) as connection:
        connection.execute(
            "INSERT INTO sent SELECT 'oa' || (i % 3), md5(? || ' new ' || i), newest"
            " + to_seconds(i * 172800.0 / ?), 'new' FROM range(?) AS numbers(i),"
            " (SELECT max(sent_at) AS newest FROM sent)",
            [label, ref_ids, ref_ids],
        )


def make_due(ledger: Path, ref_ids: int) -> None:
    """Make so many settled RefIds due again."""
    with open_duckdb(ledger) as connection:
        connection.execute(
            "UPDATE zalo.ref_ids SET state = 'pending', next_poll_at = first_polled_at"
            " WHERE ref_id IN (SELECT ref_id FROM zalo.ref_ids LIMIT ?)",
            [ref_ids],
        )
