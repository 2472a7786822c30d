"""One look for every widget: colours told apart by the colour-blind, axes, legends, spacing."""

import html
import math
from typing import Any

import bqplot
import ipywidgets
from torch import Tensor

# Okabe and Ito, "Color Universal Design", 2008.
TEACHER = "#0072B2"
STUDENT = "#E69F00"
GRADIENT = "#009E73"
# Told apart in grey and in print too: the student's bars are lighter.
OPACITY = {TEACHER: 1.0, STUDENT: 0.75}

WIDTH = "700px"
WRAP = {"display": "flex", "flex_flow": "row wrap", "align_items": "center", "width": "100%"}


def control_layout(width: str) -> ipywidgets.Layout:
    return ipywidgets.Layout(width=width, max_width="100%")


def figure(marks: list, axes: list, *, height: str, title: str = "", **margins: int) -> Any:
    """A bqplot figure that fills its box and takes its background from the page's theme."""
    return bqplot.Figure(
        marks=marks,
        axes=axes,
        title=title,
        fig_margin={"top": 8, "bottom": 40, "left": 58, "right": 8, **margins},
        background_style={"fill": "none"},
        padding_y=0,
        display_toolbar=False,
        layout=ipywidgets.Layout(width="100%", height=height, min_width="0"),
    )


def key(*entries: tuple[str, str]) -> str:
    """A legend in HTML from (colour, words)."""
    return "".join(
        f'<span style="display:inline-block;width:.9em;height:.9em;margin-right:.3em;'
        f'background:{colour};opacity:{OPACITY.get(colour, 1)}"></span>'
        f'<span style="margin-right:1.2em">{html.escape(words)}</span>'
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
        bqplot.Axis(scale=x, label="" if long else "class", grid_lines="none", **turned),
        bqplot.Axis(scale=y, orientation="vertical", num_ticks=5, tick_format="~g"),
    ]


class Picture:
    """An example's input as bqplot draws it: (H, W) as a picture, (L,) as a signal.

    `widget` is the figure, or None where there are no inputs.
    """

    def __init__(self, inputs: Tensor | None) -> None:
        self._inputs = inputs
        self.widget = None
        if inputs is None:
            return
        low, high = inputs.min().item(), inputs.max().item()
        if low == high:
            low, high = low - 0.5, high + 0.5
        if inputs.dim() == 2:
            x, y = bqplot.LinearScale(), bqplot.LinearScale(min=low, max=high)
            samples = list(range(inputs.shape[1]))
            self._mark = bqplot.Lines(
                x=samples, y=inputs[0].numpy(), scales={"x": x, "y": y}, colors=["#777777"]
            )
            axes = [
                bqplot.Axis(scale=x, label="sample", num_ticks=5, grid_lines="none"),
                bqplot.Axis(scale=y, orientation="vertical", num_ticks=5, tick_format="~g"),
            ]
            self.widget = figure([self._mark], axes, height="180px", left=38)
        else:
            # A grid of rectangles stays crisp where a scaled-up canvas would blur 8 × 8 pixels.
            self._mark = bqplot.GridHeatMap(
                color=inputs[0].numpy(),
                scales={
                    "row": bqplot.OrdinalScale(reverse=False),
                    "column": bqplot.OrdinalScale(),
                    "color": bqplot.ColorScale(scheme="Greys", min=low, max=high),
                },
                stroke="transparent",
            )
            self.widget = figure([self._mark], [], height="180px", left=4, right=4, top=4, bottom=4)

    def show(self, example: int) -> None:
        if self._inputs is None:
            return
        values = self._inputs[example].numpy()
        if self._inputs.dim() == 2:
            self._mark.y = values
        else:
            self._mark.color = values
