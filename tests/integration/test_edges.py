"""Names, numbers, files and texts at the edge: a line each, and nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from errno import EACCES
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from click.testing import CliRunner, Result

from esms_source.cli.commands import main
from esms_source.cli.demo import World
from esms_source.simulator import sample_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from esms_source.simulator import Simulator
    from tests.conftest import Output, Scripted, Warehouse
    from tests.integration.conftest import Esms

LONG = "a" * 300


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    api_key: str,
    secret_key: str,
) -> Callable[..., Result]:
    """Run a command; what comes must be at most a line where it ends with 2."""
    monkeypatch.setenv("SOURCES__ESMS__API_KEY", api_key)
    monkeypatch.setenv("SOURCES__ESMS__SECRET_KEY", secret_key)
    monkeypatch.setenv("SOURCES__ESMS__REQUESTS_PER_SECOND", "1000")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(tmp_path / "out.duckdb"))

    def one(*words: str, exits: int = 0) -> Result:
        ended = CliRunner().invoke(main, words, prog_name="esms")
        assert ended.exit_code == exits, ended.output + repr(ended.exception)
        if exits:
            assert ended.stderr.startswith("esms: ")
            assert ended.stderr.count("\n") == 1, ended.stderr
        return ended

    return one


@pytest.fixture
def filled(
    warehouse: Warehouse, simulate: Callable[..., Simulator], monkeypatch: Any
) -> Simulator:
    """A warehouse of 20 messages, and the server that knows them."""
    warehouse.fill(20)
    simulator = simulate()
    monkeypatch.setenv("SOURCES__ESMS__BASE_URL", simulator.url)
    return simulator


@pytest.mark.parametrize(
    "words",
    [
        *(
            ("run", option, name)
            for option in ("--pipeline", "--dataset")
            for name in ("", " ", "a/b", "../a", "/a", "a\\b", LONG, "a\nb")
        ),
        ("run", "--pipeline", "."),
        ("run", "--pipeline", ".."),
        ("run", "--pipeline", "a:b"),
        ("plan", "--pipeline", "x/y"),
        ("check", "--nonsense"),
        ("nonsense",),
        ("run", "--max-ref-ids", "x"),
        ("simulate", "--port", "99999"),
        ("simulate", "--port", "-1"),
        ("simulate", "--rate", "nan"),
        ("simulate", "--rate", "inf"),
        ("simulate", "--rate", "-1"),
        ("simulate", "--latency", "inf"),
        ("simulate", "--latency", "nan"),
        ("simulate", "--faults", "500=nan"),
        ("demo", "--folder", "/proc/x"),
        ("demo", "--folder", "/dev/null/x"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2(
    words: tuple[str, ...], run: Callable[..., Result], filled: Simulator
) -> None:
    """Nothing is asked then."""
    run(*words, exits=2)
    assert filled.arrivals.requests == 0


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "foreign"])
def test_a_lock_file_that_cannot_be_used_is_said(
    kind: str,
    run: Callable[..., Result],
    filled: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A link isn't followed: what it names stays as it is."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    monkeypatch.setenv("PIPELINES_DIR", str(folder))
    lock, precious = folder / "esms.esms.lock", tmp_path / "precious"
    precious.write_text("stays")
    if kind == "link":
        lock.symlink_to(precious)
    elif kind == "dangling link":
        lock.symlink_to(tmp_path / "nowhere")
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.write_text("")
        lock.chmod(0)
        monkeypatch.setattr("esms_source.load.locks.FileLock.acquire", _denied)
    ended = run("run", exits=2)
    assert "esms.esms.lock' can't be used" in ended.stderr
    assert precious.read_text() == "stays"
    assert not (tmp_path / "nowhere").exists()
    assert filled.arrivals.requests == 0


def _denied(*_: object) -> None:
    """Answer as a system does where the file is another user's; root may do all."""
    raise PermissionError(EACCES, os.strerror(EACCES))


