"""The site of these pages: ``make docs-site``."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "esms_source"
author = "esms_source contributors"
version = release = metadata.version("esms-source")

# The source folder is the repository's: pages link to what is beside docs/.
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "benchmarks/RESULTS.md",
    "dbt/README.md",
    "docs/**",
    "sources/esms/README.md",
]
exclude_patterns = [".*", "site", "dist"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
highlight_language = "none"
autodoc_typehints = "none"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"esms_source {version}"
html_extra_path = ["extra"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False


def setup(app: Sphinx) -> dict[str, Any]:
    """Show diagrams as text: drawing them would load a script from elsewhere."""
    app.add_lexer("mermaid", TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
