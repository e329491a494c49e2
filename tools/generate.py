"""Write what is made of the code: pages in docs/, and the dbt package's models.

Run it after a change to either: ``python tools/generate.py``. A test compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from architecture_page import PAGE, architecture_page
from commands_page import commands_page
from dbt_files import dbt_files
from settings_page import settings_page
from tables_page import tables_page

ROOT: Final = Path(__file__).parents[1]
COMMENTS: Final = {".md": "<!-- {} -->", ".sql": "-- {}", ".yml": "# {}"}


def made_files() -> dict[Path, str]:
    """Return the text of all files that are made, by path."""
    files = {
        "docs/commands.md": ("cli/*.py", commands_page()),
        "docs/settings.md": ("config/*.py and tools/settings.toml", settings_page()),
        "docs/tables.md": ("tables.py and esms_source/views/*.sql", tables_page()),
        **{f"dbt/{name}": made for name, made in dbt_files().items()},
    }
    made = {
        ROOT / name: f"{_first_line(name, source)}\n{text}"
        for name, (source, text) in files.items()
    }
    return {**made, PAGE: architecture_page()}


def _first_line(name: str, source: str) -> str:
    told = f"made by tools/generate.py; change esms_source/{source} instead"
    return COMMENTS[Path(name).suffix].format(told)


def main() -> None:
    """Write all files."""
    for path, text in made_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
