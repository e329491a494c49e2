"""The picture of the rooms in docs/architecture.md, drawn from the imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import tomlkit

PACKAGE: Final = Path(__file__).parents[1] / "esms_source"
PAGE: Final = PACKAGE.parent / "docs" / "architecture.md"
BLOCK: Final = re.compile(r"(<!-- rooms -->\n).*?(<!-- /rooms -->\n)", re.DOTALL)


def layers() -> list[list[str]]:
    """Return the rooms from top to bottom, as the first import contract has them."""
    pyproject = tomlkit.parse((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    contract = pyproject.unwrap()["tool"]["importlinter"]["contracts"][0]
    return [layer.split(" | ") for layer in contract["layers"]]


def architecture_page() -> str:
    """Return the page with its picture drawn anew."""
    return BLOCK.sub(rf"\1```\n{_picture()}```\n\2", PAGE.read_text("utf-8"))


def arrows() -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    found: dict[str, set[str]] = {room: set() for layer in layers() for room in layer}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if room in found and isinstance(node, ast.ImportFrom) and node.module:
                package, _, rest = node.module.partition(".")
                imported = rest.partition(".")[0]
                if package == PACKAGE.name and imported not in ("", room):
                    found[room].add(imported)
    return found


def _picture() -> str:
    order = [room for layer in layers() for room in layer]
    found = arrows()
    lines = []
    for layer in layers():
        for room in layer:
            below = sorted(found[room], key=order.index)
            lines.append(f"{room:<12}{_knows(room)}")
            lines.append(f"{'':<12}→ {', '.join(below)}" if below else "")
        lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _knows(room: str) -> str:
    path = PACKAGE / room / "__init__.py"
    path = path if path.exists() else PACKAGE / f"{room}.py"
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0]
