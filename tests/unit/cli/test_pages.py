"""What the pages say of commands, options, settings and files is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from esms_source.cli.commands import main
from esms_source.config import Settings
from esms_source.config.ref_id_table import RefIdTable
from esms_source.tables import RUNS, STATES, TABLES
from esms_source.views import NAMES, read_view

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
VIETNAMESE = ROOT / "docs" / "vi" / "bat-dau.md"
MADE = (".venv", ".environments", ".pytest_cache", "esms-demo", "site")
"""How folders begin that hold pages of others."""

PAGES = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not any(part.startswith(MADE) for part in path.relative_to(ROOT).parts)
]
BY_NAME = [str(path.relative_to(ROOT)) for path in PAGES]

HELP_BLOCK = re.compile(
    r"<!-- help (\w+) -->\n```\n(.*?)```\n<!-- /help -->", re.DOTALL
)
FENCE = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
# dlt init names the source, not the command.
CALL = re.compile(
    r"(?<!dlt init )(?<![\w./-])esms((?: --[a-z-]+(?: (?:text|json)\b)?)*)"
    r" ([a-z][a-z-]*)\b([^#|&;`]*)"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
VARIABLE = re.compile(r"\bSOURCES__ESMS__([A-Z_]+)\b")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
SETTINGS = frozenset(Settings.get_resolvable_fields())
OF_TABLE = frozenset(RefIdTable.get_resolvable_fields())


def help_of(command: str) -> str:
    runner = CliRunner()
    return runner.invoke(main, [command, "--help"], prog_name="esms").output


def options_of(name: str) -> set[str]:
    """Return the options of a command; of ``esms`` itself without a name."""
    command = main.commands[name] if name else main
    named = {option for param in command.params for option in param.opts}
    return named | {"--help"}


def code_of(page: Path) -> Iterator[str]:
    """Yield the lines of a page that are code, fenced or inline."""
    text = page.read_text("utf-8")
    for block in FENCE.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from INLINE.findall(FENCE.sub("", text))


def settings_in_toml(page: Path) -> Iterator[tuple[str, str]]:
    """Yield section and name of each setting of ours in a page's TOML."""
    ours = False
    section = ""
    for line in code_of(page):
        if header := re.fullmatch(r"#? ?\[([\w.]+)\].*", line):
            section = header[1]
            ours = section.endswith(("sources.esms", "sources.esms.ref_ids"))
        elif ours and (given := re.match(r"(?:# ?)?(\w+) = ", line)):
            yield section, given[1]


def test_help_blocks_are_what_the_program_prints():
    """The page of the commands shows each help text to the letter."""
    blocks = dict(HELP_BLOCK.findall(COMMANDS.read_text("utf-8")))
    assert set(blocks) == set(main.commands)
    for command, text in blocks.items():
        assert text == help_of(command)


def test_every_command_has_help_and_is_named_in_the_readme():
    """A command that isn't documented can't be found."""
    readme = README.read_text("utf-8")
    for name, command in main.commands.items():
        assert command.help
        assert f"esms {name}" in readme
        for parameter in command.params:
            assert parameter.human_readable_name
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_the_readme_is_read_quickly():
    """It is at most 160 lines long."""
    assert len(README.read_text("utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=BY_NAME)
def test_named_commands_and_options_exist(page: Path):
    """What a page tells to type is taken by the program."""
    everywhere = {option for name in main.commands for option in options_of(name)}
    everywhere |= options_of("")
    for line in code_of(page):
        for before, name, rest in CALL.findall(line):
            assert set(OPTION.findall(before)) <= options_of(""), line
            assert name in main.commands, line
            assert set(OPTION.findall(rest)) <= options_of(name), line
        if option := OPTION.match(line):
            assert option[0] in everywhere, line


@pytest.mark.parametrize("page", PAGES, ids=BY_NAME)
def test_named_settings_exist(page: Path):
    """A setting that a page shows is one of the program's."""
    for name in VARIABLE.findall(page.read_text("utf-8")):
        table, _, column = name.partition("REF_IDS__")
        assert name == table or not table, name
        assert (column or table).lower() in (OF_TABLE if column else SETTINGS), name
    for section, name in settings_in_toml(page):
        assert name in (OF_TABLE if section.endswith("ref_ids") else SETTINGS), name


@pytest.mark.parametrize("page", PAGES, ids=BY_NAME)
def test_links_lead_somewhere(page: Path):
    """A link within the repository names a file, and a heading of it."""
    text = FENCE.sub("", page.read_text("utf-8"))
    for target, heading in LINK.findall(INLINE.sub("", text)):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if heading:
            assert heading in anchors(path), f"{target}#{heading}"


def anchors(page: Path) -> set[str]:
    """Return the names under which a page's headings are linked."""
    text = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in headings
    }


def test_every_setting_is_in_the_example_files():
    """The files to copy show all settings."""
    shown = "".join(
        (ROOT / ".dlt" / name).read_text("utf-8")
        for name in ("config.toml", "secrets.example.toml")
    )
    for name in (SETTINGS | OF_TABLE) - {"ref_ids"}:
        assert re.search(rf"^#? ?{name} = ", shown, re.MULTILINE) or name == "query"


def test_names_on_the_vietnamese_page_exist():
    """Every name in its code is a setting, a table, a view, a column or a state."""
    known = SETTINGS | OF_TABLE | set(STATES) | set(NAMES) | {"esms_source"}
    known |= {table.name for table in (*TABLES, RUNS)}
    known |= {column.name for table in (*TABLES, RUNS) for column in table.columns}
    known |= {column for name in NAMES for column in read_view(name).columns}
    text = FENCE.sub("", VIETNAMESE.read_text("utf-8"))
    for code in INLINE.findall(text):
        if name := re.match(r"[a-z]+(?:_[a-z]+)+(?= =|$)", code):
            assert name[0] in known, code
