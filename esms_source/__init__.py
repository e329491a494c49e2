"""A dlt source for the delivery callbacks of eSMS.vn's Zalo messages."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esms_source.api.error_info import ParsedError, parse_error_info
    from esms_source.exceptions import EsmsError
    from esms_source.outcome import Report
    from esms_source.run import sync
    from esms_source.source import esms_source

__all__ = [
    "EsmsError",
    "ParsedError",
    "Report",
    "esms_source",
    "parse_error_info",
    "sync",
]

_HOMES = {
    "EsmsError": "exceptions",
    "ParsedError": "api.error_info",
    "Report": "outcome",
    "esms_source": "source",
    "parse_error_info": "api.error_info",
    "sync": "run",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: dlt takes a second to load."""
    if name not in _HOMES:
        raise AttributeError(name)
    value = getattr(import_module(f"esms_source.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
