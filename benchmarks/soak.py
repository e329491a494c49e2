"""An hour of schedule in minutes: runs every few seconds, faults on, statuses moving.

Prints a line per tenth of the runs, then checks that the sums are right and that
neither memory nor the time of a run has grown.

    python benchmarks/soak.py --runs 120 --new 300
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from hashlib import md5
from pathlib import Path
from typing import Any

import dlt
import duckdb

from esms_source import sync
from esms_source.simulator import Behaviour, Simulator, sample_row

FAULTS = "500=0.05,429=0.02,drop=0.05,cut=0.05,html=0.03,code99=0.05"
MOST_GROWTH_MIB = 60
MOST_SLOWER = 2.0


class World:
    """A warehouse that grows, and messages whose statuses move."""

    def __init__(self, folder: Path, new: int) -> None:
        self.count = 0
        self._new = new
        self.warehouse = folder / "warehouse.duckdb"
        self.fates: dict[str, Any] = {}
        with duckdb.connect(self.warehouse) as connection:
            connection.execute(
                "CREATE TABLE sent (oa_id VARCHAR, ref_id VARCHAR, sent_at TIMESTAMPTZ)"
            )

    def grow(self) -> None:
        """Add new messages; every fifth of them takes a few polls to settle."""
        numbers = range(self.count, self.count + self._new)
        self.count += self._new
        now = datetime.now(timezone.utc)
        rows = []
        for number in numbers:
            ref_id = md5(str(number).encode()).hexdigest()  # noqa: S324  no secret
            rows.append((f"oa{number % 3}", ref_id, now))
            if number % 5 == 0:
                self.fates[ref_id] = slowly
        with duckdb.connect(self.warehouse) as connection:
            connection.executemany("INSERT INTO sent VALUES (?, ?, ?)", rows)


def slowly(ref_id: str, times_asked: int) -> list[object]:
    """Answer nothing, then that it is under way, then that it is delivered."""
    if times_asked == 1:
        return []
    status = 1 if times_asked == 2 else 5  # noqa: PLR2004
    return [sample_row(ref_id, SendStatus=status, SendSuccess=1, SendFailed=0)]


def memory_mib() -> float:
    """Return the memory of this process as it is now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(folder: Path, runs: int, new: int) -> bool:
    """Run it all; return whether everything was right."""
    world = World(folder, new)
    pipeline = dlt.pipeline(
        "soak",
        destination=dlt.destinations.duckdb(str(folder / "soak.duckdb")),
        dataset_name="zalo",
        pipelines_dir=str(folder / "pipelines"),
    )
    behaviour = Behaviour(
        plain=True, rate=None, faults=FAULTS, scripted=world.fates, seed=1
    )
    settings: dict[str, Any] = {
        "api_key": "soak",
        "secret_key": "soak",
        "requests_per_second": 200,
        "max_in_flight": 8,
        "repoll_after": 2,
        "repoll_max": 4,
        "max_attempts": 8,
        "ref_ids": {
            "credentials": str(world.warehouse),
            "table": "sent",
            "oa_id_column": "oa_id",
            "sent_at_column": "sent_at",
        },
    }
    seconds: list[float] = []
    memory: list[float] = []
    asked = attempts = 0
    with Simulator(behaviour) as simulator:
        settings["base_url"] = simulator.url
        for number in range(1, runs + 1):
            world.grow()
            began = time.monotonic()
            report = sync(pipeline, **settings)
            seconds.append(time.monotonic() - began)
            memory.append(memory_mib())
            asked += report.asked
            attempts += report.attempts
            if number % max(runs // 10, 1) == 0:
                print(
                    f"run {number}: {world.count} messages, {asked} asked,"
                    f" {statistics.median(seconds[-10:]):.2f} s a run,"
                    f" {memory[-1]:.0f} MiB"
                )
        for _ in range(10):
            time.sleep(5)
            report = sync(pipeline, **settings)
            asked += report.asked
            attempts += report.attempts
        arrivals = simulator.arrivals
        arrived, faults = arrivals.requests, sum(arrivals.faults.values())
    with duckdb.connect(folder / "soak.duckdb") as connection:
        connection.execute("USE zalo")
        states = Counter(
            dict(
                connection.execute(
                    "SELECT state, count(*) FROM ref_ids GROUP BY 1"
                ).fetchall()
            )
        )
        (callbacks, distinct), *_ = connection.execute(
            "SELECT count(*), count(DISTINCT ref_id) FROM callbacks"
        ).fetchall()
        (booked_asked, booked_attempts), *_ = connection.execute(
            "SELECT sum(asked) FILTER (outcome <> 'split'), sum(attempts)"
            " FROM api_requests"
        ).fetchall()
    half = len(seconds) // 2
    first, last = seconds[half // 2 : half], seconds[-half // 2 :]
    checks = {
        f"all {world.count} messages are final": states == {"final": world.count},
        "one callback each": callbacks == distinct == world.count,
        f"{arrived} requests are booked": booked_attempts == attempts == arrived,
        f"{asked} RefIds asked are booked": booked_asked == asked,
        f"{faults} faults were met": faults > 0,
        f"memory grew by {memory[-1] - memory[half]:.0f} MiB in the second half": (
            memory[-1] - memory[half] < MOST_GROWTH_MIB
        ),
        f"a run took {statistics.median(first):.2f} s,"
        f" at last {statistics.median(last):.2f} s": (
            statistics.median(last) < MOST_SLOWER * statistics.median(first)
        ),
    }
    for fact, is_right in checks.items():
        print(f"{'ok  ' if is_right else 'FAIL'}  {fact}")
    return all(checks.values())


def main() -> None:
    """Read the arguments and soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=120)
    parser.add_argument("--new", type=int, default=300, help="messages per run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="esms-soak-") as folder:
        if not soak(Path(folder), arguments.runs, arguments.new):
            sys.exit(1)


if __name__ == "__main__":
    main()
