"""The kernel stepper's marks and words: the row, the running state, the bytes."""

import html
import math
from contextlib import ExitStack
from typing import Any

import bqplot
import ipywidgets

from kdlab.widgets import look

# Field of the state → how it is written, with what it is.
FIELDS = {
    "m_s": ("m_s", "maximum of z_s"),
    "z_s": ("Z_s", "Σ v"),
    "m_t": ("m_t", "maximum of z_t"),
    "z_t": ("Z_t", "Σ u"),
    "w": ("W", "Σ (u − v)"),
    "a": ("A", "Σ u β((z_t − m_t) − (z_s − m_s))"),
}
FADED = 0.25


def limits(state: dict[str, Any]) -> tuple[float, float]:
    """Lowest and highest finite logit of the row, 0 among them, with a margin."""
    finite = [z for z in state["student_logits"] + state["teacher_logits"] if math.isfinite(z)]
    low, high = min(*finite, 0.0), max(*finite, 0.0)
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def say(number: float | None) -> str:
    """A number as the tables write it: ∞ and −∞ as signs, NaN as NaN, four digits.

    >>> say(-math.inf), say(math.nan), say(0.123456)
    ('−∞', 'NaN', '0.1235')
    """
    if number is None or math.isfinite(number):
        return "" if number is None else f"{number:.4g}".replace("-", "−")
    return "NaN" if math.isnan(number) else ("∞" if number > 0 else "−∞")


class StepperView:
    """`widget` holds the bars of the row, the table of the state, the careless ways, the bytes."""

    def __init__(self) -> None:
        self._classes = bqplot.OrdinalScale()
        self._places = bqplot.LinearScale(min=-0.5, max=0.5)
        self._height = bqplot.LinearScale(min=0, max=1)
        free = {"x": self._places, "y": self._height}
        colours = [look.TEACHER, look.STUDENT]
        self.bars = bqplot.Bars(
            scales={"x": self._classes, "y": self._height},
            type="grouped",
            color_mode="element",
            colors=colours,
            opacity_mode="no_group",
            padding=0.2,
            stroke=look.GREY,
            stroke_width=0.5,
        )
        self.band = bqplot.Lines(
            scales=free,
            colors=[look.GRADIENT],
            fill="inside",
            fill_colors=[look.GRADIENT],
            fill_opacities=[0.2],
            close_path=True,
            stroke_width=1.5,
        )
        self.maxima = [
            bqplot.Lines(scales=free, colors=[colour], line_style=style, stroke_width=2.5)
            for colour, style in zip(colours, ("solid", "dashed"), strict=True)
        ]
        self.masked = bqplot.Scatter(
            scales=free, marker="cross", colors=[look.LOSS], default_size=30, stroke=look.LOSS
        )
        axes = [
            bqplot.Axis(
                scale=self._places,
                label="class",
                label_offset=look.LABEL_OFFSET,
                grid_lines="none",
                tick_format="d",
            ),
            bqplot.Axis(
                scale=self._height, orientation="vertical", label="logit", tick_format="~g"
            ),
        ]
        marks = [self.band, self.bars, *self.maxima, self.masked]
        row = look.figure(marks, axes, height="220px", kind="kdlab-row")
        key = ipywidgets.HTML(
            "<b>The row</b> "
            + look.key(
                (look.TEACHER, "teacher z_t, solid line m_t"),
                (look.STUDENT, "student z_s, dashed line m_s"),
                (look.GRADIENT, "the tile"),
                (look.LOSS, "masked, −∞"),
            )
        )
        self._table, self._end = ipywidgets.HTML(), ipywidgets.HTML()
        self._bytes = ipywidgets.HTML()
        wide = ipywidgets.Layout(width="100%")
        self.widget = ipywidgets.VBox([key, row, self._table, self._end, self._bytes], layout=wide)

    def show_row(self, state: dict[str, Any]) -> None:
        """Another row or tile size: new bars, and then the rest."""
        low, high = limits(state)
        rows = state["teacher_logits"], state["student_logits"]
        drawn = [[z if math.isfinite(z) else 0.0 for z in row] for row in rows]
        masked = [
            (i + side, low + 0.04 * (high - low))
            for row, side in zip(rows, (-0.2, 0.2), strict=True)
            for i, z in enumerate(row)
            if z == -math.inf
        ]
        with ExitStack() as held:
            for widget in (self._height, self._places, self.bars, self.masked):
                held.enter_context(widget.hold_sync())
            self._height.min, self._height.max = low, high
            self._places.max = state["classes"] - 0.5
            self.bars.x, self.bars.y = list(range(state["classes"])), drawn
            self.masked.x, self.masked.y = [p[0] for p in masked], [p[1] for p in masked]
            self.redraw(state)

    def redraw(self, state: dict[str, Any]) -> None:
        """The same row at another step, or with another β."""
        low, high = limits(state)
        start, seen = state["current"]
        running = state["running"]
        strengths = [1.0 if i < seen else FADED for i in range(state["classes"]) for _ in "ts"]
        with ExitStack() as held:
            for widget in (self.bars, self.band, *self.maxima):
                held.enter_context(widget.hold_sync())
            self.bars.opacities = strengths
            left, right = start - 0.5, seen - 0.5
            self.band.x = [left, left, right, right]
            self.band.y = [low, high, high, low]
            for line, m in zip(self.maxima, (running["m_t"], running["m_s"]), strict=True):
                known = math.isfinite(m)
                line.x, line.y = ([-0.5, right], [m, m]) if known else ([left, left], [low, low])
        self._table.value = _state_table(state)
        self._end.value = _careless(state) + _ending(state)
        self._bytes.value = _bytes(state)


