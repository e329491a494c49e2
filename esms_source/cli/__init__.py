"""The command line."""

from esms_source.cli.commands import main

__all__ = ["main"]
