from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

import dlt
import duckdb
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

try:
    distribution("duckdb-extension-ducklake")
except PackageNotFoundError:
    # It has an environment of its own: the group "ducklake" of pyproject.toml.
    collect_ignore_glob = ["test_*.py"]

CREDENTIALS = "DESTINATION__DUCKLAKE__CREDENTIALS"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder without any extension of DuckDB."""
    return tmp_path_factory.mktemp("home")


class Lake:
    """A DuckLake whose catalog is a DuckDB file, and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.catalog = folder / "catalog.duckdb"
        self.files = folder / "files"
        self._folder = folder

    def pipeline(self, destination: str = "ducklake") -> dlt.Pipeline:
        """Return a pipeline into it."""
        return dlt.pipeline(
            "esms",
            destination=destination,
            dataset_name="zalo",
            pipelines_dir=str(self._folder / f"pipelines-{destination}"),
        )

    def rows(self, sql: str) -> list[Any]:
        """Return what a query over the tables selects."""
        with duckdb.connect() as connection:
            connection.execute(
                f"ATTACH 'ducklake:{self.catalog}' AS lake (DATA_PATH '{self.files}')"
            )
            connection.execute("USE lake.zalo")
            found = connection.execute(sql).fetchall()
            connection.execute("USE memory")
            connection.execute("DETACH lake")
        return found


@pytest.fixture
def lake(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """An empty DuckLake, named in the environment."""
    made = Lake(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv(f"{CREDENTIALS}__CATALOG", f"duckdb:///{made.catalog}")
    monkeypatch.setenv(f"{CREDENTIALS}__STORAGE__BUCKET_URL", str(made.files))
    return made


@pytest.fixture
def start(
    tmp_path: Path, api_key: str, secret_key: str
) -> Callable[..., subprocess.Popen[str]]:
    """Start a command of ``esms`` on the lake."""

    def one(*argv: str, **env: str) -> subprocess.Popen[str]:
        given = {
            "SOURCES__ESMS__API_KEY": api_key,
            "SOURCES__ESMS__SECRET_KEY": secret_key,
            "SOURCES__ESMS__REQUESTS_PER_SECOND": "2000",
            "DESTINATION": "ducklake",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "esms_source", *argv, "--destination", "ducklake"],
            env=os.environ | given | env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return one
