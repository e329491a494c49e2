"""Processes under the stopwatch: what they took, and what the server saw of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Usage:
    """What a process took.

    Attributes:
        started_at: When it began, in monotonic seconds.
        seconds: From its start to its end.
        cpu_seconds: User and system time.
        peak_mb: Its largest resident memory.
        status: Its exit status; negative when a signal ended it.
        log: What it wrote to stderr.
        output: What it wrote to stdout, where that was kept.
    """

    started_at: float
    seconds: float
    cpu_seconds: float
    peak_mb: float
    status: int
    log: str
    output: str

    def require_success(self) -> Usage:
        """Return itself.

        Raises:
            RuntimeError: The process failed.
        """
        if self.status:
            said = f"a measured process ended with {self.status}"
            raise RuntimeError(f"{said}: {self.log[-1000:]}")
        return self


class Server:
    """The simulator in a process of its own, and what it saw."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self._process = process

    @property
    def cpu_seconds(self) -> float:
        """User and system time so far."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stats(self) -> dict[str, Any]:
        """Return its figures since the last reset."""
        return self._fetch("GET", "/stats")

    def first_arrival(self) -> float:
        """Return when the first request came, in monotonic seconds."""
        return float(self._fetch("GET", "/arrivals")[0])

    def reset(self) -> None:
        """Forget what was seen."""
        self._fetch("POST", "/reset")

    def _fetch(self, method: str, path: str) -> Any:  # noqa: ANN401  any JSON value
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)


@contextmanager
def serving(latency: float = 0.0) -> Iterator[Server]:
    """Run the simulator's fast mode; it refuses nothing and counts everything."""
    command = [sys.executable, HERE / "server.py", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout  # noqa: S101  asked for above
            yield Server(process, process.stdout.readline().strip())
        finally:
            process.terminate()


def start(
    command: Sequence[str | Path], environment: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    """Start a process whose log goes to a file; its records go nowhere."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    # A report is short; what peers write to stdout is all that they read.
    output = folder / "output" if "--json" in command else Path(os.devnull)
    with (folder / "log").open("ab") as log, output.open("wb") as out:
        return subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            env={**inherited, "RUNTIME__DLTHUB_TELEMETRY": "false", **environment},
            stdout=out,
            stderr=log,
        )


def run(
    command: Sequence[str | Path], environment: Mapping[str, str], folder: Path
) -> Usage:
    """Run a process to its end."""
    began = time.monotonic()
    return _reap(start(command, environment, folder), began, folder)


def run_until_killed(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    folder: Path,
    server: Server,
    requests: int,
) -> Usage:
    """Run a process and end it with SIGKILL once the server saw so many requests."""
    began = time.monotonic()
    process = start(command, environment, folder)
    while server.stats()["requests"] < requests:
        if process.poll() is not None:
            raise RuntimeError("the process ended before it could be killed")
        time.sleep(POLL_SECONDS)
    process.kill()
    return _reap(process, began, folder)


def _reap(process: subprocess.Popen[bytes], began: float, folder: Path) -> Usage:
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    output = folder / "output"
    return Usage(
        began,
        time.monotonic() - began,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / 1024,
        process.returncode,
        (folder / "log").read_text(errors="replace"),
        output.read_text() if output.exists() else "",
    )
