"""The version is one, wherever it stands."""

from __future__ import annotations

import re
from pathlib import Path

import tomlkit

ROOT = Path(__file__).parents[2]
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()[
    "project"
]
VERSION = PROJECT["version"]
IMAGE = re.compile(r"\bimage: \S*esms:([\w.]+)")
DEPLOYED = ("docs/*.md", "deploy/*", "compose.y*ml")
USES = re.compile(r"^\s*(?:- )?uses: (\S+)(.*)$", re.MULTILINE)


def read(name: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text("utf-8")


def test_the_version_stands_in_all_places():
    """The dbt package, images and the copied source name the same."""
    assert f'version: "{VERSION}"' in read("dbt/dbt_project.yml")
    for path in (path for pattern in DEPLOYED for path in ROOT.glob(pattern)):
        assert set(IMAGE.findall(path.read_text("utf-8"))) <= {VERSION}, path
    minor = VERSION.rpartition(".")[0]
    assert read("sources/esms/requirements.txt").startswith(f"esms-source>={minor},")


def test_the_changelog_begins_with_the_version_and_what_to_do():
    """Changes that no release has yet may stand before it."""
    headings = re.findall(r"^##+ (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    releases = [n for n, text in enumerate(headings) if re.match(r"\[\d", text)]
    newest = releases[0]
    assert re.fullmatch(
        rf"\[{re.escape(VERSION)}\] - \d{{4}}-\d\d-\d\d", headings[newest]
    )
    assert headings[newest + 1] == "What you must do"
    assert set(headings[:newest]) <= {"[Unreleased]", "Added", "Changed", "Fixed"}


def test_every_tested_python_is_a_classifier():
    """What CI runs is what the package says it takes."""
    [matrix] = re.findall(
        r"^\s+python: \[(.*)\]$", read(".github/workflows/ci.yml"), re.MULTILINE
    )
    named = {
        text.rpartition(" ")[2]
        for text in PROJECT["classifiers"]
        if re.search(r":: 3\.\d+$", text)
    }
    assert set(re.findall(r"[\d.]+", matrix)) == named


def test_actions_are_pinned_by_commit():
    """A tag can be moved; a comment says which version the commit is."""
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for action, rest in USES.findall(path.read_text("utf-8")):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v[\d.]+", rest), action
