"""What the race shows: three charts of lanes, a table of where they stand, and words."""

import html
import math
from typing import Any, ClassVar

import bqplot
import ipywidgets
import numpy as np

from kdlab.widgets import look
from kdlab.widgets.curves import Curve, Style, lane_styles, spread, table
from kdlab.widgets.lanes import Race, lane_name
from kdlab.widgets.training_settings import alert, words_of

LOSSES = {
    "training loss, each lane its own": "loss",
    "cross-entropy on the test set": "cross_entropy",
}
LOSS_WORDS = {"loss": "Training loss", "cross_entropy": "Cross-entropy, test"}
SYMBOLS = {"lr": "learning rate", "label_weight": "α", "divergence": "divergence"}
HELP = (
    "Training runs in slices of the kernel's event loop, 20 ms at a time, without a thread: other "
    "cells run in between, and a cell that computes holds the race until it is done. "
    "Learning rate, α and divergence apply from the next step; a β that is added starts at step 0 "
    "and catches up under the same settings, one that is removed leaves; size and seeds apply at "
    "Reset."
)


class RaceView:
    """Charts, numbers and words of a `Race`; it reads the race and changes nothing in it.

    `loss_shown`, `numbers` and `charts` are widgets. `lanes` makes curves, `show` moves them.
    """

    TITLES: ClassVar[dict[str, str]] = {
        "accuracy": "Accuracy on the test set",
        "agreement": "Agreement with the teacher",
        "loss": "Loss",
    }
    NAMES: ClassVar[dict[str, str]] = {
        f"kdlab-race-{name}": f"{title} against the step, a curve a lane; numbers in the table"
        for name, title in TITLES.items()
    }

    def __init__(self, steps: int, teacher_accuracy: float) -> None:
        self._steps, self._teacher_accuracy = steps, teacher_accuracy
        self.styles: dict[float | None, Style] = {}
        self.numbers = ipywidgets.HTML()
        self.loss_shown = look.dropdown("Loss shown", LOSSES, "loss", "330px")
        self._x = bqplot.LinearScale(min=0, max=steps)
        share = bqplot.LinearScale(min=0, max=1)
        scales = {"accuracy": share, "agreement": share, "loss": bqplot.LogScale(min=0.01, max=10)}
        self._scales = {name: {"x": self._x, "y": y} for name, y in scales.items()}
        self._changes = bqplot.Lines(
            x=[],
            y=[],
            scales={"x": self._x, "y": bqplot.LinearScale(min=0, max=1)},
            colors=[look.GREY],
            line_style="dotted",
            stroke_width=1.5,
        )
        self._teacher = bqplot.Lines(
            x=[0, steps],
            y=[teacher_accuracy] * 2,
            scales=self._scales["accuracy"],
            colors=[look.TEACHER],
            stroke_width=1.5,
        )
        self._share_axes: list[Any] = []
        self._figures = {name: self._figure(name) for name in scales}
        panes = [
            ipywidgets.VBox(
                [ipywidgets.HTML(f"<b>{self.TITLES[name]}</b>"), figure],
                layout=ipywidgets.Layout(flex="1 1 300px", min_width="280px"),
            )
            for name, figure in self._figures.items()
        ]
        wrap = {**look.WRAP, "align_items": "stretch"}
        self.charts = ipywidgets.HBox(panes, layout=ipywidgets.Layout(**wrap))

    @property
    def loss(self) -> str:
        return self.loss_shown.value

    @property
    def loss_words(self) -> str:
        return LOSS_WORDS[self.loss]

    def lanes(self, race: Race) -> None:
        """New curves, for the lanes that there are now."""
        self.styles = lane_styles(race.lanes, self.styles)
        self._curves = {
            name: {beta: Curve(scales, style) for beta, style in self.styles.items()}
            for name, scales in self._scales.items()
        }
        self.show(race)
        for name, curves in self._curves.items():
            # All bands first, so that no band lies over a line.
            marks = [curve.marks[i] for i in (0, 1) for curve in curves.values()]
            beside = [self._teacher] if name == "accuracy" else []
            self._figures[name].marks = [self._changes, *beside, *marks]

    def show(self, race: Race) -> None:
        """Move curves, axes and numbers to where the race is."""
        shown = {"accuracy": "accuracy", "agreement": "agreement", "loss": self.loss}
        for name, curves in self._curves.items():
            for beta, curve in curves.items():
                curve.show(*race.curve(beta, shown[name]))
        lowest = _lowest_share(race)
        self._scales["accuracy"]["y"].min = lowest
        step = 0.05 if lowest >= 0.8 else 0.1 if lowest >= 0.5 else 0.2
        for axis in self._share_axes:
            axis.tick_values = np.arange(1.0, lowest - 1e-9, -step)
        low, high = _decades(race, self.loss)
        loss = self._scales["loss"]["y"]
        with loss.hold_sync(), self._loss_axis.hold_sync():
            loss.min, loss.max = low, high
            # Left to itself, the axis marks a log scale at even distances in the value.
            self._loss_axis.tick_values = np.geomspace(low, high, round(np.log10(high / low)) + 1)
        changes = sorted({change["step"] - 1 for change in race.schedule.changes()})
        with self._changes.hold_sync():
            self._changes.x = [[step, step] for step in changes]
            self._changes.y = [[0, 1] for _ in changes]
        self.numbers.value = self._table(race)

    def status(self, race: Race, status: str) -> str:
        return {
            "ready": f"Ready: {len(race.runners)} students in {len(race.lanes)} lanes.",
            "running": "Training; the kernel is free for other cells.",
            "paused": f"Paused at step {race.step} of {self._steps}.",
            "finished": f"Finished: {self._steps} steps.",
            "failed": f"Stopped by an error at step {race.step}. Reset starts afresh.",
        }[status]

    def notes(self, race: Race, settings: dict[str, Any], error: Exception | None) -> str:
        """What has to be said: an error, what waits for Reset, what changed on the way."""
        lines = [] if error is None else [alert(words_of(error), error)]
        if (settings["width"], settings["seeds"]) != (race.width, race.seeds):
            lines.append(
                f"<b>At Reset:</b> students of size {settings['width']}, "
                f"{_count(settings['seeds'], 'seed')} (racing now: size {race.width}, "
                f"{_count(race.seeds, 'seed')})."
            )
        if settings["divergence"] == "mse_logits" and len(settings["betas"]) > 1:
            lines.append("β and T² do not enter mse_logits: its lanes do the same.")
        for change in race.schedule.changes()[-4:]:
            before, after = (
                f"{value:.3g}" if isinstance(value, float) else value
                for value in (change["before"], change["after"])
            )
            name = SYMBOLS[change["name"]]
            lines.append(f"From step {change['step']}: {name} {after} (was {before}).")
        return "<br>".join(lines)

    def _figure(self, name: str) -> Any:
        ticks = np.unique(np.linspace(0, self._steps, 4).round())
        upright = bqplot.Axis(
            scale=self._scales[name]["y"],
            orientation="vertical",
            num_ticks=5,
            tick_format="~g" if name == "loss" else ".0%",
        )
        level = bqplot.Axis(
            scale=self._x, label="step", tick_values=ticks, tick_format="d", grid_lines="none"
        )
        if name == "loss":
            self._loss_axis = upright
        else:
            self._share_axes.append(upright)
        figure = look.figure(
            [], [level, upright], height="230px", kind=f"kdlab-race-{name}", right=16
        )
        figure.padding_x = 0
        return figure

    def _table(self, race: Race) -> str:
        rows = []
        for beta, style in self.styles.items():
            at, _ = race.curve(beta, "accuracy")
            now = [
                spread([row[-1] for row in race.curve(beta, quantity)[1]])
                for quantity in ("accuracy", "agreement", self.loss)
            ]
            rows.append([f"{style.swatch()} {html.escape(lane_name(beta))}", str(at[-1]), *now])
        teacher = f"{Style(look.TEACHER, 'solid').swatch()} teacher"
        rows.append([teacher, "", f"{self._teacher_accuracy:.3f}", "", ""])
        head = ["", "step", "accuracy", "agreement", self.loss_words.lower()]
        several = ": mean (worst–best of the seeds)" if race.seeds > 1 else ""
        return table(head, rows, f"Where the lanes stand{several}")


def _lowest_share(race: Race) -> float:
    """Where the axis of shares starts: a tenth that the lanes have been above since half way, so
    that lanes close to each other can be told apart."""
    lowest = 1.0
    for beta in race.lanes:
        for quantity in ("accuracy", "agreement"):
            at, rows = race.curve(beta, quantity)
            recent = [i for i, step in enumerate(at) if step >= at[-1] / 2]
            lowest = min(lowest, np.asarray(rows)[:, recent].min())
    return max(0.0, min(0.9, math.floor(10 * lowest) / 10))


def _decades(race: Race, quantity: str) -> tuple[float, float]:
    """Powers of ten around all the losses, at most six of them."""
    values = np.concatenate([np.ravel(race.curve(beta, quantity)[1]) for beta in race.lanes])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0.01, 10.0
    high = math.ceil(math.log10(values.max()))
    low = max(math.floor(math.log10(values.min())), high - 6)
    return 10.0**low, 10.0 ** max(high, low + 1)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
