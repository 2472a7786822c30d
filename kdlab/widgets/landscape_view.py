"""The loss landscape's marks: heat map, isolines, students, minimum and the path of a descent."""

import math
from typing import Any

import bqplot
import contourpy
import ipywidgets
import numpy as np
from bqplot_image_gl import Contour

from kdlab.widgets import look
from kdlab.widgets.surface import Surface

# One isoline for each factor of 10^(1/5) = 1.58 in the loss: many lines are a steep place, few a
# flat one, at any β.
LINES_PER_DECADE = 5
# Losses are drawn on a log scale; a loss of 0 has no logarithm.
SMALLEST = 1e-12
WORDS = "Map of the loss over the plane, with isolines, the lowest point and your student"
# Viridis (Smith, van der Walt, 2015): even steps of lightness, for the colour-blind and in grey.
VIRIDIS = ["#440154", "#3B528B", "#21918C", "#5EC962", "#FDE725"]


def log_losses(losses: Any) -> np.ndarray:
    """log₁₀ of the grid's losses as matplotlib and bqplot want them: (B, A), rows along b."""
    return np.log10(np.maximum(losses.numpy().T, SMALLEST))


def isolines(a: np.ndarray, b: np.ndarray, heights: np.ndarray) -> tuple[list[float], list]:
    """Levels of log₁₀ of the loss, and for each a list of its lines, (points, 2) arrays."""
    low = math.ceil(heights.min() * LINES_PER_DECADE)
    high = math.floor(heights.max() * LINES_PER_DECADE)
    generator = contourpy.contour_generator(a, b, heights)
    levels = [step / LINES_PER_DECADE for step in range(low, high + 1)]
    return levels, [generator.lines(level) for level in levels]


class LandscapeView:
    """`map` is the bqplot figure; `clicked` takes the points that a click on the map drops."""

    def __init__(self, surface: Surface, corner_names: tuple[str, ...]) -> None:
        self._a, self._b = surface.a.numpy(), surface.b.numpy()
        # bqplot centres cells on their values: half a cell more on each side shows them whole.
        half_a, half_b = (self._a[1] - self._a[0]) / 2, (self._b[1] - self._b[0]) / 2
        self._x = bqplot.LinearScale(min=self._a[0] - half_a, max=self._a[-1] + half_a)
        self._y = bqplot.LinearScale(min=self._b[0] - half_b, max=self._b[-1] + half_b)
        # The axis has a scale of its own: bqplot draws all cells anew when a scale of theirs moves,
        # and again when their values come. So the cells are shares of the axis, from 0 to 1.
        self.colour = bqplot.ColorScale(colors=VIRIDIS, min=-1, max=1)
        shares = bqplot.ColorScale(colors=VIRIDIS, min=0, max=1)
        plane = {"x": self._x, "y": self._y}
        flat = np.zeros((len(self._b), len(self._a)))
        self.heat = bqplot.HeatMap(
            x=self._a, y=self._b, color=flat, scales={**plane, "color": shares}
        )
        # Drawn as soon as they come; bqplot's own Lines move in the display's next frame.
        self.lines = Contour(
            level=[],
            contour_lines=[],
            scales=plane,
            color="rgba(255, 255, 255, 0.55)",
            label=" ",  # "" would write each level on its line
            label_steps=1000,
        )
        corners = surface.plane.corners.numpy()
        self.corners = self._points("square", "white", corners[:, 0], corners[:, 1], size=50)
        words = bqplot.Label(
            x=corners[:, 0],
            y=corners[:, 1],
            text=list(corner_names),
            scales=plane,
            colors=["white"],
            default_size=12,
            x_offset=8,
            y_offset=-6,
            font_weight="bold",
        )
        self.minimum = self._points("cross", look.POINT, [], [], size=110)
        self.path = bqplot.Lines(x=[], y=[], scales=plane, colors=["black"], stroke_width=2.5)
        self.student = self._points("circle", look.STUDENT, [], [], size=130)
        # Invisible: a click on the map adds a point here, and so tells Python where it was.
        self.clicked = bqplot.Scatter(
            x=np.zeros(1),
            y=np.zeros(1),
            scales=plane,
            opacities=[0.0],
            default_size=1,
            interactions={"click": "add"},
        )
        marks = [
            self.heat,
            self.lines,
            self.path,
            self.corners,
            words,
            self.minimum,
            self.student,
            self.clicked,
        ]
        axes = [
            bqplot.Axis(
                scale=self._x,
                label="a, distance in weight space",
                label_offset=look.LABEL_OFFSET,
                grid_lines="none",
                tick_values=_even_ticks(self._a),
            ),
            bqplot.Axis(
                scale=self._y,
                orientation="vertical",
                label="b",
                grid_lines="none",
                tick_values=_even_ticks(self._b),
            ),
            bqplot.ColorAxis(
                scale=self.colour,
                orientation="vertical",
                side="right",
                num_ticks=5,
                tick_format=".1f",
            ),
        ]
        self.map = look.figure(marks, axes, height="400px", kind="kdlab-landscape", right=80)

    def show_surface(self, heights: np.ndarray, hold_colours: bool) -> None:
        """New heights in the heat map; colours from lowest to highest, or as they were."""
        with self.colour.hold_sync(), self.heat.hold_sync():  # the last is sent first
            if not hold_colours:
                low, high = float(heights.min()), float(heights.max())
                self.colour.min, self.colour.max = low, max(high, low + 1e-6)
            self.heat.color = (heights - self.colour.min) / (self.colour.max - self.colour.min)

    def show_isolines(self, heights: np.ndarray) -> None:
        with self.lines.hold_sync():
            self.lines.level, self.lines.contour_lines = isolines(self._a, self._b, heights)

    def show_minimum(self, point: tuple[float, float] | None) -> None:
        _move(self.minimum, [] if point is None else [point])

    def show_path(self, path: list[tuple[float, float]]) -> None:
        _move(self.path, path)
        _move(self.student, path[-1:])

    def _points(self, marker: str, colour: str, x: Any, y: Any, size: int) -> Any:
        return bqplot.Scatter(
            x=x,
            y=y,
            scales={"x": self._x, "y": self._y},
            marker=marker,
            colors=[colour],
            stroke="black",
            stroke_width=1.5,
            default_size=size,
        )


def key() -> Any:
    """What the map's signs mean, in HTML."""
    entries = ((look.STUDENT, "your student"), (look.POINT, "lowest point"))
    return ipywidgets.HTML(
        "<b>log₁₀ of the loss of every student on the plane</b><br>"
        + look.key(*entries)
        + f"from line to line: a factor of {10 ** (1 / LINES_PER_DECADE):.2f}"
    )


def _even_ticks(values: np.ndarray) -> np.ndarray:
    step = look.round_up((values[-1] - values[0]) / 9)
    return step * np.arange(math.ceil(values[0] / step), math.floor(values[-1] / step) + 1)


def _move(mark: Any, points: list[tuple[float, float]]) -> None:
    with mark.hold_sync():
        mark.x = np.array([p[0] for p in points])
        mark.y = np.array([p[1] for p in points])
