"""DuckLake: what DuckDB needs for it, taken from packages in place of the network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

import duckdb

from esms_source.databases import translated
from esms_source.exceptions import ConfigError
from esms_source.sql import text_literal

DUCKLAKE: Final = "ducklake"

EXTENSIONS: Final = (DUCKLAKE, "sqlite_scanner", "postgres_scanner")
"""DuckDB's extensions for the lake and for its catalogs."""


def install_extensions() -> None:
    """Install what is there as packages of PyPI; DuckDB downloads the rest.

    Raises:
        ConfigError: The lake's own extension is neither there nor to be had.
    """
    what = "DuckDB's extensions for DuckLake can't be installed"
    remedy = "pip install esms-source[ducklake]"
    with translated(what, remedy, ConfigError), duckdb.connect() as connection:
        for name in EXTENSIONS:
            if path := _packaged(name):
                connection.execute(f"INSTALL {text_literal(str(path))}")
            elif name == DUCKLAKE:
                connection.execute(f"INSTALL {name}")


def _packaged(name: str) -> Path | None:
    package = find_spec(f"duckdb_extension_{name}")
    folders = (package and package.submodule_search_locations) or ()
    file = Path("extensions", f"v{duckdb.__version__}", f"{name}.duckdb_extension")
    return next((Path(f, file) for f in folders if Path(f, file).exists()), None)
