"""What end-to-end tests share: ``esms`` as a process, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from esms_source.load.parts import MOST_LOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esms_source.simulator import Simulator
    from tests.conftest import Warehouse

WARM = Path(__file__).with_name("warm.py")


@pytest.fixture
def asking(
    simulate: Callable[..., Simulator], api_key: str, secret_key: str
) -> dict[str, Any]:
    """Settings that ask a simulator, unhurried."""
    return {
        "api_key": api_key,
        "secret_key": secret_key,
        "base_url": simulate().url,
        "requests_per_second": 500,
        "max_in_flight": 8,
    }


@dataclass
class Ended:
    """How a run of ``esms`` ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        assert self.out, self.err
        report: dict[str, Any] = json.loads(self.out)
        return report


class Running:
    """A run of ``esms`` that is under way.

    Attributes:
        pid: Its process.
    """

    def __init__(self, pid: int, output: Path, ended: Callable[[], int]) -> None:
        self.pid = pid
        self._output = output
        self._ended = ended
        self._status: int | None = None

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def said(self, stream: str = "err") -> str:
        """Return what it wrote so far."""
        path = Path(f"{self._output}.{stream}")
        return path.read_text() if path.exists() else ""

    def wait(self) -> Ended:
        """Wait for its end."""
        if self._status is None:
            self._status = self._ended()
        return Ended(self._status, self.said("out"), self.said("err"))

    def end(self) -> None:
        """Kill it, if it hasn't ended."""
        if self._status is None:
            self.send(signal.SIGKILL)
            self.wait()


class Workshop:
    """Starts ``esms`` in forks of a warm process, a second less each."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._last: Running | None = None
        self._number = 0

    def start(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: Path,
        signal_at: tuple[str, int, int] | None,
        backoff: dict[str, float],
        most_loads: int,
    ) -> Running:
        """Start one run; the one before it ends now at the latest."""
        process = self._warm()
        if self._last:
            self._last.end()
        self._number += 1
        output = cwd / f"run-{self._number}"
        request = {
            "argv": argv,
            "env": env,
            "cwd": str(cwd),
            "output": str(output),
            "signal_at": signal_at,
            "backoff": backoff,
            "most_loads": most_loads,
        }
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answers = process.stdout
        pid = int(answers.readline())
        self._last = Running(pid, output, lambda: int(answers.readline()))
        return self._last

    def close(self) -> None:
        """End the warm process."""
        if self._last:
            self._last.end()
        if self._process:
            self._process.communicate("")

    def _warm(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, str(WARM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self._process


@pytest.fixture(scope="session")
def workshop() -> Iterator[Workshop]:
    """One warm process for all tests."""
    made = Workshop()
    yield made
    made.close()


class Esms:
    """The command line, with settings from the environment only.

    Attributes:
        backoff: How long runs wait before they ask again, as fields of ``Backoff``.
        most_loads: How many loads runs spend on finding what is refused.
    """

    def __init__(self, workshop: Workshop, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.backoff: dict[str, float] = {}
        self.most_loads = MOST_LOADS
        self.env = env
        self._workshop = workshop

    def set(self, **settings: object) -> None:
        """Set settings of the source, or with their full name in capitals any other."""
        self.env.update(_named(settings))

    def start(
        self,
        *argv: str,
        signal_at: tuple[str, int, int] | None = None,
        **settings: object,
    ) -> Running:
        """Start a command, by default ``run --json``.

        Args:
            *argv: The command.
            signal_at: A point of ``warm.POINTS``, at which passing, and the signal
                that the process then sends itself.
            **settings: As in ``set``, for this run only.
        """
        env = dict(os.environ) | self.env | _named(settings)
        words = list(argv or ("run", "--json"))
        given = self.backoff, self.most_loads
        return self._workshop.start(words, env, self.folder, signal_at, *given)

    def __call__(
        self,
        *argv: str,
        signal_at: tuple[str, int, int] | None = None,
        **settings: object,
    ) -> Ended:
        """Run a command, by default ``run --json``, to its end."""
        return self.start(*argv, signal_at=signal_at, **settings).wait()

    def killed_at(self, point: str, passing: int, *argv: str) -> None:
        """Let a run be killed at a point."""
        ended = self(*argv, signal_at=(point, passing, signal.SIGKILL))
        assert ended.status == -signal.SIGKILL, (point, passing, ended)


def _named(settings: dict[str, object]) -> dict[str, str]:
    return {
        name if name.isupper() else f"SOURCES__ESMS__{name.upper()}": str(value)
        for name, value in settings.items()
    }


@pytest.fixture
def esms(workshop: Workshop, tmp_path: Path, api_key: str, secret_key: str) -> Esms:
    """Make ``esms`` load into ``out.duckdb`` of the test's folder, unhurried."""
    made = Esms(workshop, tmp_path, {})
    made.set(
        api_key=api_key,
        secret_key=secret_key,
        requests_per_second=2_000,
        max_in_flight=8,
        DESTINATION__DUCKDB__CREDENTIALS=tmp_path / "out.duckdb",
    )
    return made


@pytest.fixture
def hasty(esms: Esms) -> Esms:
    """Let ``esms`` hardly wait before it asks again."""
    esms.backoff = {"whole": 0.02, "part": 0.01, "refused": 0.1}
    return esms


@pytest.fixture
def world(
    esms: Esms, warehouse: Warehouse, simulate: Callable[..., Simulator]
) -> Callable[..., Simulator]:
    """Fill the warehouse with messages, simulate the API, and let ``esms`` ask it."""

    def make(count: int = 0, *, oas: int = 1, **behaviour: object) -> Simulator:
        if count:
            warehouse.fill(count, oas=oas)
        simulator = simulate(**behaviour)
        esms.set(base_url=simulator.url)
        return simulator

    return make


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Wait until something is true, for ten seconds at most."""

    def wait(is_true: Callable[[], object]) -> None:
        until = time.monotonic() + 10
        while not is_true():
            assert time.monotonic() < until, "it never came"
            time.sleep(0.01)

    return wait
