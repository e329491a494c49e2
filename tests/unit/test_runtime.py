from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from esms_source.runtime import SWEEP_SECONDS, Clock, ScratchFolder, keep_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOLD = (
    "import sys, esms_source.runtime as r;"
    " held = r.ScratchFolder(); print(held.name, flush=True); sys.stdin.read()"
)


def test_it_tells_utc():
    """Times that go into tables are UTC."""
    clock = Clock()
    assert clock.now().tzinfo is timezone.utc
    assert clock.now() - clock.started_at < timedelta(seconds=5)


def test_it_never_steps_back_with_the_wall_clock(monkeypatch: pytest.MonkeyPatch):
    """A wall clock that is set back in mid-run doesn't reach the tables."""
    clock = Clock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.now() >= before


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Let processes hold scratch folders, old enough to be swept, or die with them."""
    holders: list[subprocess.Popen[str]] = []

    def start(*, killed: bool) -> Path:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )
        holders.append(holder)
        assert holder.stdout
        folder = Path(holder.stdout.readline().strip())
        (folder / "work.parquet").write_text("RefIds")
        long_ago = time.time() - 10 * SWEEP_SECONDS
        for path in folder.iterdir():
            os.utime(path, (long_ago, long_ago))
        if killed:
            holder.kill()
            holder.wait()
        return folder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def test_folders_of_killed_processes_are_swept_and_no_others(
    hold: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those in use, nor anybody else's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "esms-scratch-mine").mkdir()
    dead, alive = hold(killed=True), hold(killed=False)
    with ScratchFolder() as name:
        assert not dead.exists()
        assert alive.exists()
        assert Path(name).stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in tmp_path.glob("esms-*")) == sorted(
        [alive.name, "esms-scratch-mine"]
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [(0o755, 0o700), (0o777, 0o770), (0o2775, 0o2770), (0o750, 0o700), (0o500, 0o500)],
)
def test_a_private_folder_is_read_by_its_user_alone(
    before: int, after: int, tmp_path: Path
) -> None:
    """But a group that was given the folder to write to keeps it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(before)
    keep_private(folder)
    assert folder.stat().st_mode & 0o7777 == after
    keep_private(tmp_path / "nowhere")


def test_a_run_that_begins_meanwhile_fails_no_cleanup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries the lock of each folder, and so puts it there once more."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = ScratchFolder()
    remove = os.rmdir

    def rmdir(path: str, **where: int) -> None:
        Path(folder.name, "in-use.lock").touch()
        remove(path, **where)

    monkeypatch.setattr(os, "rmdir", rmdir)
    folder.cleanup()
