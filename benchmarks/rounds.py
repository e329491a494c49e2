"""Rounds with nothing due in one process, as ``esms run --every`` makes them.

``python benchmarks/rounds.py 1000`` in a folder whose settings are in the environment
prints CPU seconds a round and megabytes that came after the first tenth. Linux only.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from statistics import median

from esms_source import sync
from esms_source.cli.memory import tune
from esms_source.load.destination import open_pipeline


def cpu_seconds() -> float:
    """Return user and system time so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_mb() -> float:
    """Return the memory of this process as it is now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Run so many rounds and print what they took."""
    rounds = int(sys.argv[1])
    tune()
    pipeline = open_pipeline("duckdb", "zalo", "esms")
    taken, first = [], 0.0
    for number in range(rounds):
        before = cpu_seconds()
        sync(pipeline)
        taken.append(cpu_seconds() - before)
        if number == rounds // 10:
            first = memory_mb()
    grown = memory_mb() - first
    print(json.dumps({"cpu_seconds": median(taken), "grown_mb": grown}))


if __name__ == "__main__":
    main()
