"""What was measured as Markdown: tables in RESULTS.md, five lines in the README."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from contenders import ROOT
from measuring import HERE

if TYPE_CHECKING:
    from measuring import Usage

RATE = 20
"""Requests a second that contenders are told to keep to."""

MILLION = 1_000_000
RESULTS = HERE / "RESULTS.md"
README = ROOT / "README.md"
MARKERS = "<!-- benchmarks -->", "<!-- /benchmarks -->"


@dataclass(frozen=True)
class Figure:
    """One measurement of this package alone: in words, and what it came to.

    Attributes:
        in_readme: Whether the README shows it, too.
    """

    what: str
    measured: str
    in_readme: bool = False


@dataclass(frozen=True)
class Score:
    """What one contender reached."""

    name: str
    ref_ids: int
    usage: Usage
    server_share: float
    most_in_one_second: int
    rate_used: float
    asked_again: int
    loads: bool

    @property
    def speed(self) -> float:
        """RefIds a second, limit lifted."""
        return self.ref_ids / self.usage.seconds

    @property
    def cpu_per_million(self) -> float:
        """CPU seconds per million RefIds, start-up included."""
        return self.usage.cpu_seconds / self.ref_ids * MILLION


def comparison(scores: list[Score]) -> list[str]:
    """Return the table of this package and its peers, as Markdown."""
    ours = scores[0]
    rows = [
        ["", *(score.name for score in scores)],
        ["---", *("--:" for _ in scores)],
        ["RefIds measured", *(f"{score.ref_ids:,}" for score in scores)],
        ["RefIds/s, limit lifted", *(f"{score.speed:,.0f}" for score in scores)],
        ["ours is faster by", *(f"{ours.speed / s.speed:.1f} x" for s in scores)],
        ["CPU s per million", *(f"{score.cpu_per_million:.1f}" for score in scores)],
        [
            "takes more CPU than ours by",
            *(f"{s.cpu_per_million / ours.cpu_per_million:.1f} x" for s in scores),
        ],
        ["peak memory, MB", *(f"{score.usage.peak_mb:,.0f}" for score in scores)],
        [
            f"most arrivals in a second, told {RATE}",
            *(str(score.most_in_one_second) for score in scores),
        ],
        ["of that rate used", *(f"{score.rate_used:.0%}" for score in scores)],
        [
            "asked again after SIGKILL half way",
            *(f"{score.asked_again / score.ref_ids:.0%}" for score in scores),
        ],
        ["loads a warehouse", *("yes" if s.loads else "no" for s in scores)],
        ["server's share of the CPUs", *(f"{s.server_share:.0%}" for s in scores)],
    ]
    return [f"| {' | '.join(row)} |" for row in rows]


def listing(figures: list[Figure]) -> list[str]:
    """Return the table of this package alone, as Markdown."""
    rows = [f"| {figure.what} | {figure.measured} |" for figure in figures]
    return ["| what | measured |", "| --- | --: |", *rows]


def shown(scores: list[Score], figures: list[Figure]) -> list[str]:
    """Return the lines of the README, as a Markdown list."""
    ours, *peers = scores
    times = "; ".join(f"{s.name} {ours.speed / s.speed:.1f}" for s in peers)
    lines = [f"{f.what}: {f.measured}" for f in figures if f.in_readme]
    lines.append(f"RefIds/s as a multiple of others, limit lifted: {times}")
    return [f"- {line}" for line in lines]


NOTES = """
Speed, CPU time and memory are those of the middle one of three rounds, in which all
take turns. Each of them in a process and an environment of its own, all against the
bundled simulator's fast mode in yet another process on the same machine. The peers
are written as their docs write it (`benchmarks/peers/`). dlt with its defaults writes
INSERT statements, whose memory grows with the rows: it is measured with fewer.
airbyte-cdk and singer-sdk write records to stdout, which went nowhere here; loading
them takes a destination or target besides. singer-sdk asks in sequence. No peer
keeps count of what was asked: after a crash it starts again, and so it does when
only some answers are still pending. esms-source ran the crash with slices of a
tenth of the RefIds; a crash costs at most one slice.
""".strip()


def write(tables: list[str], lines: list[str]) -> None:
    """Write RESULTS.md, and the lines where the README has the markers."""
    machine, compared, alone = tables
    RESULTS.write_text(f"# Measured\n\n{machine}\n\n{compared}\n\n{NOTES}\n\n{alone}\n")
    start, end = MARKERS
    text = README.read_text()
    before, after = text.split(start)[0], text.split(end)[1]
    page = "\n".join(lines)
    README.write_text(f"{before}{start}\n{page}\n{end}{after}")
