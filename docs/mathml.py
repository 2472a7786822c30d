"""Formulas as MathML: browsers draw it themselves, so pages need no script and no network.

Sphinx's own renderers are MathJax (from a network) and images (from a TeX installation).
"""

from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert


def mathml(tex: str, display: str) -> str:
    made = convert(tex, display=display)
    if "\\" in made:  # a command that the converter does not know, which it shows as it is
        raise ValueError(f"formula {tex!r}: a command in it has no MathML: {made!r}")
    return made


def inline(translator: Any, node: Any) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def block(translator: Any, node: Any) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(mathml(node.astext(), "block") + "</div>")
    raise SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
