"""Sphinx's settings. The catalogue and the tables of results are written from registry and rows before the build."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402

from zoo import __version__  # noqa: E402

project = "zoo"
author = "the zoo's authors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
napoleon_custom_sections = ["Shape"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
nitpicky = False
exclude_patterns = ["_build", "catalogue/_*.md"]

html_theme = "furo"
html_title = f"zoo {version}"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}

generate.write_all(HERE / "catalogue", HERE / "results")
