"""The settings of a new project, as ``esms init`` writes them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from esms_source.simulator import Simulator
    from tests.conftest import Warehouse


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and an environment without settings."""
    for name in list(os.environ):
        if name.startswith(("SOURCES__", "DESTINATION__", "ESMS_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def run(project: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``esms`` there, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "esms_source", *words],
        cwd=project,
        env=os.environ | {"PIPELINES_DIR": str(project / "dlt")} | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_options_make_a_project_that_runs(
    project: Path,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
    api_key: str,
    secret_key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Written once, secrets for their user only; a second time nothing changes."""
    warehouse.fill(3)
    for name in list(os.environ):
        if name.startswith("SOURCES__"):
            monkeypatch.delenv(name)
    words = ["--warehouse-credentials", str(warehouse.path), "--table", "sent"]
    words += ["--oa-id-column", "oa_id", "--sent-at-column", "sent_at"]
    words += ["--destination-credentials", "esms.duckdb"]
    made = run(
        project, "init", *words, ESMS_API_KEY=api_key, ESMS_SECRET_KEY=secret_key
    )
    assert made.returncode == 0, made.stderr
    assert "esms run" in made.stdout
    secrets = project / ".dlt" / "secrets.toml"
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert api_key not in (project / ".dlt" / "config.toml").read_text()
    ended = run(project, "run", SOURCES__ESMS__BASE_URL=simulate().url)
    assert ended.returncode == 0, ended.stderr
    assert "asked 3 RefIds" in ended.stdout
    assert (project / "esms.duckdb").exists()
    before = secrets.read_text()
    again = run(project, "init", "--table", "other")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert secrets.read_text() == before


@pytest.mark.parametrize(
    ("kind", "place"),
    [("sqlalchemy", "sqlite:///{}/out.db"), ("filesystem", "{}/lake")],
)
def test_what_is_to_be_run_next_loads_where_it_was_told_to(
    project: Path,
    warehouse: Warehouse,
    simulate: Callable[..., Simulator],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    place: str,
) -> None:
    """Into databases of SQLAlchemy, and into files."""
    warehouse.fill(3)
    for name in list(os.environ):
        if name.startswith("SOURCES__"):
            monkeypatch.delenv(name)
    words = ["--warehouse-credentials", str(warehouse.path), "--table", "sent"]
    words += ["--oa-id", "oa", "--api-key", "key", "--secret-key", "secret"]
    words += ["--destination", kind, "--destination-credentials", place.format(project)]
    made = run(project, "init", *words)
    assert made.returncode == 0, made.stderr
    last = made.stdout.strip().rpartition(", esms ")[2]
    assert last == f"run --destination {kind}"
    ended = run(project, *last.split(), SOURCES__ESMS__BASE_URL=simulate().url)
    assert "asked 3 RefIds" in ended.stdout, ended.stderr
    assert list(project.glob("out__zalo.db")) or list(project.glob("lake/zalo"))


def test_without_options_and_terminal_there_is_a_template(project: Path) -> None:
    """Every line that must be filled in stands there as a comment."""
    made = run(project, "init")
    assert made.returncode == 0
    assert "Fill in" in made.stdout
    config = (project / ".dlt" / "config.toml").read_text()
    assert '# table = "zns_messages"' in config
    ended = run(project, "run")
    assert ended.returncode == 2
    assert "api_key: not set" in ended.stderr


@pytest.mark.parametrize(
    ("section", "line", "said"),
    [
        ("sources.esms", 'api_key = "k"', "api_key: a secret, and it stands in"),
        ("destination.duckdb", 'credentials = "x.duckdb"', "[destination.duckdb]"),
    ],
)
def test_a_secret_in_the_wrong_file_is_named(
    project: Path, section: str, line: str, said: str
) -> None:
    """What belongs into secrets.toml is told so, with its section."""
    folder = project / ".dlt"
    folder.mkdir()
    (folder / "config.toml").write_text(f"[{section}]\n{line}\n")
    keys = "[sources.esms]\napi_key = 'k'\nsecret_key = 's'"
    (folder / "secrets.toml").write_text("" if "api_key" in line else keys)
    ended = run(project, "run")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "secrets.toml" in ended.stderr
    assert '"k"' not in ended.stderr


def test_a_terminal_is_asked_and_offered_what_is_there(
    project: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table and columns come from the warehouse; Return takes what is offered."""
    warehouse.fill(3)
    for name in list(os.environ):
        if name.startswith("SOURCES__"):
            monkeypatch.delenv(name)
    answers = ["", str(warehouse.path), *[""] * 7]
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "esms_source", "init"],
        cwd=project,
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(child)
    os.write(parent, "".join(f"{line}\n" for line in answers).encode())
    # What is typed before a secret is asked for is dropped.
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        os.write(parent, b"key\n")
        time.sleep(0.2)
    process.kill()
    out, err = process.communicate()
    os.close(parent)
    assert process.returncode == 0, err + out
    config = (project / ".dlt" / "config.toml").read_text()
    for line in (
        'table = "sent"',
        'ref_id_column = "ref_id"',
        'oa_id_column = "oa_id"',
        'sent_at_column = "sent_at"',
        'sent_at_timezone = "Asia/Ho_Chi_Minh"',
    ):
        assert f"\n{line}" in config, config
    secrets = (project / ".dlt" / "secrets.toml").read_text()
    assert 'api_key = "key"' in secrets
    assert 'secret_key = "key"' in secrets
    assert 'credentials = "esms.duckdb"' in secrets
