"""The delivery figures as one HTML page that needs no network.

The page embeds Chart.js 4.6.1 (https://www.chartjs.org), Copyright (c) 2014-2024
Chart.js Contributors, under the MIT licence in ``chart.LICENSE.md``; the file
``chart.umd.min.js`` is as the npm package ``chart.js`` has it.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from esms_source.exceptions import ConfigError
from esms_source.redaction import first_line
from esms_source.report.figures import read_figures

if TYPE_CHECKING:
    from pathlib import Path

    import dlt

    from esms_source.config import Settings

__all__ = ["write_report"]

TITLE: Final = b"<title>eSMS delivery</title>"
"""By this a page is known as one of ours."""
SCRIPTS: Final = ("texts.js", "sums.js", "page.js", "start.js")
"""The page's script, in parts: they are one function together."""


def write_report(pipeline: dlt.Pipeline, settings: Settings, path: Path) -> Path:
    """Write the page of a dataset's delivery figures.

    It holds aggregates only: no RefId, no phone number and no text of an answer.

    Args:
        pipeline: Where the tables are.
        settings: The time zone in which days are cut.
        path: The file to write; an earlier report is replaced.

    Returns:
        The absolute path of the page.

    Raises:
        DestinationError: There is nothing to report, or it can't be read.
        ConfigError: The file can't be written, or holds something else.
    """
    _check_path(path)
    page = make_page(read_figures(pipeline, settings))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as exc:
        fact = f"{str(path)!r} can't be written ({exc.strerror})"
        raise ConfigError(fact, "choose another --output") from exc
    return path.resolve()


def _check_path(path: Path) -> None:
    """Refuse to write where another file would be lost.

    Raises:
        ConfigError: There is one, or no folder for it.
    """
    try:
        if not path.parent.is_dir():
            fact = f"there is no folder {str(path.parent)!r}"
            raise ConfigError(fact, "make it, or choose another --output")
        if not path.is_file():
            return
        with path.open("rb") as file:
            begin = file.read(len(_read("template.html")))
    except (OSError, ValueError) as exc:
        fact = f"{str(path)!r} can't be written ({first_line(exc)})"
        raise ConfigError(fact, "choose another --output") from exc
    if begin and TITLE not in begin:
        fact = f"{str(path)!r} is not an earlier report"
        raise ConfigError(fact, "choose another --output, or move it away")


def make_page(figures: dict[str, Any]) -> str:
    """Return the page of some figures, with all that it needs inside."""
    chart, _, _ = _read("chart.umd.min.js").partition("//# sourceMappingURL")
    parts = {
        "style": _read("page.css"),
        "figures": _as_script_text(figures),
        "chart": chart,
        "script": "\n".join(map(_read, SCRIPTS)),
    }
    return re.sub(
        r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("template.html")
    )


def _read(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")


def _as_script_text(value: object) -> str:
    """Return JSON that can't end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", r"\u003c")
