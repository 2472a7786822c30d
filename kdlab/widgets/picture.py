"""An example's input, drawn by bqplot."""

import bqplot
from torch import Tensor

from kdlab.widgets import look


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
                x=samples, y=inputs[0].numpy(), scales={"x": x, "y": y}, colors=[look.GREY]
            )
            axes = [
                bqplot.Axis(
                    scale=x,
                    label="sample",
                    label_offset=look.LABEL_OFFSET,
                    num_ticks=5,
                    grid_lines="none",
                ),
                bqplot.Axis(scale=y, orientation="vertical", num_ticks=5, tick_format="~g"),
            ]
            self.widget = look.figure(
                [self._mark], axes, height="180px", kind="kdlab-picture", left=38
            )
        else:
            # A grid of rectangles stays crisp where a scaled-up canvas would blur 8 × 8 pixels.
            self._mark = bqplot.GridHeatMap(
                color=inputs[0].numpy(),
                scales={
                    # bqplot counts rows upwards, pictures downwards.
                    "row": bqplot.OrdinalScale(reverse=True),
                    "column": bqplot.OrdinalScale(),
                    "color": bqplot.ColorScale(scheme="Greys", min=low, max=high),
                },
                stroke="transparent",
            )
            self.widget = look.figure(
                [self._mark],
                [],
                height="180px",
                kind="kdlab-picture",
                left=4,
                right=4,
                top=4,
                bottom=4,
            )

    def show(self, example: int) -> None:
        if self._inputs is None:
            return
        values = self._inputs[example].numpy()
        if self._inputs.dim() == 2:
            self._mark.y = values
        else:
            self._mark.color = values
