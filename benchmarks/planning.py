"""Measure a plan of new RefIds: seconds, CPU and memory, of one or more source trees.

``python benchmarks/planning.py --trees . ../other`` measures the trees in turn, as a
machine's speed drifts. With ``--doubles 0.1`` a tenth of the RefIds comes twice, with
``--known 0.5`` half of them is in the ledger. Linux only, as ``measuring``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from ledgers import make_warehouse, open_duckdb
from measuring import Usage, run

MILLION = 1_000_000

PLAN = """
import sys
from datetime import datetime, timezone
import dlt
from esms_source.cli.memory import tune
from esms_source.config import resolve_settings
from esms_source.planning.planner import Choice, make_plan
tune()
target = dlt.destinations.duckdb(sys.argv[1])
pipeline = dlt.pipeline("bench", destination=target, dataset_name="zalo")
as_of = datetime(2026, 6, 1, tzinfo=timezone.utc)
plan = make_plan(pipeline, resolve_settings(), Choice(), as_of)
print(plan.total, file=sys.stderr)
plan.close()
"""
LEDGER = """
CREATE SCHEMA zalo;
CREATE TABLE zalo._dlt_loads AS SELECT 'done' AS load_id, 0 AS status;
CREATE TABLE zalo.ref_ids AS
SELECT oa AS oa_id, ref_id, sent_at, 'final' AS state, 1::BIGINT AS attempts,
    sent_at AS first_polled_at, sent_at AS last_polled_at,
    NULL::TIMESTAMPTZ AS next_poll_at, NULL::VARCHAR AS last_error, false AS chosen,
    sent_at AS first_answered_at, NULL::TIMESTAMPTZ AS failed_since,
    sent_at AS final_at, 'done' AS load_id, campaign
FROM w.sent WHERE hash(ref_id, 1) % 1000 < ?
"""


def main() -> None:
    """Make a warehouse, then plan over it with each tree in turn."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--ref-ids", type=float, default=10, help="Millions of them.")
    words.add_argument("--doubles", type=float, default=0.0)
    words.add_argument("--known", type=float, default=0.0)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--python", default=sys.executable)
    words.add_argument("--trees", nargs="+", type=Path, default=[Path()])
    said = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="esms-bench-") as name:
        folder = Path(name)
        fill(folder, round(said.ref_ids * MILLION), said.doubles, said.known)
        taken: dict[Path, list[Usage]] = {tree: [] for tree in said.trees}
        for _ in range(said.rounds):
            for tree in said.trees:
                usage = plan(folder, tree.resolve(), said.python)
                taken[tree].append(usage)
                print(tree, figures([usage]), usage.log.strip()[-300:], flush=True)
                folder.joinpath("log").unlink()
        for tree, usages in taken.items():
            print(f"{tree}: median {figures(usages)}")


def fill(folder: Path, ref_ids: int, doubles: float, known: float) -> None:
    """Make the warehouse, and a ledger of a part of it."""
    make_warehouse(folder / "warehouse.duckdb", ref_ids)
    with open_duckdb(folder / "warehouse.duckdb") as connection:
        connection.execute(
            "INSERT INTO sent SELECT oa, ref_id, sent_at + INTERVAL 1 MINUTE, campaign"
            " FROM sent WHERE hash(ref_id) % 1000 < ?",
            [round(doubles * 1_000)],
        )
    if known:
        with open_duckdb(folder / "out.duckdb") as connection:
            warehouse = folder / "warehouse.duckdb"
            connection.execute(f"ATTACH '{warehouse}' AS w (READ_ONLY)")
            for statement in LEDGER.split(";"):
                given = [round(known * 1_000)] if "?" in statement else []
                connection.execute(statement, given)


def plan(folder: Path, tree: Path, python: str) -> Usage:
    """Plan once, in a process of its own."""
    names = {
        "CREDENTIALS": folder / "warehouse.duckdb",
        "TABLE": "sent",
        "OA_ID_COLUMN": "oa",
        "SENT_AT_COLUMN": "sent_at",
        "CARRY": '["campaign"]',
        "LAG": 1e9,
    }
    environment = {
        f"SOURCES__ESMS__REF_IDS__{name}": str(value) for name, value in names.items()
    } | {"PYTHONPATH": str(tree), "DLT_DATA_DIR": str(folder / "dlt")}
    return run([python, "-c", PLAN, folder / "out.duckdb"], environment, folder)


def figures(usages: list[Usage]) -> str:
    """Return the medians of what plans took."""
    return (
        f"{median(usage.seconds for usage in usages):.1f} s,"
        f" {median(usage.cpu_seconds for usage in usages):.1f} CPU s,"
        f" {median(usage.peak_mb for usage in usages):.0f} MB"
    )


if __name__ == "__main__":
    main()
