"""Measure this package and its peers; write the tables of RESULTS.md.

``make bench`` takes some twenty-five minutes; ``python benchmarks/run.py --quick``
two, with figures that only show that everything works. Linux only: CPU time and
memory are read from /proc and wait4.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from contenders import HERE, OURS, ROOT, Contender, contenders, esms, python_of
from ledgers import add_new, make_due, make_warehouse, settle
from measuring import Usage, run, run_until_killed, serving
from page import MILLION, RATE, Figure, Score, comparison, listing, shown, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from measuring import Server

ROUNDS = 3
MIDDLE_LATENCY = 0.5
BATCH = 200


@dataclass(frozen=True)
class Sizes:
    """How much is measured, in RefIds."""

    peers: int = 200_000
    rate: int = 80_000
    whole: tuple[int, ...] = (200_000, MILLION)
    lifted: int = MILLION
    large: int = 4 * MILLION
    ledger: int = 10 * MILLION
    ledgers: tuple[int, ...] = (MILLION, 10 * MILLION)
    due: int = 10_000
    daily: int = 240_000
    rounds: int = 200


QUICK = Sizes(
    4_000, 8_000, (8_000,), 20_000, 40_000, 100_000, (20_000, 100_000), 1_000, 4_000, 20
)


class Bench:
    """All measurements, in a folder that is gone afterwards.

    Args:
        sizes: How much is measured.
        folder: Where warehouses and results go.
    """

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes = sizes
        self._folder = folder
        self._made = 0

    def compare(self, entered: list[Contender]) -> list[Score]:
        """Measure contenders in turn, several times: a machine's speed drifts."""
        speeds: dict[str, list[tuple[Usage, float]]] = {}
        for number in range(1, ROUNDS + 1):
            for contender in entered:
                say(f"{contender.name}: limit lifted, round {number}")
                warehouse = self.warehouse(self._ref_ids(contender))
                speeds.setdefault(contender.name, []).append(
                    self._lift(contender, warehouse)
                )
        return [
            self._score(contender, *_median(speeds[contender.name]))
            for contender in entered
        ]

    def _ref_ids(self, contender: Contender) -> int:
        return min(self.sizes.peers, contender.most_ref_ids)

    def _lift(self, contender: Contender, warehouse: Path) -> tuple[Usage, float]:
        """Run without a limit; return what it took, and the server's share."""
        with serving() as server:
            usage = self.run(contender, server, warehouse)
            share = server.cpu_seconds / usage.seconds / (os.cpu_count() or 1)
        return usage, share

    def _score(self, contender: Contender, usage: Usage, share: float) -> Score:
        """Measure the rest of a contender: rate kept, cost of a crash."""
        ref_ids = self._ref_ids(contender)
        say(f"{contender.name}: told {RATE} a second")
        with serving(latency=0.05) as server:
            some = self.warehouse(min(self.sizes.rate, contender.most_ref_ids))
            self.run(contender, server, some, rate=RATE)
            seen = server.stats()
        used = (seen["requests"] - 1) / seen["seconds"] / RATE
        say(f"{contender.name}: killed half way")
        again = self._asked_again(contender, self.warehouse(ref_ids), ref_ids)
        most = seen["most_in_one_second"]
        return Score(
            contender.name, ref_ids, usage, share, most, used, again, contender.loads
        )

    def figures(self) -> Iterator[Figure]:
        """Measure this package alone."""
        yield from self._rates()
        yield from self._whole_runs()
        yield from self._lifted()
        yield from self._ledger()
        yield from self._rounds()
        usage = run(
            esms("--help"), {"PYTHONPATH": str(ROOT)}, self.folder()
        ).require_success()
        yield Figure("`esms --help`", f"{usage.seconds:.2f} s")

    def _rates(self) -> Iterator[Figure]:
        for latency in (0.05, MIDDLE_LATENCY, 2.0):
            say(f"rate at {latency} s latency")
            with serving(latency) as server:
                self.run(OURS, server, self.warehouse(self.sizes.rate), rate=RATE)
                seen = server.stats()
            used = (seen["requests"] - 1) / seen["seconds"] / RATE
            yield Figure(
                f"at {latency} s latency, share of {RATE} requests/s used"
                " and most in a second",
                f"{used:.1%}, {seen['most_in_one_second']}",
                in_readme=latency == MIDDLE_LATENCY,
            )

    def _whole_runs(self) -> Iterator[Figure]:
        for ref_ids in self.sizes.whole:
            say(f"{ref_ids:,} RefIds at {RATE} a second")
            with serving(latency=0.05) as server:
                usage = self.run(OURS, server, self.warehouse(ref_ids), rate=RATE)
            ratio = usage.seconds / (ref_ids / BATCH / RATE)
            what = f"`esms run` of {ref_ids:,} RefIds, as a multiple of the API's time"
            yield Figure(
                what,
                f"{ratio:.3f}, {usage.peak_mb:.0f} MB",
                in_readme=ref_ids == self.sizes.whole[-1],
            )

    def _lifted(self) -> Iterator[Figure]:
        peaks = []
        for ref_ids, rounds in ((self.sizes.lifted, ROUNDS), (self.sizes.large, 1)):
            say(f"{ref_ids:,} RefIds, limit lifted")
            usage, share = _median(
                [self._lift(OURS, self.warehouse(ref_ids)) for _ in range(rounds)]
            )
            peaks.append(usage.peak_mb)
            speed = ref_ids / usage.seconds
            cpu = usage.cpu_seconds / ref_ids * MILLION
            yield Figure(
                f"limit lifted, {ref_ids:,} RefIds (server: {share:.0%} of the CPUs)",
                f"{speed:,.0f} RefIds/s, {cpu:.1f} CPU s per million,"
                f" {usage.peak_mb:.0f} MB",
                in_readme=ref_ids == self.sizes.lifted,
            )
            yield Figure("where its time went", stages(usage))
        more = peaks[1] / peaks[0] - 1
        yield Figure("memory at four times the RefIds", f"{more:+.0%}")

    def _ledger(self) -> Iterator[Figure]:
        settled = {}
        for size in self.sizes.ledgers:
            say(f"a ledger of {size:,} RefIds")
            settled[size] = self._settled(size)
            if size == self.sizes.ledger:
                yield from self._nothing_due(*settled[size], size)
        yield self._growth(settled, self.sizes.peers, RATE, 1)
        yield self._growth(settled, self.sizes.peers, 0, ROUNDS)

    def _growth(
        self, settled: dict[int, tuple[Path, Path]], new: int, rate: int, rounds: int
    ) -> Figure:
        """Compare runs of new RefIds on a small and on a large ledger."""
        # Told a rate, a run mostly waits; without, two cores share what it does.
        what = "time" if rate else "CPU time"
        times: dict[int, list[float]] = {size: [] for size in settled}
        for number in range(rounds):
            for size, (folder, warehouse) in settled.items():
                say(f"{new:,} new RefIds on a ledger of {size:,}, round {number + 1}")
                apart(add_new, warehouse, new, f"{rate} {number}")
                with serving() as server:
                    usage = self.run(OURS, server, warehouse, rate=rate, folder=folder)
                times[size].append(usage.seconds if rate else usage.cpu_seconds)
        smallest, largest = (median(times[size]) for size in self.sizes.ledgers)
        before, after = self.sizes.ledgers
        limit = f"{rate} a second" if rate else "limit lifted"
        return Figure(
            f"more {what} for {new:,} new RefIds where the ledger has {after:,}"
            f" instead of {before:,}, {limit}",
            f"{largest / smallest - 1:+.0%}",
        )

    def _nothing_due(
        self, folder: Path, warehouse: Path, size: int
    ) -> Iterator[Figure]:
        with serving() as server:
            usage = self.run(OURS, server, warehouse, folder=folder)
            what = f"run with nothing due among {size:,}"
            yield _seconds(what, usage, in_readme=True)
            usage = self.run(OURS, server, warehouse, folder=folder, command="plan")
            yield _seconds(f"`esms plan` with {size:,} settled", usage)
            apart(make_due, folder / "out.duckdb", self.sizes.due)
            server.reset()
            usage = self.run(OURS, server, warehouse, folder=folder)
            waited = server.first_arrival() - usage.started_at
            what = f"first request with {self.sizes.due:,} due among {size:,}"
            yield Figure(what, f"{waited:.1f} s")
            apart(make_due, folder / "out.duckdb", self.sizes.daily)
            usage = self.run(OURS, server, warehouse, folder=folder)
            what = f"{self.sizes.daily:,} due among {size:,}, limit lifted"
            yield Figure(what, f"{usage.seconds:.1f} s, {usage.cpu_seconds:.1f} CPU s")
            yield Figure("where its time went", stages(usage))

    def _rounds(self) -> Iterator[Figure]:
        """Measure rounds of one process with nothing due, and an import of dlt."""
        number, folder = self.sizes.rounds, self.folder()
        warehouse = self.warehouse(BATCH)
        say(f"{number:,} rounds with nothing due")
        with serving() as server:
            self.run(OURS, server, warehouse, folder=folder)
            environment = OURS.environment(server.url, 0, warehouse, 240_000)
            command = python_of(OURS, HERE / "rounds.py", str(number), "--json")
            usage = run(command, environment, folder).require_success()
            taken = json.loads(usage.output)
            cpu, grown = taken["cpu_seconds"], taken["grown_mb"]
            said = f"{cpu:.2f} CPU s, {grown:+.0f} MB after the first tenth"
            yield Figure(f"a round of {number:,} with nothing due", said)
            idle = [self.run(OURS, server, warehouse, folder=folder) for _ in range(5)]
        imports = python_of(OURS, "-c", "import dlt, duckdb, pyarrow")
        dlt = [run(imports, {}, folder).require_success() for _ in range(5)]
        took, least = (median(u.cpu_seconds for u in runs) for runs in (idle, dlt))
        yield Figure(
            "`esms run` with nothing due, over an import of dlt, duckdb and pyarrow",
            f"{took:.2f} CPU s, {took / least:.1f} x",
        )

    def _settled(self, size: int) -> tuple[Path, Path]:
        """Return a folder whose ledger holds a whole warehouse, all of it settled."""
        folder, warehouse = self.folder(), self.warehouse(size)
        with serving() as server:
            self.run(OURS, server, self.warehouse(BATCH), folder=folder)
        apart(settle, folder / "out.duckdb", warehouse)
        return folder, warehouse

    def _asked_again(self, contender: Contender, warehouse: Path, ref_ids: int) -> int:
        folder = self.folder()
        with serving(latency=0.01) as server:
            environment = contender.environment(
                server.url, 0, warehouse, max(ref_ids // 10, 1)
            )
            half = ref_ids // BATCH // 2
            run_until_killed(contender.command, environment, folder, server, half)
            run(contender.command, environment, folder).require_success()
            asked: int = server.stats()["ref_ids_asked"]
        return asked - ref_ids

    def run(
        self,
        contender: Contender,
        server: Server,
        warehouse: Path,
        *,
        rate: int = 0,
        folder: Path | None = None,
        command: str = "",
    ) -> Usage:
        """Run a contender to its end."""
        line = esms(command) if command else contender.command
        environment = contender.environment(server.url, rate, warehouse, 240_000)
        return run(line, environment, folder or self.folder()).require_success()

    def folder(self) -> Path:
        """Return a fresh folder."""
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        return folder

    def warehouse(self, ref_ids: int) -> Path:
        """Return a fresh warehouse of so many RefIds."""
        path = self.folder() / "warehouse.duckdb"
        apart(make_warehouse, path, ref_ids)
        return path


def apart(function: Callable[..., None], *arguments: object) -> None:
    """Run a function in a process of its own.

    A measured process's peak begins with the memory of whoever starts it.
    """
    process = get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__} ended with {process.exitcode}")


