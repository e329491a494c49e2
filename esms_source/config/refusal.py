"""How settings are refused, and the checks that several of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from esms_source.config.providers import SECTIONS
from esms_source.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def _environment_name(name: str) -> str:
    return "__".join((*SECTIONS, *name.split("."))).upper()


def refuse(name: str, fact: str, remedy: str) -> ConfigError:
    """Return the error for a setting: the fact, and the remedy with where to set it."""
    return ConfigError(f"{name}: {fact}", f"{remedy} ({_environment_name(name)})")


def require_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse what is none of the words that a setting may be.

    Raises:
        ConfigError: It is another one.
    """
    if value not in allowed:
        remedy = f"use one of {', '.join(allowed)}"
        raise refuse(name, f"{value!r} is not allowed", remedy)


def require_zone(name: str, zone: str) -> None:
    """Refuse what is no time zone.

    Raises:
        ConfigError: The system knows no such zone.
    """
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as exc:
        remedy = "name a zone such as Asia/Ho_Chi_Minh or UTC"
        raise refuse(name, f"{zone!r} is not a time zone", remedy) from exc
