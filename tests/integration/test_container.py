"""``esms`` as its container runs it: another user, nothing to write to, a probe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.integration.conftest import Esms

ROOT = Path(__file__).parents[2]
USER = 10001

# A user that isn't root may read all here, as in an image, and write to two folders.
CONTAINER = """
mount --make-rprivate /
mount --bind "$KEPT" /srv
for folder in data tmp; do mount --bind /srv/$folder /srv/$folder; done
while read -r _ where _; do
  case $where in
    /srv/* | /proc* | /dev* | /sys*) ;;
    *) mount -o remount,ro,bind "$where" ;;
  esac
done </proc/self/mounts
cd /srv/app
exec setpriv --reuid "$ID" --regid "$ID" --clear-groups --no-new-privs \\
  --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search \\
  --bounding-set=-all,+dac_read_search "$@"
"""


def _can_isolate() -> bool:
    unshare = which("unshare")
    if os.geteuid() or not unshare or not which("setpriv"):
        return False
    return subprocess.run([unshare, "--mount", "true"], check=False).returncode == 0


@pytest.fixture
def contained(
    tmp_path: Path, esms: Esms
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in what a container is: no HOME, no PATH to speak of, nothing else."""
    kept = tmp_path / "kept"
    for name in ("data", "tmp", "app"):
        (kept / name).mkdir(parents=True)
        os.chown(kept / name, USER, USER)

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if k.startswith("SOURCES__")}
        env |= esms.env | {
            "PATH": str(Path(sys.executable).parent),
            "PYTHONPATH": str(ROOT),
            "DLT_DATA_DIR": "/srv/data",
            "TMPDIR": "/srv/tmp",
            "DESTINATION__DUCKDB__CREDENTIALS": "/srv/data/esms.duckdb",
            "RUNTIME__DLTHUB_TELEMETRY": "false",
        }
        command = ["unshare", "--mount", "sh", "-ec", CONTAINER, "sh"]
        command += ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in env.items())]
        return subprocess.run(
            [*command, sys.executable, *argv],
            env={"PATH": os.environ["PATH"], "KEPT": str(kept), "ID": str(USER)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.slow
@pytest.mark.skipif(not _can_isolate(), reason="needs root, unshare and setpriv")
def test_a_container_that_is_read_only_but_for_two_folders_will_do(
    contained: Callable[..., subprocess.CompletedProcess[str]],
    world: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    """Not root, without a home, each command goes on where the last one ended."""
    simulator = world(300)
    code = "import os; print(os.getuid()); open('mine', 'w')"
    tried = contained("-c", code)
    assert tried.stdout == f"{USER}\n"
    assert "Read-only file system" in tried.stderr
    esms = ("-m", "esms_source", "--log-format", "json")
    for asked in (300, 0):
        ran = contained(*esms, "--verbose", "run", "--json")
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["asked"] == asked
        assert all(
            json.loads(line)["level"] == "info" for line in ran.stderr.splitlines()
        )
    assert len(simulator.arrivals.asks) == 300
    told = contained(*esms, "query", "--json", "SELECT count(*) AS n FROM runs")
    assert json.loads(told.stdout) == [{"n": 2}], told.stderr
    assert contained(*esms, "check").returncode == 0
    written = {path.parts[-1] for path in (tmp_path / "kept").glob("*/*")}
    assert written >= {"esms.duckdb", "pipelines"}
    assert not list((tmp_path / "kept" / "app").iterdir())


@pytest.fixture
def is_healthy(tmp_path: Path) -> Callable[[], bool]:
    """Ask what the image asks."""
    source = (ROOT / "Dockerfile").read_text()
    [command] = re.findall(r"HEALTHCHECK [^\[]*CMD (\[.*\])", source)
    folders = {"DLT_DATA_DIR": tmp_path / "dlt", "TMPDIR": tmp_path / "tmp"}
    env = {name: str(folder) for name, folder in folders.items()}
    env["PATH"] = os.environ["PATH"]
    return lambda: (
        not subprocess.run(json.loads(command), env=env, check=False).returncode
    )


def test_the_probe_tells_whether_rounds_go_on(
    esms: Esms,
    world: Callable[..., Simulator],
    tmp_path: Path,
    is_healthy: Callable[[], bool],
    wait_until: Callable[[Callable[[], object]], None],
) -> None:
    """It passes while there is nothing to ask, and fails when the process hangs."""
    world(3)
    (tmp_path / "tmp").mkdir()
    running = esms.start("run", "--every", "1", TMPDIR=tmp_path / "tmp")
    wait_until(lambda: "asked 0 RefIds" in running.said("out"))

    def age() -> None:
        past = time.time() - 31 * 60
        for name in ("dlt", "tmp"):
            for path in (tmp_path / name, *(tmp_path / name).rglob("*")):
                os.utime(path, (past, past))

    running.send(signal.SIGSTOP)
    age()
    time.sleep(1.5)
    assert not is_healthy()
    running.send(signal.SIGCONT)
    wait_until(is_healthy)
    running.send(signal.SIGTERM)
    assert running.wait().status == 0
