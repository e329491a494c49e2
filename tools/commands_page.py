"""The page of all commands: what each prints for ``--help``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner

from esms_source.cli.commands import main

if TYPE_CHECKING:
    from collections.abc import Iterator

INTRODUCTION = """# Commands

What each command prints for `--help`. Options of `esms` itself stand before the
command: `esms --quiet run`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the run ended, but RefIds, an OA, the API key or the destination failed |
| 2 | the command or a setting is wrong, or the warehouse table can't be read |
| 75 | another run holds the pipeline, or something held file or tables for 300 s |

Results go to stdout, progress and messages to stderr. `--json` prints for programs.
Settings, and where they come from: [settings.md](settings.md).
"""


def help_of(*words: str) -> str:
    """Return what a command prints for ``--help``, 80 columns wide."""
    return CliRunner().invoke(main, [*words, "--help"], prog_name="esms").output


def commands_page() -> str:
    """Return docs/commands.md but for its first line."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    yield f"## esms\n\n```\n{help_of()}```\n"
    for name in main.commands:
        yield f"## esms {name}\n"
        yield f"<!-- help {name} -->\n```\n{help_of(name)}```\n<!-- /help -->\n"