def test_a_full_disk_under_dlts_folder_is_one_line(
    run: Callable[..., Result], filled: Simulator
) -> None:
    """Folders are made, and no file takes a byte."""
    # Coverage could write none either, and would say so.
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -f 0; exec {sys.executable} -m esms_source run"],  # noqa: S607
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode in (1, 2)
    assert ended.stderr.startswith("esms: ")
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert filled.arrivals.requests == 0


ODD_NAMES = ["[/x]", "[red]", "[link=https://x]y", "\x1b[2J", "a\x9b31m", "\x07", "[/"]


def test_names_are_data_and_no_markup(
    run: Callable[..., Result], filled: Simulator, warehouse: Warehouse
) -> None:
    """An OA may be called like rich's markup, or like a terminal's commands."""
    for name in ODD_NAMES:
        warehouse.execute(f"INSERT INTO sent SELECT '{name}', 'R', now(), 'c'")
    planned = run("plan").stdout
    for name in ODD_NAMES:
        if name.isprintable():
            assert name in planned
    assert r"\x1b[2J" in planned
    assert r"a\x9b31m" in planned
    _assert_harmless(planned)
    assert r"\u009b31m" in run("plan", "--json").stdout
    _assert_harmless(run("plan", "--json").stdout)


def test_what_the_api_says_is_printed_as_text(
    run: Callable[..., Result],
    scripted: Scripted,
    simulate: Callable[..., Simulator],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the rows of a lookup and in messages of its errors."""
    rows = {"R1": [sample_row("R1", PartnerIds="\x1b[31m\x9b1m\x00\u009d0;x\x07")]}
    monkeypatch.setenv("SOURCES__ESMS__BASE_URL", simulate(scripted=rows).url)
    for form in ((), ("--json",)):
        _assert_harmless(run("lookup", "R1", "--oa-id", "oa\x1b[5m", *form).stdout)
    scripted.say({"Code": "101", "Message": "\x1b]0;owned\x07 \x9b2J"})
    monkeypatch.setenv("SOURCES__ESMS__BASE_URL", scripted.url)
    ended = run("lookup", "R1", "--oa-id", "oa1", exits=1)
    assert r"\x1b]0;owned" in ended.stderr
    _assert_harmless(ended.stderr)


def _assert_harmless(text: str) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), repr(text)


def test_all_that_is_printed_passes_one_place() -> None:
    """Whoever prints past ``output`` and ``stderr`` prints escapes of others, too."""
    folder = Path(sys.modules[main.__module__].__file__ or "").parent
    past = re.compile(r"click\.(echo|secho)\(|\bprint\(")
    found = [path.name for path in folder.glob("*.py") if past.search(path.read_text())]
    assert sorted(found) == ["output.py", "stderr.py"]


@pytest.mark.parametrize("name", ["esms.duckdb", "warehouse.duckdb", "pipelines"])
def test_a_demo_takes_no_files_of_others(
    name: str, run: Callable[..., Result], tmp_path: Path
) -> None:
    """``--folder .`` in somebody's project is refused, and nothing is touched."""
    file = tmp_path / name
    file = file / "state.json" if name == "pipelines" else file
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    ended = run("demo", "--folder", ".", exits=2)
    assert f"{name}' is not of an earlier demo" in ended.stderr
    assert file.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_demo_replaces_an_earlier_one(tmp_path: Path) -> None:
    """The mark that it leaves tells."""
    world = World(tmp_path / "demo")
    for _ in range(2):
        world.make()
        world.pipelines.mkdir()
    world.make()
    assert not world.pipelines.exists()


def test_a_demo_shows_two_runs_and_takes_no_setting_of_the_project_around(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no account, and ends with tables and queries."""
    monkeypatch.setattr("esms_source.cli.demo.MESSAGES", 600)
    for prefix in ("", "ESMS_DEMO__"):
        for name in ("BATCH_SIZE", "MAX_ATTEMPTS", "REF_IDS__QUERY", "TIMEZONE"):
            monkeypatch.setenv(f"{prefix}SOURCES__ESMS__{name}", "nonsense")
        monkeypatch.setenv(f"{prefix}DESTINATION__DUCKDB__CREDENTIALS", "x://y")
    for folder in (tmp_path / ".dlt", tmp_path / "demo/.dlt"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text('[sources.esms]\ntimezone = "nonsense"\n')
    ended = run("--quiet", "demo", "--folder", "demo")
    shown = ended.stdout
    assert "requests/s" not in ended.stderr
    for words in (
        "asked 600 RefIds",
        "The late row was found",
        "and refused 0.",
        "Delivery per OA",
        "Try next",
    ):
        assert words in shown
    assert (tmp_path / "demo" / "esms.duckdb").exists()
    assert not (tmp_path / "out.duckdb").exists()
    monkeypatch.undo()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    commands = shown.partition("Try next:")[2].strip().splitlines()
    assert len(commands) == 4
    for command in commands:
        typed = subprocess.run(  # noqa: S602  as it stands there
            command, shell=True, cwd=elsewhere, capture_output=True, check=False
        )
        assert typed.returncode == 0, typed.stderr
        assert typed.stdout


def test_a_report_replaces_reports_only(
    run: Callable[..., Result], filled: Simulator, output: Output, tmp_path: Path
) -> None:
    """Neither the destination's file nor any other; an empty file may be filled."""
    run("run")
    notes = tmp_path / "notes.html"
    notes.write_text("<!doctype html><title>mine</title>")
    for path in (output.path, notes):
        content = path.read_bytes()
        ended = run("report", "--output", str(path), exits=2)
        assert "is not an earlier report" in ended.stderr
        assert path.read_bytes() == content
    nowhere = tmp_path / "nowhere" / "page.html"
    assert "no folder" in run("report", "--output", str(nowhere), exits=2).stderr
    page = tmp_path / "page.html"
    page.touch()
    for _ in range(2):
        run("report", "--output", str(page))
        assert "eSMS delivery" in page.read_text("utf-8")
    with duckdb.connect(output.path) as connection:
        assert connection.execute("SELECT count(*) FROM zalo.ref_ids").fetchone() == (
            20,
        )


def test_a_killed_run_leaves_its_ref_ids_to_the_next_run(
    esms: Esms, filled: Simulator
) -> None:
    """In a folder that its user alone may read, and that the next run sweeps."""
    esms.set(base_url=filled.url)
    killed = esms.start(signal_at=("asking", 1, signal.SIGKILL))
    assert killed.wait().status == -signal.SIGKILL
    left = list(Path(tempfile.gettempdir()).glob(f"esms-scratch-{killed.pid}-*"))
    assert [path.stat().st_mode & 0o777 for path in left] == [0o700]
    for file in left[0].iterdir():
        os.utime(file, (0, 0))
    assert esms().status == 0
    assert not left[0].exists()


PLAIN = """
import dlt
from esms_source import esms_source
dlt.pipeline("esms", destination="duckdb", dataset_name="zalo").run(esms_source())
"""


@pytest.mark.parametrize("words", [["-m", "esms_source", "run"], ["-c", PLAIN]])
def test_nobody_else_may_read_dlts_working_folder(
    words: list[str], run: Callable[..., Result], filled: Simulator, tmp_path: Path
) -> None:
    """What is loaded, and dlt's own state, hold RefIds; in plain dlt, too."""
    command = f"umask 022; exec '{sys.executable}' \"$@\""
    subprocess.run(["bash", "-c", command, "bash", *words], check=True)  # noqa: S607
    folders = [path for path in (tmp_path / "dlt").rglob("esms") if path.is_dir()]
    assert folders
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_the_shell_completes_commands_and_options() -> None:
    """What docs/running.md says to put into the shell's start."""
    for word, found in (("ru", "plain,run"), ("--ver", "plain,--verbose")):
        asked = {"COMP_WORDS": f"esms {word}", "COMP_CWORD": "1"}
        ended = CliRunner().invoke(
            main, prog_name="esms", env=asked | {"_ESMS_COMPLETE": "bash_complete"}
        )
        assert found in ended.stdout.splitlines()
