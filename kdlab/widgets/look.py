"""One look for every widget: colours told apart by the colour-blind, axes, legends, spacing."""

import html
import math
from typing import Any

import bqplot
import ipywidgets

from kdlab.widgets.names import AccessibleNames

# Okabe and Ito, "Color Universal Design", 2008.
TEACHER = "#0072B2"
STUDENT = "#E69F00"
GRADIENT = "#009E73"
LOSS = "#D55E00"
POINT = "#CC79A7"
GREY = "#808080"

# How far below an axis its label stands, clear of the numbers at the ticks.
LABEL_OFFSET = "32px"
WRAP = {"display": "flex", "flex_flow": "row wrap", "align_items": "center", "width": "100%"}

# bqplot's dark theme has orange words and grid lines that vanish. Here text, axes and grid are the
# page's own text colour, so that they can be read in any theme, in VS Code and Colab too.
STYLE = """<style>
.kdlab { gap: 4px; }
.kdlab .widget-box { overflow: visible; } /* a box that could scroll would be a Tab stop */
.kdlab .widget-hbox { column-gap: 8px; }
.kdlab .widget-html-content { line-height: 1.45; }
.kdlab .widget-inline-hbox .widget-label { text-align: left; }
.kdlab table { border-spacing: 5px 1px; margin: 0 -5px; font-variant-numeric: tabular-nums; }
.kdlab th { text-align: left; font-weight: 600; white-space: nowrap; }
.kdlab td { text-align: right; }
.kdlab .bqplot {
  --bq-content-font-color: currentColor;
  --bq-axislabel-fill: currentColor;
  --bq-axis-tick-text-fill: currentColor;
  --bq-axis-path-stroke: currentColor;
  --bq-axis-border-color: currentColor;
  --bq-axis-tick-short-stroke: currentColor;
  --bq-axis-tick-stroke: rgba(128, 128, 128, 0.35);
  --bq-axislabel-font: 12px sans-serif;
}
.kdlab-landscape svg.svg-figure * { pointer-events: none; }
.kdlab-landscape svg.svg-figure .plotarea_events { pointer-events: all !important; }
.kdlab-landscape svg.svg-figure [clip-path] text {
  paint-order: stroke; stroke: rgba(0, 0, 0, 0.75); stroke-width: 3px; stroke-linejoin: round;
}
.kdlab .noUi-handle:focus-visible, .kdlab .widget-readout:focus-visible,
.kdlab input:focus-visible, .kdlab select:focus-visible, .kdlab button:focus-visible {
  outline: 3px solid #56B4E9; outline-offset: 1px;
}
</style>"""


def dress(
    instrument: Any, children: list, figures: dict[str, str], *, width: str = "900px"
) -> None:
    """Give an instrument (a VBox) its children, the shared style and names for screen readers.

    figures: {the CSS class given to a bqplot figure: what the figure shows, in words}.
    """
    hidden = ipywidgets.Layout(display="none")
    instrument.add_class("kdlab")
    instrument.layout = ipywidgets.Layout(max_width=width, width="100%")
    instrument.children = [
        *children,
        ipywidgets.HTML(STYLE, layout=hidden),
        AccessibleNames(figures=figures),
    ]


def choice(name: str, value: Any, choices: Any) -> Any:
    """The value, if it is one of the choices, or a ValueError that names the argument."""
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}; expected one of {', '.join(map(repr, choices))}")
    return value


def between(name: str, value: Any, low: float, high: float) -> Any:
    """The value, if low ≤ value ≤ high (NaN is not), or a ValueError that names the argument."""
    if not low <= value <= high:
        raise ValueError(f"{name}: got {value}; expected {low:g} to {high:g}")
    return value


def control_layout(width: str) -> ipywidgets.Layout:
    return ipywidgets.Layout(width=width, max_width="100%")


def slider(
    kind: Any, words: str, value: Any, low: Any, high: Any, step: Any, width: str, **more: Any
) -> Any:
    """An ipywidgets slider whose description is written out in full."""
    return kind(
        value=value,
        min=low,
        max=high,
        step=step,
        description=words,
        style={"description_width": "initial"},
        layout=control_layout(width),
        **more,
    )


def beta_slider(value: float, lowest: float, highest: float, step: float) -> Any:
    """β on a log scale, from 2^lowest to 2^highest."""
    return slider(
        ipywidgets.FloatLogSlider,
        "β (inverse temperature)",
        value,
        lowest,
        highest,
        step,
        "410px",
        base=2,
        readout_format=".3f",
        tooltip="β = 1/T: left softens, right sharpens",
    )


def dropdown(words: str, options: Any, value: Any, width: str) -> Any:
    """An ipywidgets dropdown whose description is written out in full."""
    return ipywidgets.Dropdown(
        options=options,
        value=value,
        description=words,
        style={"description_width": "initial"},
        layout=control_layout(width),
    )


def figure(
    marks: list, axes: list, *, height: str, kind: str = "", title: str = "", **margins: int
) -> Any:
    """A bqplot figure that fills its box and takes its colours from the page's theme.

    kind: a CSS class, by which `dress` gives the figure its name for screen readers.
    """
    made = bqplot.Figure(
        marks=marks,
        axes=axes,
        title=title,
        fig_margin={"top": 8, "bottom": 40, "left": 58, "right": 8, **margins},
        background_style={"fill": "none"},
        padding_y=0,
        display_toolbar=False,
        layout=ipywidgets.Layout(width="100%", height=height, min_width="0"),
    )
    if kind:
        made.add_class(kind)
    return made


def key(*entries: tuple[str, str]) -> str:
    """A legend in HTML from (colour, words)."""
    return " ".join(
        '<span style="white-space:nowrap;margin-right:1em">'
        f'<span style="display:inline-block;width:.9em;height:.9em;background:{colour}"></span> '
        f"{html.escape(words)}</span>"
        for colour, words in entries
    )


def round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten: an axis that moves in steps, so that bars can be
    seen to move between them.

    >>> round_up(0.037), round_up(2.0), round_up(0.0)
    (0.05, 2.0, 1.0)
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    exponent = math.floor(math.log10(value))
    for step in (1, 2, 5, 10):
        bound = float(f"{step}e{exponent}")
        if value <= bound:
            return bound
    return float(f"1e{exponent + 1}")


def class_axes(class_names: tuple[str, ...], x: Any, y: Any) -> list:
    """Axes for one group of bars a class; long names are turned so that they don't overlap."""
    long = max(map(len, class_names)) > 4
    turned = {"tick_rotate": -30, "tick_style": {"text-anchor": "end"}} if long else {}
    return [
        bqplot.Axis(
            scale=x,
            label="" if long else "class",
            label_offset=LABEL_OFFSET,
            grid_lines="none",
            **turned,
        ),
        bqplot.Axis(scale=y, orientation="vertical", num_ticks=5, tick_format="~g"),
    ]