def _median(runs: list[tuple[Usage, float]]) -> tuple[Usage, float]:
    """Return the run that took as long as the middle one."""
    return sorted(runs, key=lambda run: run[0].seconds)[len(runs) // 2]


def stages(usage: Usage) -> str:
    """Return the seconds per stage as the run reports them."""
    seconds = json.loads(usage.output)["seconds"]
    return ", ".join(f"{stage} {spent:.1f} s" for stage, spent in seconds.items())


def _seconds(what: str, usage: Usage, *, in_readme: bool = False) -> Figure:
    measured = f"{usage.seconds:.1f} s, {usage.peak_mb:.0f} MB"
    return Figure(what, measured, in_readme=in_readme)


def say(text: str) -> None:
    """Tell what is under way."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure everything, print the page and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a trial; writes nothing")
    parser.add_argument("--only", choices=("peers", "alone"))
    parser.add_argument("--peer", action="append", default=[], help="only this one")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="esms-bench-"))
    try:
        entered = contenders(given.peer)
        bench = Bench(QUICK if given.quick else Sizes(), folder)
        machine = f"{platform.system()}, {os.cpu_count()} CPUs, Python "
        parts = [machine + platform.python_version() + "."]
        scores: list[Score] = []
        figures: list[Figure] = []
        if given.only != "alone":
            scores = bench.compare(entered)
            parts.append("\n".join(comparison(scores)))
        if given.only != "peers":
            figures = list(bench.figures())
            parts.append("\n".join(listing(figures)))
    finally:
        shutil.rmtree(folder)
    print("\n\n".join(parts))
    if not (given.quick or given.only or given.peer):
        write(parts, shown(scores, figures))


if __name__ == "__main__":
    main()
