"""Read the pages as a reader does: proselint's checks, and words of our own.

``python tools/prose.py`` names each place, and what to write instead: prose.toml.
In code it reads comments and texts, docstrings among them, for our own words only.
"""

from __future__ import annotations

import re
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tomlkit
from proselint.checks import __register__ as checks
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
RULES: Final = tomlkit.parse(Path(__file__).with_name("prose.toml").read_text("utf-8"))
PAGES: Final = (
    "*.md",
    "benchmarks/*.md",
    "dbt/*.md",
    "docs/**/*.md",
    "sources/**/*.md",
)
SOURCES: Final = ("esms_source/**/*.py", "pipelines/*.py", "tools/*.py")
NO_PROSE: Final = ("docs/vi/", "docs/commands.md", "docs/tables.md")
"""Vietnamese, and what the program and its views say of themselves."""

CODE: Final = re.compile(
    r"^ *```.*?^ *```|`[^`\n]+`|<!--.*?-->|\]\([^)\n]*\)|<https?:[^>]*>",
    re.DOTALL | re.MULTILINE,
)
KINDS: Final = (
    ("words", r"\b(?:{})", re.IGNORECASE),
    ("names", r"(?<![\w-])(?:{})(?![\w#-]|\.md)", 0),
)
"""Groups of rules: where in a text they look, and whether the case counts."""

TEXTS: Final = (
    tokenize.COMMENT,
    tokenize.STRING,
    getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),  # from Python 3.12 on
)

OFF: Final = ("typography", "lexical_illusions")
"""Plain text's quotes and dashes; and figures such as 10 000, taken for words."""


def prose_of(page: Path) -> str:
    """Return a page's text with all code blanked out, each line where it was."""
    return CODE.sub(_blanked, page.read_text("utf-8"))


def _blanked(code: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "_", code[0])


def findings(page: Path) -> Iterator[tuple[int, str]]:
    """Yield line and words of what should be written in another way."""
    text = prose_of(page)
    given = DEFAULT["checks"] | dict.fromkeys(OFF, False)
    config = DEFAULT | {"checks": given}
    for found in LintFile(str(page), text).lint(config):
        yield found.pos[0], found.check_result.message
    for group in KINDS:
        yield from _words_of(group, text)


def _words_of(group: tuple[str, str, int], text: str) -> Iterator[tuple[int, str]]:
    name, whole, flags = group
    for pattern, advice in RULES[name].items():
        words = whole.format(pattern.replace(" ", r"\s+"))
        for match in re.finditer(words, text, flags):
            line = text.count("\n", 0, match.start()) + 1
            yield line, f"{' '.join(match[0].split())!r}: {advice}"


def findings_in_code(module: Path) -> Iterator[tuple[int, str]]:
    """Yield the same of a module's comments and texts."""
    with module.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in TEXTS:
                for line, words in _words_of(KINDS[0], token.string):
                    yield token.start[0] + line - 1, words


def main() -> int:
    """Print all findings; return 1 where there are any."""
    CheckRegistry().register_many(checks)
    count = 0
    for patterns, read in ((PAGES, findings), (SOURCES, findings_in_code)):
        for path in sorted({path for one in patterns for path in ROOT.glob(one)}):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(NO_PROSE):
                for line, words in sorted(read(path)):
                    sys.stdout.write(f"{name}:{line}: {words}\n")
                    count += 1
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
