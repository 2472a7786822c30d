"""BetaExplorer: what β does to teacher, student, loss and gradient, on one example at a time."""

from collections.abc import Sequence
from typing import Any

import ipywidgets
import traitlets
from torch import Tensor

from kdlab.widgets import look
from kdlab.widgets.beta_numbers import DIVERGENCES, measure
from kdlab.widgets.beta_view import BetaView, shown_classes
from kdlab.widgets.examples import check_examples
from kdlab.widgets.one_thread import OneThread

# Powers of two, so that the slider stops at β = 1, 1/2, 1/4 exactly; eight steps to a doubling.
LOWEST, HIGHEST, STEP = -5, 3, 0.125
ORDERS = {"as given": "given", "where the teacher hesitates first": "hesitant"}


class BetaExplorer(ipywidgets.VBox):
    """Softened teacher p = softmax(β z_t) and student q = softmax(β z_s) side by side, live.

    Shows p and q as paired bars, the gradient ∂loss/∂z_s of each class, the entropy and the
    effective number of classes exp(H) of both, the loss of this one example (a row of
    `kdlab.distillation_loss`), and the example itself. Above 20 classes the bars are those of the
    20 classes that both models find likeliest; the numbers always count all.

    Args:
        student_logits, teacher_logits: (N, V) tensors or arrays, raw outputs; N ≥ 1, V ≥ 2, finite.
        inputs: (N, ...) what the models saw; drawn as a picture (H, W) or a signal (L,).
        labels: (N,) integers in [0, V).
        class_names: V different names; "0", "1", ... by default.
        image_shape: (H, W) or (L,), how to draw an input that is stored flat.
        beta: 1/32 to 8, the slider's range.
        divergence: one that `distillation_loss` has.
        mix: the teacher's share of the mixture in "js", 0 to 1.
        temperature_scaling: multiply the loss by T² = β⁻².

    `beta`, `divergence`, `mix`, `temperature_scaling`, `example` (index of the row) and `order`
    ("given" or "hesitant") can be read, set and observed; controls and marks follow. `state` has
    all numbers in a dict; `figure()` draws the same with matplotlib.

    Raises:
        ValueError: names the argument, at the call or when an attribute is set.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

    >>> import torch
    >>> student, teacher = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[4.0, 2.0, 0.0]])
    >>> explorer = BetaExplorer(student, teacher, class_names=["cat", "dog", "car"])
    >>> explorer.beta = 0.5
    >>> explorer
    BetaExplorer(example=0, beta=0.5, divergence='kl')
    >>> round(explorer.state["teacher_effective_classes"], 2)
    2.3
    """

    beta = traitlets.Float(1.0)
    divergence = traitlets.Unicode("kl")
    mix = traitlets.Float(0.5)
    temperature_scaling = traitlets.Bool(True)
    example = traitlets.Int(0)
    order = traitlets.Unicode("given")

    def __init__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        inputs: Tensor | None = None,
        labels: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        image_shape: Sequence[int] | None = None,
        *,
        beta: float = 1.0,
        divergence: str = "kl",
        mix: float = 0.5,
        temperature_scaling: bool = True,
    ) -> None:
        self._examples = check_examples(
            student_logits, teacher_logits, inputs, labels, class_names, image_shape
        )
        self._sequences = {
            "given": list(range(len(self._examples))),
            "hesitant": self._examples.by_hesitation(),
        }
        super().__init__()
        self.beta, self.divergence, self.mix = beta, divergence, mix
        self.temperature_scaling = temperature_scaling
        self._view = BetaView(self._examples)
        controls = self._make_controls()
        self._redraw_example()
        self.observe(self._redraw, ["beta", "divergence", "mix", "temperature_scaling"])
        self.observe(self._redraw_example, "example")
        self.add_class("kdlab-beta-explorer")
        look.dress(self, [*controls, self._view.widget], self._view.figures)

    @traitlets.validate("beta")
    def _valid_beta(self, proposal: Any) -> float:
        return look.between("beta", proposal.value, 2.0**LOWEST, 2.0**HIGHEST)

    @traitlets.validate("mix")
    def _valid_mix(self, proposal: Any) -> float:
        return look.between("mix", proposal.value, 0, 1)

    @traitlets.validate("divergence")
    def _valid_divergence(self, proposal: Any) -> str:
        return look.choice("divergence", proposal.value, DIVERGENCES)

    @traitlets.validate("order")
    def _valid_order(self, proposal: Any) -> str:
        return look.choice("order", proposal.value, tuple(ORDERS.values()))

    @traitlets.validate("example")
    def _valid_example(self, proposal: Any) -> int:
        return look.between("example", proposal.value, 0, len(self._examples) - 1)

    @property
    def state(self) -> dict[str, Any]:
        """What the widget shows now, as plain Python values; the lists have one number a class."""
        label = None if self._examples.labels is None else self._examples.labels[self.example]
        return {
            "beta": self.beta,
            "temperature": 1 / self.beta,
            "divergence": self.divergence,
            "mix": self.mix,
            "temperature_scaling": self.temperature_scaling,
            "example": self.example,
            "order": self.order,
            "label": None if label is None else int(label),
            "class_names": list(self._examples.class_names),
            **measure(
                self._examples.student_logits[self.example],
                self._examples.teacher_logits[self.example],
                self.beta,
                self.divergence,
                self.mix,
                self.temperature_scaling,
            ),
        }

    def figure(self) -> Any:
        """The same numbers as a matplotlib figure, for a page where nothing moves."""
        from kdlab.widgets.beta_figure import draw

        picture = None if self._examples.inputs is None else self._examples.inputs[self.example]
        return draw(self.state, shown_classes(self._examples, self.example), picture)

    def __repr__(self) -> str:
        return (
            f"BetaExplorer(example={self.example}, beta={self.beta:g}, "
            f"divergence={self.divergence!r})"
        )

    def _make_controls(self) -> list:
        last = len(self._examples) - 1
        self._beta = look.beta_slider(self.beta, LOWEST, HIGHEST, STEP)
        self._temperature = ipywidgets.HTML()
        self._divergence = look.dropdown("Divergence", list(DIVERGENCES), self.divergence, "210px")
        self._scaling = ipywidgets.Checkbox(
            value=self.temperature_scaling,
            description="Multiply the loss by T²",
            indent=False,
            layout=look.control_layout("190px"),
        )
        self._mix = look.slider(
            ipywidgets.FloatSlider, "Teacher's share in js", self.mix, 0, 1, 0.05, "300px"
        )
        self._position = look.slider(
            ipywidgets.IntSlider, "Example", self.example, 0, max(last, 1), 1, "320px"
        )
        self._position.disabled = last == 0
        self._order = look.dropdown("Order", ORDERS, self.order, "300px")
        thread = OneThread()
        thread.link(self, "beta", self._beta)
        thread.link(self, "divergence", self._divergence)
        thread.link(self, "mix", self._mix)
        thread.link(self, "temperature_scaling", self._scaling)
        thread.link(self, "order", self._order)
        thread.observe(self._position, lambda _: self._example_from_position())
        self.observe(self._position_from_example, "example")
        self.observe(self._reorder, "order")
        rows = (
            [self._beta, self._temperature],
            [self._divergence, self._scaling, self._mix],
            [self._position, self._order],
        )
        return [ipywidgets.HBox(row, layout=ipywidgets.Layout(**look.WRAP)) for row in rows]

    def _example_from_position(self) -> None:
        self.example = self._sequences[self.order][self._position.value]

    def _position_from_example(self, change: Any) -> None:
        self._position.value = self._sequences[self.order].index(change.new)

    def _reorder(self, change: Any) -> None:
        # Who asks for the hesitant ones wants to see the first of them; who goes back stays.
        first = self._sequences["hesitant"][0]
        target = first if change.new == "hesitant" else self.example
        self._position.value = self._sequences[self.order].index(target)
        self._example_from_position()

    def _redraw_example(self, _change: Any = None) -> None:
        rank = self._sequences["hesitant"].index(self.example) + 1
        self._view.show_example(self.state, rank)
        self._update_controls()

    def _redraw(self, _change: Any = None) -> None:
        self._view.redraw(self.state)
        self._update_controls()

    def _update_controls(self) -> None:
        self._temperature.value = f"T = 1/β = <b>{1 / self.beta:.3g}</b>"
        self._scaling.disabled = self.divergence == "mse_logits"
        # A control without a use takes no room and no Tab stop.
        self._mix.layout.display = None if self.divergence == "js" else "none"
