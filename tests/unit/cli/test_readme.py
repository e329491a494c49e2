import re
from pathlib import Path

from click.testing import CliRunner

from esms_source.cli.commands import main

README = Path(__file__).parents[3] / "README.md"
HELP_BLOCK = re.compile(
    r"<!-- help (\w+) -->\n```\n(.*?)```\n<!-- /help -->", re.DOTALL
)


def help_of(command: str) -> str:
    runner = CliRunner()
    return runner.invoke(main, [command, "--help"], prog_name="esms").output


def test_help_blocks_are_what_the_program_prints():
    """The README shows each help text to the letter."""
    blocks = HELP_BLOCK.findall(README.read_text())
    assert blocks
    for command, text in blocks:
        assert text == help_of(command)


def test_every_command_has_help_and_is_named_in_the_readme():
    """A command that isn't documented can't be found."""
    readme = README.read_text()
    for name, command in main.commands.items():
        assert command.help
        assert f"esms {name}" in readme
        for parameter in command.params:
            assert parameter.human_readable_name
            if parameter.param_type_name == "option":
                assert getattr(parameter, "help", None), f"{name} {parameter.name}"