def _state_table(state: dict[str, Any]) -> str:
    if state["position"] == 0:
        step = f"Nothing read yet; {state['tiles']} tiles to come."
    else:
        start, seen = state["current"]
        step = f"Tile {state['position']} of {state['tiles']}: classes {start} to {seen - 1}."
    heads = "".join(f'<th scope="col" style="text-align:right">{h}</th>' for h in (
        "before", "of the tile", "together"))  # fmt: skip
    lines = [
        f'<tr><th scope="row">{name}</th><td style="text-align:left">{html.escape(words)}</td>'
        + "".join(f"<td>{say(state[k][field])}</td>" for k in ("before", "of_tile"))
        + f"<td><b>{say(state['running'][field])}</b></td></tr>"
        for field, (name, words) in FIELDS.items()
    ]
    for c, words in (("c_s", "exp(β(m_s − m_s′)), rescales v"), ("c_t", "exp(β(m_t − m_t′)), u")):
        shown = [say(state[k][c]) for k in ("before_factors", "tile_factors")]
        if state["position"] <= 1:
            shown[0] = ""  # nothing there to rescale
        if state["position"] == 0:
            shown[1] = ""
        cells = "".join(f"<td>{number}</td>" for number in shown)
        what = f'<th scope="row">{c}</th><td style="text-align:left">{words}</td>'
        lines.append(f"<tr>{what}{cells}<td></td></tr>")
    return (
        f"<b>The state</b> {step}<table><tr><td></td><td></td>{heads}</tr>{''.join(lines)}</table>"
    )


def _careless(state: dict[str, Any]) -> str:
    bare_s, bare_t, bare_kl = state["without_maximum"]
    open_s, open_t = state["without_guard"]
    ended = f", KL = {say(bare_kl)}" if state["kl"] is not None else ""
    return (
        "<b>Two careless ways, so far</b><br>"
        f"no maximum subtracted, float32: Σ exp(βz_s) = {say(bare_s)}, "
        f"Σ exp(βz_t) = {say(bare_t)}{ended}<br>"
        f"maximum, but no guard for −∞: Z_s = {say(open_s)}, Z_t = {say(open_t)}<br>"
    )


def _ending(state: dict[str, Any]) -> str:
    if state["kl"] is None:
        return "<b>KL</b> comes when the whole row is read."
    close = abs(state["running"]["w"]) < 0.5 * state["running"]["z_t"]
    formula = "A/Z_t + log(1 − W/Z_t)" if close else "A/Z_t + log(Z_s/Z_t)"
    return (
        f"<b>KL(p‖q) = {formula} = {state['kl']:.12g}</b><br>"
        f"kdlab.distillation_loss gives {state['library_kl']:.12g}"
    )


def _bytes(state: dict[str, Any]) -> str:
    full = state["bytes_row_multipass"]

    def bar(words: str, count: int, total: int, colour: str) -> str:
        filled = f"height:100%;width:{100 * count / full:.1f}%;background:{colour}"
        return (
            f"<div>{words}: <b>{count:,} bytes</b> of {total:,} for the row</div>"
            f'<div style="height:10px;border:1px solid {look.GREY};max-width:560px">'
            f'<div style="{filled}"></div></div>'
        )

    return (
        "<b>Memory traffic so far, bf16</b>"
        + bar(
            "this kernel, each logit read once", state["bytes"], state["bytes_row"], look.GRADIENT
        )
        + bar(
            "softmax in passes (maximum, sum, p and q written), then KL",
            state["bytes_multipass"],
            full,
            look.LOSS,
        )
    )
