"""Sphinx configuration. The reference is generated from the code by ``_ext/mailer_reference.py``."""

import sys
from pathlib import Path

_here = Path(__file__).parent
sys.path[:0] = [str(_here.parent), str(_here / "_ext")]

import congressy_mailer  # noqa: E402

project = "Congressy Mailer"
author = "Congressy"
copyright = "Congressy"
release = version = congressy_mailer.__version__

extensions = ["myst_parser", "mailer_reference", "mailer_rooms"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Congressy Mailer {release}"
html_copy_source = False
