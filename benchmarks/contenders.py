"""Who is measured: this package and its peers, each in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from measuring import HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ROOT = HERE.parent
PEERS = HERE / "peers"
ENVIRONMENTS = HERE / ".environments"
LIFTED = 1_000_000
"""Requests a second that nobody reaches."""

CATALOG = {
    "streams": [
        {
            "stream": {
                "name": "callbacks",
                "json_schema": {"type": "object"},
                "supported_sync_modes": ["full_refresh"],
            },
            "sync_mode": "full_refresh",
            "destination_sync_mode": "append",
        }
    ]
}


@dataclass(frozen=True)
class Contender:
    """One way to do the job.

    Attributes:
        name: As the table calls it.
        command: The command line.
        environment: A function of (server URL, requests a second or 0, warehouse
            file, RefIds that a crash may cost) to variables.
        loads: Whether a table holds the rows afterwards, or stdout got them.
        most_ref_ids: What it can bear; fewer are measured then.
    """

    name: str
    command: tuple[str | Path, ...]
    environment: Callable[[str, int, Path, int], Mapping[str, str]]
    loads: bool = True
    most_ref_ids: int = sys.maxsize
    packages: str = field(default="", repr=False)


def our_environment(
    url: str, rate: int, warehouse: Path, slice_ref_ids: int
) -> dict[str, str]:
    """Return the settings of this package."""
    settings = {
        "API_KEY": "K",
        "SECRET_KEY": "S",
        "BASE_URL": url,
        "REQUESTS_PER_SECOND": rate or LIFTED,
        "SLICE_REF_IDS": slice_ref_ids,
        "REF_IDS__CREDENTIALS": warehouse,
        "REF_IDS__TABLE": "sent",
        "REF_IDS__OA_ID_COLUMN": "oa",
        "REF_IDS__SENT_AT_COLUMN": "sent_at",
        "REF_IDS__CARRY": json.dumps(["campaign"]),
    }
    return {
        **{f"SOURCES__ESMS__{name}": str(value) for name, value in settings.items()},
        "DESTINATION__DUCKDB__CREDENTIALS": "out.duckdb",
        "DLT_DATA_DIR": "dlt",
        "PYTHONPATH": str(ROOT),
    }


def contenders(chosen: list[str]) -> list[Contender]:
    """Return this package and the chosen peers, their environments ready."""
    peers = [peer for peer in _peers() if not chosen or peer.name in chosen]
    for contender in (OURS, *peers):
        _prepare(contender.packages)
    return [OURS, *peers]


def esms(*arguments: str) -> tuple[str | Path, ...]:
    """Return a command line of this package."""
    return (_python("esms-source"), "-m", "esms_source", *arguments)


def _peers() -> list[Contender]:
    catalog, config = ENVIRONMENTS / "catalog.json", ENVIRONMENTS / "config.json"
    read = ("read", "--config", config, "--catalog", catalog)
    return [
        _peer("dlt", "dlt", "dlt_resource.py", most_ref_ids=20_000),
        _peer("dlt, parquet", "dlt", "dlt_resource.py", "parquet"),
        _peer("airbyte-cdk", "airbyte-cdk", "airbyte_source.py", *read, loads=False),
        _peer("singer-sdk", "singer-sdk", "singer_tap.py", loads=False),
    ]


def _peer(
    name: str,
    packages: str,
    script: str,
    *arguments: str | Path,
    loads: bool = True,
    most_ref_ids: int = sys.maxsize,
) -> Contender:
    command = (_python(packages), PEERS / script, *arguments)
    return Contender(name, command, _plain_environment, loads, most_ref_ids, packages)


def _plain_environment(
    url: str, rate: int, warehouse: Path, _slice_ref_ids: int
) -> dict[str, str]:
    return {
        "BENCH_URL": url,
        "BENCH_RATE": str(rate),
        "BENCH_WAREHOUSE": str(warehouse),
    }


def python_of(contender: Contender, *arguments: str | Path) -> tuple[str | Path, ...]:
    """Return a command line of the Python that has a contender's packages."""
    return (_python(contender.packages), *arguments)


def _python(packages: str) -> Path:
    return ENVIRONMENTS / packages / "bin" / "python"


OURS = Contender(
    "esms-source", esms("run", "--json"), our_environment, packages="esms-source"
)


def _prepare(packages: str) -> None:
    """Make a contender's environment from its hashed requirements, once."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n")
    (ENVIRONMENTS / "catalog.json").write_text(json.dumps(CATALOG))
    (ENVIRONMENTS / "config.json").write_text("{}")
    requirements = ROOT / "requirements" / "core.txt"
    if packages != OURS.packages:
        requirements = PEERS / f"{packages}.txt"
    done = ENVIRONMENTS / f"{packages}.done"
    if done.exists() and done.stat().st_mtime > requirements.stat().st_mtime:
        return
    folder = ENVIRONMENTS / packages
    pip = (_python(packages), "-m", "pip", "--disable-pip-version-check")
    install = [*pip, "install", "--quiet"]
    commands = [
        [sys.executable, "-m", "venv", "--clear", folder],
        [*install, "--require-hashes", "-r", requirements],
    ]
    if packages == OURS.packages:
        # The source itself is imported; this tells the version that a run writes down.
        commands.append([*install, "--no-deps", ROOT])
    for command in commands:
        subprocess.run(command, check=True)
    done.touch()
