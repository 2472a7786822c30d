"""The course as a web site: `make site` copies docs/ and notebooks/ together and runs Sphinx here.

Nothing is executed: pages show the outputs that the notebooks store.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib

from kdlab import diagrams

sys.path.insert(0, str(Path(__file__).parent))

project = "kdlab"
author = "the kdlab authors"
html_title = "kdlab: a course on model distillation"
root_doc = "index"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]

nb_execution_mode = "off"
nb_merge_streams = True
# No kernel stands behind a page: show a widget's HTML or text in place of its empty view.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
suppress_warnings = ["mystnb.unknown_mime_type"]  # verdicts and scores carry data for kdlab grade
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
myst_heading_slug_func = "anchors.jupyterlab"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say shapes and dtypes, which types do not
default_role = "code"  # docstrings say `name` as Markdown does
napoleon_google_docstring = True

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["course.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

# The picture on the first page, drawn by the library.
matplotlib.use("Agg")
picture = Path(__file__).parent / "static" / "distillation.svg"
diagrams.distillation().savefig(picture, bbox_inches="tight")


def _without_asides(app: Any, name: str, source: list[str]) -> None:
    """Nobody can commit a prediction on a page: that it was not done needs no saying."""
    source[0] = source[0].replace(" (No prediction was committed above.)", "")


def setup(app: Any) -> None:
    app.connect("source-read", _without_asides)
