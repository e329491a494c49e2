"""The folder ``sources/``, as ``dlt init`` copies it into a project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output

SOURCES = Path(__file__).parents[2] / "sources"
DLT = Path(sys.executable).with_name("dlt")


@pytest.fixture
def location(tmp_path: Path) -> Path:
    """A repository with nothing but the folder, as dlt wants one."""
    repository = tmp_path / "repository"
    shutil.copytree(
        SOURCES, repository / "sources", ignore=shutil.ignore_patterns("__pycache__")
    )
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Add it"]):
        subprocess.run([*git, *words], check=True)
    return repository


@pytest.fixture
def project(tmp_path: Path, location: Path) -> Path:
    """A project that ``dlt init`` made from it."""
    folder = tmp_path / "project"
    folder.mkdir()
    words = ["--non-interactive", "init", "esms", "duckdb", "--location"]
    ended = subprocess.run(
        [str(DLT), *words, str(location)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_a_project_gets_all_that_it_needs(project: Path) -> None:
    """The folder, the script, what to install, and settings to fill in."""
    made = {str(path.relative_to(project)) for path in project.rglob("*.*")}
    assert made >= {
        "esms_pipeline.py",
        *("esms/__init__.py", "esms/README.md", "requirements.txt"),
        *(".dlt/config.toml", ".dlt/secrets.toml"),
    }
    assert "esms-source" in (project / "requirements.txt").read_text()


def test_the_script_of_the_project_loads(
    project: Path, serve: Callable[..., Simulator], output: Output
) -> None:
    """It runs where it was made, with the package installed."""
    serve()
    ended = subprocess.run(
        [sys.executable, "esms_pipeline.py"],
        cwd=project,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("597 of 600 RefIds answered")
    assert output.rows("SELECT count(*) FROM callbacks") == [597]
