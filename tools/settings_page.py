"""The page of all settings: names, types and defaults from the code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import tomlkit
from dlt.common.typing import extract_inner_type

from esms_source.config import _NUMBERS, PHONE_POLICIES, Settings
from esms_source.config.ref_id_table import RefIdTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlt.common.configuration.specs import BaseConfiguration

WORDS: Final = Path(__file__).with_name("settings.toml")


def settings_page() -> str:
    """Return docs/settings.md but for its first line."""
    words = tomlkit.parse(WORDS.read_text("utf-8")).unwrap()
    lines = [
        words["introduction"],
        "## `[sources.esms]`\n",
        *_table(Settings, words["esms"]),
        "\n## `[sources.esms.ref_ids]`: the warehouse table\n",
        *_table(RefIdTable, words["ref_ids"]),
    ]
    return "\n".join(lines) + "\n"


def _table(kind: type[BaseConfiguration], meanings: Mapping[str, str]) -> Iterator[str]:
    defaults = kind()
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, hint in kind.get_resolvable_fields().items():
        if name != "ref_ids":
            default = _default(getattr(defaults, name))
            yield f"| `{name}` | {_type(name, hint)} | {default} | {meanings[name]} |"


def _type(name: str, hint: Any) -> str:  # noqa: ANN401  dlt's
    if name in _NUMBERS:
        return _NUMBERS[name][1]
    if name == "lag":
        return "seconds, 0 or more"
    if name == "phone_number":
        return " / ".join(f"`{policy}`" for policy in PHONE_POLICIES)
    inner = extract_inner_type(hint)
    if get_args(inner):
        return "list of texts"
    names = {str: "text", bool: "true or false", float: "number", int: "number"}
    return names.get(inner, "text or table")


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"
