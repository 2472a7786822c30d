"""The β explorer's marks and words: given a state, draws it."""

import html
from contextlib import ExitStack
from typing import Any

import bqplot
import ipywidgets

from kdlab.functional import soften
from kdlab.widgets import look
from kdlab.widgets.beta_numbers import loss_name
from kdlab.widgets.examples import Examples
from kdlab.widgets.picture import Picture

# More bars than this cannot be read; the numbers always count every class.
MOST_BARS = 20


def shown_classes(examples: Examples, example: int) -> list[int]:
    """The classes that get bars: all, or the 20 that teacher and student find likeliest."""
    teacher = examples.teacher_logits[example]
    if len(teacher) <= MOST_BARS:
        return list(range(len(teacher)))
    likely = soften(teacher) + soften(examples.student_logits[example])
    return sorted(likely.topk(MOST_BARS).indices.tolist())


class BetaView:
    """Paired bars of p and q, bars of the gradient, the picture, the table. `widget` holds all."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        names = bqplot.OrdinalScale()
        self.gradient_scale = bqplot.LinearScale(min=-1, max=1)
        share = bqplot.LinearScale(min=0, max=1)
        colours = [look.TEACHER, look.STUDENT]
        self.probabilities = bqplot.Bars(
            scales={"x": names, "y": share},
            type="grouped",
            # "element": the k-th bar of every class has colour k, so that colour says whose it is.
            color_mode="element",
            colors=colours,
            padding=0.2,
            stroke=look.GREY,
            stroke_width=0.5,
        )
        self.gradient = bqplot.Bars(
            scales={"x": names, "y": self.gradient_scale},
            colors=[look.GRADIENT],
            padding=0.4,
            stroke=look.GREY,
            stroke_width=0.5,
        )
        probability_figure = look.figure(
            [self.probabilities],
            look.class_axes(examples.class_names, names, share),
            height="200px",
            kind="kdlab-probabilities",
        )
        gradient_figure = look.figure(
            [self.gradient],
            look.class_axes(examples.class_names, names, self.gradient_scale),
            height="200px",
            kind="kdlab-gradient",
        )
        self.picture = Picture(examples.inputs)
        self._caption, self._readout = ipywidgets.HTML(), ipywidgets.HTML()
        self._title = ipywidgets.HTML()
        gradient_title = ipywidgets.HTML(
            "<b>Gradient of the loss</b> "
            + look.key((look.GRADIENT, "∂loss/∂z_s; below 0, a step raises this logit"))
        )
        beside = [self.picture.widget] if self.picture.widget else []
        box = ipywidgets.Layout
        left = ipywidgets.VBox(
            [*beside, self._caption, self._readout], layout=box(width="250px", flex="0 0 250px")
        )
        right = ipywidgets.VBox(
            [self._title, probability_figure, gradient_title, gradient_figure],
            layout=box(flex="1 1 300px", min_width="280px"),
        )
        self.widget = ipywidgets.HBox(
            [left, right], layout=box(**{**look.WRAP, "align_items": "stretch"})
        )

    @property
    def figures(self) -> dict[str, str]:
        """For screen readers, the numbers being in the table and in the explorer's `state`."""
        return {
            "kdlab-probabilities": "Bars: softened teacher and student outputs of each class",
            "kdlab-gradient": "Bars: gradient of the loss for each class's student logit",
            "kdlab-picture": "The example's input",
        }

    def show_example(self, state: dict[str, Any], rank: int) -> None:
        """Another example: its picture, its classes, and then its numbers."""
        examples, example = self._examples, state["example"]
        self._shown = shown_classes(examples, example)
        names = [examples.class_names[c] for c in self._shown]
        all_shown = len(names) == examples.classes
        of_all = "" if all_shown else f": {len(names)} of {examples.classes} classes"
        with ExitStack() as held:
            for widget in (self.probabilities, self.gradient):
                held.enter_context(widget.hold_sync())
            self.picture.show(example)
            self.probabilities.x = self.gradient.x = names
            self._title.value = f"<b>Softened outputs{of_all}</b> " + look.key(
                (look.TEACHER, "teacher p (left)"), (look.STUDENT, "student q (right)")
            )
            self.redraw(state)
        label = state["label"]
        truth = (
            "" if label is None else f", labelled <b>{html.escape(examples.class_names[label])}</b>"
        )
        self._caption.value = (
            f"Example {example}{truth}.<br>The teacher hesitates here<br>"
            f"as number {rank} of {len(examples)}."
        )

    def redraw(self, state: dict[str, Any]) -> None:
        """The same example with other settings: four messages, five if an axis moves."""
        p, q, gradient = (
            [state[name][c] for c in self._shown]
            for name in ("teacher_probabilities", "student_probabilities", "gradient")
        )
        bound = look.round_up(max(map(abs, gradient)))
        with ExitStack() as held:
            for widget in (self.probabilities, self.gradient, self.gradient_scale):
                held.enter_context(widget.hold_sync())
            self.probabilities.y = [p, q]
            self.gradient.y = gradient
            self.gradient_scale.min, self.gradient_scale.max = -bound, bound
        self._readout.value = _readout(state)


def _readout(state: dict[str, Any]) -> str:
    def row(words: str, kind: str, digits: str) -> str:
        cells = "".join(
            f"<td>{state[f'{who}_{kind}']:{digits}}</td>" for who in ("teacher", "student")
        )
        return f'<tr><th scope="row">{words}</th>{cells}</tr>'

    note = "<br>β and T² do not enter this loss." if state["divergence"] == "mse_logits" else ""
    name = loss_name(state["divergence"], state["temperature_scaling"])
    return (
        '<table><tr><td></td><th scope="col">teacher</th><th scope="col">student</th></tr>'
        f"{row('entropy (nats)', 'entropy', '.3f')}"
        f"{row('effective classes', 'effective_classes', '.2f')}</table>"
        f"loss = {html.escape(name)}<br>&emsp;&ensp;= <b>{state['loss']:.4g}</b>{note}"
    )
