"""Curves over seeds: the mean as a line, worst to best as a band; in bqplot, HTML, matplotlib."""

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import bqplot
import numpy as np

# Okabe and Ito, "Color Universal Design", 2008, with a dash pattern each: told apart without
# colour too. Blue is the teacher's and orange the student's, as everywhere in the course.
LABELS_ONLY = ("#009E73", "dashed")
LANES = (
    ("#E69F00", "solid"),
    ("#D55E00", "dash_dotted"),
    ("#CC79A7", "dotted"),
    ("#56B4E9", "solid"),
    ("#8A8A8A", "dashed"),
)
DASHES = {"solid": "", "dashed": "8 4", "dotted": "2 3", "dash_dotted": "8 3 2 3"}
MATPLOTLIB = {"solid": "-", "dashed": "--", "dotted": ":", "dash_dotted": "-."}


@dataclass(frozen=True)
class Style:
    """A colour and a dash pattern of bqplot's."""

    colour: str
    dash: str

    def swatch(self) -> str:
        """A piece of the line, for a legend in HTML."""
        return (
            '<svg width="34" height="10" aria-hidden="true" style="vertical-align:middle">'
            f'<line x1="1" y1="5" x2="33" y2="5" stroke="{self.colour}" stroke-width="3" '
            f'stroke-dasharray="{DASHES[self.dash]}"/></svg>'
        )


def lane_styles(
    betas: Iterable[float | None], before: Mapping[float | None, Style] | None = None
) -> dict[float | None, Style]:
    """A style a lane: labels only (None) has its own, and who had one before keeps it.

    >>> first = lane_styles([None, 0.25])
    >>> lane_styles([None, 0.125, 0.25], first)[0.25] == first[0.25]
    True
    """
    betas = list(betas)
    kept = {beta: style for beta, style in (before or {}).items() if beta in betas}
    free = iter([style for lane in LANES if (style := Style(*lane)) not in kept.values()])
    return {
        beta: Style(*LABELS_ONLY) if beta is None else kept.get(beta) or next(free)
        for beta in betas
    }


class Curve:
    """One lane in one bqplot figure: `marks` to draw, `show` to move them."""

    def __init__(self, scales: dict[str, Any], style: Style, **line: Any) -> None:
        self._band = bqplot.Lines(
            x=[],
            y=[[], []],
            scales=scales,
            colors=[style.colour] * 2,
            opacities=[0, 0],
            fill="between",
            fill_colors=[style.colour] * 2,
            fill_opacities=[0.2, 0.2],
        )
        self._line = bqplot.Lines(
            x=[],
            y=[],
            scales=scales,
            colors=[style.colour],
            line_style=style.dash,
            stroke_width=2.5,
            **line,
        )
        self.marks = [self._band, self._line]

    def show(self, x: list, rows: list[list[float]]) -> None:
        """`rows` has a seed's values a row. NaN, where nothing was measured, is left out."""
        values = np.asarray(rows, dtype=float)
        kept = np.isfinite(values).all(0)
        at, values = np.asarray(x, dtype=float)[kept], values[:, kept]
        with self._band.hold_sync(), self._line.hold_sync():
            self._line.x, self._line.y = at, values.mean(0)
            self._band.x, self._band.y = at, np.stack([values.min(0), values.max(0)])


def spread(values: list[float], digits: int = 3) -> str:
    """The mean over seeds, and worst to best if there are several.

    >>> spread([0.5, 0.75])
    '0.625 (0.500–0.750)'
    >>> spread([float("nan")])  # not measured
    '–'
    """
    if not np.isfinite(values).all():
        return "–"
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table(head: list[str], rows: list[list[str]], caption: str) -> str:
    """An HTML table; the first cell of a row is HTML and its header, the others are text."""
    cell = "padding:1px 14px 1px 0;text-align:"
    top = "".join(f'<th scope="col" style="{cell}left">{html.escape(words)}</th>' for words in head)
    body = "".join(
        f'<tr><th scope="row" style="{cell}left;font-weight:normal">{first}</th>'
        + "".join(f'<td style="{cell}left">{html.escape(text)}</td>' for text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<table style="font-variant-numeric:tabular-nums;line-height:1.5" '
        f'aria-label="{html.escape(caption)}"><tr>{top}</tr>{body}</table>'
    )
