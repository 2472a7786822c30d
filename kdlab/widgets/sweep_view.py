"""What the sweep shows: accuracy against β, a table with a verdict on each β, and words."""

import html
import math
from typing import ClassVar

import bqplot
import ipywidgets
import numpy as np

from kdlab.widgets import look
from kdlab.widgets.curves import LABELS_ONLY, Curve, Style, spread, table
from kdlab.widgets.recommendation import LEVEL, Recommendation
from kdlab.widgets.training_settings import alert, words_of

DISTILLED = Style(look.STUDENT, "solid")
LABELS = Style(*LABELS_ONLY)
HELP = (
    "Each seed gives the same initial weights and batches to every β. "
    "β is chosen on the held-out examples; the test set is used at the end, for the β chosen. "
    "“Best in”: share of resamples of seeds and examples; “told apart”: by a paired t-test at "
    f"{LEVEL:.0%} in all. Training runs in slices of the kernel's event loop, 20 ms at a time, "
    "without a thread: other cells run in between. What has been trained once is kept."
)


class SweepView:
    """Chart, numbers and words of a sweep; `chart` and `numbers` are widgets, `show` moves them."""

    NAMES: ClassVar[dict[str, str]] = {
        "kdlab-sweep": "Held-out accuracy against β, with a band from the worst seed to the best, "
        "and that of labels only; numbers in the table"
    }

    def __init__(self) -> None:
        self._x = bqplot.LogScale(min=0.1, max=1)
        self._y = bqplot.LinearScale(min=0, max=1)
        scales = {"x": self._x, "y": self._y}
        self._distilled = Curve(scales, DISTILLED, marker="circle", marker_size=50)
        self._labels = Curve(scales, LABELS)
        self._chosen = bqplot.Scatter(
            x=[],
            y=[],
            scales=scales,
            colors=["transparent"],
            stroke=look.TEACHER,
            stroke_width=3,
            default_size=260,
        )
        self._x_axis = bqplot.Axis(
            scale=self._x,
            label="β = 1/T",
            label_offset="32px",
            grid_lines="none",
            tick_format="~g",
        )
        self._y_axis = bqplot.Axis(
            scale=self._y, orientation="vertical", num_ticks=6, tick_format=".0%"
        )
        curves = (self._labels, self._distilled)
        self.chart = look.figure(
            [*(curve.marks[i] for i in (0, 1) for curve in curves), self._chosen],
            [self._x_axis, self._y_axis],
            height="300px",
            kind="kdlab-sweep",
            right=16,
            bottom=46,
        )
        self.chart.padding_x = 0
        self.numbers = ipywidgets.HTML()

    def show(
        self,
        betas: tuple[float, ...],
        rows: list[list[float]],
        labels: list[list[float]],
        seeds: int,
        best: Recommendation | None,
    ) -> None:
        """Rows (complete seeds, β) and (complete seeds, 1) of labels only, NaN where missing."""
        ends = [betas[0] / 1.2, betas[-1] * 1.2]
        with self._x.hold_sync(), self._x_axis.hold_sync():
            self._x.min, self._x.max = ends
            self._x_axis.tick_values = list(betas)
        self._distilled.show(list(betas), rows)
        self._labels.show(ends, [row * 2 for row in labels])
        values = [v for row in (*rows, *labels) for v in row if math.isfinite(v)]
        if values:
            low = max(0.0, math.floor(20 * min(values)) / 20)
            high = min(1.0, math.ceil(20 * max(values) + 0.01) / 20)
            step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if high - low <= 6.5 * s)
            with self._y.hold_sync(), self._y_axis.hold_sync():
                self._y.min, self._y.max = low, high
                self._y_axis.tick_values = np.arange(low, high + 1e-9, step)
        with self._chosen.hold_sync():
            self._chosen.x = [best.beta] if best else []
            self._chosen.y = [np.mean(rows, 0)[betas.index(best.beta)]] if best else []
        self.numbers.value = _table(betas, rows, labels, seeds, best)

    def status(self, status: str, done: int, total: int) -> str:
        kept = f", {done} kept from before." if done else "."
        return {
            "ready": f"Ready: {total - done} students to train{kept}",
            "running": f"{done} of {total} students; the kernel is free for other cells.",
            "cancelled": f"Cancelled: {done} of {total} students are kept; Run trains the rest.",
            "finished": f"Finished: {total} students.",
            "failed": f"Stopped by an error; {done} of {total} students are kept.",
        }[status]

    def notes(
        self,
        divergence: str,
        best: Recommendation | None,
        tested: dict[str, list[float]] | None,
        error: Exception | None,
    ) -> str:
        """What has to be said: an error, the recommendation, what the test set says of it."""
        lines = [] if error is None else [alert(words_of(error), error)]
        if divergence == "mse_logits":
            lines.append("β and T² do not enter mse_logits: every β does the same.")
        if best is not None and tested is not None:
            lines += [f"<b>{html.escape(verdict(best))}</b>", html.escape(test_words(tested))]
            tried = sorted(best.shares)
            if best.beta in (tried[0], tried[-1]):
                end = "lowest" if best.beta == tried[0] else "highest"
                lines.append(f"It is the {end} β tried: the best may lie beyond.")
        return "<br>".join(lines)


def verdict(best: Recommendation | None) -> str:
    return "No recommendation before every seed is complete" if best is None else str(best)


def test_words(tested: dict[str, list[float]]) -> str:
    """Test accuracies of the students at the recommended β and on labels only, in a sentence."""
    distilled, labels = tested["distilled"], tested["labels_only"]
    gains = [100 * (a - b) for a, b in zip(distilled, labels, strict=True)]
    return (
        f"On the test set, mean (worst–best seed): {spread(distilled)} at that β, "
        f"{spread(labels)} on labels only; the difference, seed by seed, is "
        f"{np.mean(gains):+.1f} points ({min(gains):+.1f} to {max(gains):+.1f})."
    )


def _table(
    betas: tuple[float, ...],
    rows: list[list[float]],
    labels: list[list[float]],
    seeds: int,
    best: Recommendation | None,
) -> str:
    lines = []
    for i, beta in enumerate(betas):
        share, words = "", ""
        if best is not None:
            share, words = f"{best.shares[beta]:.0%}", "told apart: worse"
            if beta == best.beta:
                words = "recommended"
            elif beta in best.ties:
                words = "cannot be told apart"
        first = f"{DISTILLED.swatch()} β = {beta:g}"
        lines.append([first, f"{1 / beta:.3g}", spread([row[i] for row in rows]), share, words])
    lines.append([f"{LABELS.swatch()} labels only", "", spread([r[0] for r in labels]), "", ""])
    complete = len(rows) if np.isfinite([*rows[0], *labels[0]]).all() else 0
    head = ["", "T", f"held out, {complete} of {seeds} seeds", "best in", "verdict"]
    return table(head, lines, "Held-out accuracy: mean, worst to best, and verdict for each β")
