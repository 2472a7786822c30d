"""BetaExplorer: what β does to teacher, student, loss and gradient, on one example at a time."""

import html
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import bqplot
import ipywidgets
import torch
import traitlets
from torch import Tensor

from kdlab.functional import DIVERGENCES, distillation_loss, soften
from kdlab.metrics import effective_classes, entropy
from kdlab.widgets import look
from kdlab.widgets.examples import check_examples

# Powers of two, so that the slider stops at β = 1, 1/2, 1/4 exactly; eight steps to a doubling.
LOWEST, HIGHEST, STEP = -5, 3, 0.125
# More bars than this cannot be read; the numbers always count every class.
MOST_BARS = 20
ORDERS = {"as given": "given", "where the teacher hesitates first": "hesitant"}
FORMULAS = {"kl": "KL(p‖q)", "mse": "Σ (p − q)²", "mse_logits": "Σ (z_t − z_s)²"}


def measure(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: float = 1.0,
    divergence: str = "kl",
    temperature_scaling: bool = True,
) -> dict[str, Any]:
    """Everything the widget shows of one example: logits (V,) in, plain Python numbers out.

    p = softmax(β z_t), q = softmax(β z_s), `distillation_loss` of the row, and its gradient
    ∂loss/∂z_s by autograd.

    >>> numbers = measure(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0]), beta=0.5)
    >>> [round(g, 4) for g in numbers["gradient"]]
    [-0.4621, 0.4621]
    """
    z = student_logits.detach().requires_grad_()
    with torch.enable_grad():
        loss = distillation_loss(
            z,
            teacher_logits.detach(),
            beta=beta,
            divergence=divergence,
            temperature_scaling=temperature_scaling,
        )
        (gradient,) = torch.autograd.grad(loss, z)
    p, q = soften(teacher_logits, beta), soften(z.detach(), beta)
    return {
        "loss": loss.item(),
        "teacher_entropy": entropy(p).item(),
        "student_entropy": entropy(q).item(),
        "teacher_effective_classes": effective_classes(p).item(),
        "student_effective_classes": effective_classes(q).item(),
        "teacher_probabilities": p.tolist(),
        "student_probabilities": q.tolist(),
        "gradient": gradient.tolist(),
    }


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
        temperature_scaling: multiply the loss by T² = β⁻².

    `beta`, `divergence`, `temperature_scaling`, `example` (index of the row) and `order` ("given"
    or "hesitant") can be read, set and observed; controls and marks follow. `state` has all numbers
    in a dict; `figure()` draws the same with matplotlib.

    Raises:
        ValueError: names the argument, at the call or when an attribute is set.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

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
        self.beta = beta
        self.divergence = divergence
        self.temperature_scaling = temperature_scaling
        self._make_controls()
        self._make_marks()
        self._redraw_example()
        self.observe(lambda _: self._redraw(), ["beta", "divergence", "temperature_scaling"])
        self.observe(lambda _: self._redraw_example(), "example")
        self.add_class("kdlab-beta-explorer")
        self.layout = ipywidgets.Layout(max_width="900px", width="100%")
        self.children = self._arrange()

    @traitlets.validate("beta")
    def _valid_beta(self, proposal: Any) -> float:
        if not 2.0**LOWEST <= proposal.value <= 2.0**HIGHEST:
            raise ValueError(
                f"beta: got {proposal.value}; expected {2.0**LOWEST} to {2.0**HIGHEST}"
            )
        return proposal.value

    @traitlets.validate("divergence")
    def _valid_divergence(self, proposal: Any) -> str:
        return _choice("divergence", proposal.value, DIVERGENCES)

    @traitlets.validate("order")
    def _valid_order(self, proposal: Any) -> str:
        return _choice("order", proposal.value, tuple(ORDERS.values()))

    @traitlets.validate("example")
    def _valid_example(self, proposal: Any) -> int:
        if not 0 <= proposal.value < len(self._examples):
            raise ValueError(
                f"example: got {proposal.value}; expected 0 to {len(self._examples) - 1}"
            )
        return proposal.value

    @property
    def state(self) -> dict[str, Any]:
        """What the widget shows now, as plain Python values; the lists have one number a class."""
        label = None if self._examples.labels is None else self._examples.labels[self.example]
        return {
            "beta": self.beta,
            "temperature": 1 / self.beta,
            "divergence": self.divergence,
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
                self.temperature_scaling,
            ),
        }

    def figure(self) -> Any:
        """The same numbers as a matplotlib figure, for a page where nothing moves."""
        from kdlab.widgets.beta_figure import draw

        picture = None if self._examples.inputs is None else self._examples.inputs[self.example]
        return draw(self.state, self._shown_classes(), self._loss_name(), picture)

    def __repr__(self) -> str:
        return (
            f"BetaExplorer(example={self.example}, beta={self.beta:g}, "
            f"divergence={self.divergence!r})"
        )

    def _make_controls(self) -> None:
        style = {"description_width": "initial"}
        last = len(self._examples) - 1
        self._beta = ipywidgets.FloatLogSlider(
            value=self.beta,
            base=2,
            min=LOWEST,
            max=HIGHEST,
            step=STEP,
            readout_format=".3f",
            description="β (inverse temperature)",
            tooltip="β = 1/T: left softens, right sharpens",
            style=style,
            layout=look.control_layout("410px"),
        )
        self._temperature = ipywidgets.HTML()
        self._divergence = ipywidgets.Dropdown(
            options=list(DIVERGENCES),
            value=self.divergence,
            description="Divergence",
            style=style,
            layout=look.control_layout("200px"),
        )
        self._scaling = ipywidgets.Checkbox(
            value=self.temperature_scaling,
            description="Multiply the loss by T²",
            indent=False,
            layout=look.control_layout("200px"),
        )
        self._position = ipywidgets.IntSlider(
            value=self.example,
            min=0,
            max=max(last, 1),
            disabled=last == 0,
            description="Example",
            style=style,
            layout=look.control_layout("320px"),
        )
        self._order = ipywidgets.Dropdown(
            options=ORDERS,
            value=self.order,
            description="Order",
            style=style,
            layout=look.control_layout("300px"),
        )
        traitlets.link((self, "beta"), (self._beta, "value"))
        traitlets.link((self, "divergence"), (self._divergence, "value"))
        traitlets.link((self, "temperature_scaling"), (self._scaling, "value"))
        traitlets.link((self, "order"), (self._order, "value"))
        self._position.observe(self._example_from_position, "value")
        self.observe(self._position_from_example, "example")
        self.observe(self._reorder, "order")

    def _example_from_position(self, change: Any) -> None:
        self.example = self._sequences[self.order][change.new]

    def _position_from_example(self, change: Any) -> None:
        self._position.value = self._sequences[self.order].index(change.new)

    def _reorder(self, change: Any) -> None:
        # Who asks for the hesitant ones wants to see the first of them; who goes back stays.
        first = self._sequences["hesitant"][0]
        target = first if change.new == "hesitant" else self.example
        self._position.unobserve(self._example_from_position, "value")
        self._position.value = self._sequences[self.order].index(target)
        self._position.observe(self._example_from_position, "value")
        self.example = target

    def _make_marks(self) -> None:
        names = bqplot.OrdinalScale()
        self._gradient_scale = bqplot.LinearScale(min=-1, max=1)
        share = bqplot.LinearScale(min=0, max=1)
        colours = [look.TEACHER, look.STUDENT]
        self._probabilities = bqplot.Bars(
            scales={"x": names, "y": share},
            type="grouped",
            color_mode="group",
            colors=colours,
            opacity_mode="group",
            opacities=[look.OPACITY[c] for c in colours],
            padding=0.2,
        )
        self._gradient = bqplot.Bars(
            scales={"x": names, "y": self._gradient_scale}, colors=[look.GRADIENT], padding=0.4
        )
        self._probability_figure = look.figure(
            [self._probabilities],
            look.class_axes(self._examples.class_names, names, share),
            height="200px",
        )
        self._gradient_figure = look.figure(
            [self._gradient],
            look.class_axes(self._examples.class_names, names, self._gradient_scale),
            height="200px",
        )
        self._picture = look.Picture(self._examples.inputs)
        self._caption, self._readout = ipywidgets.HTML(), ipywidgets.HTML()
        self._probability_title, self._gradient_title = ipywidgets.HTML(), ipywidgets.HTML()

    def _arrange(self) -> list:
        box, wrap = ipywidgets.Layout, ipywidgets.Layout(**look.WRAP)
        beside = [self._picture.widget] if self._picture.widget else []
        left = ipywidgets.VBox(
            [*beside, self._caption, self._readout], layout=box(width="215px", flex="0 0 215px")
        )
        right = ipywidgets.VBox(
            [
                self._probability_title,
                self._probability_figure,
                self._gradient_title,
                self._gradient_figure,
            ],
            layout=box(flex="1 1 380px", min_width="300px"),
        )
        return [
            ipywidgets.HBox([self._beta, self._temperature], layout=wrap),
            ipywidgets.HBox([self._divergence, self._scaling], layout=wrap),
            ipywidgets.HBox([self._position, self._order], layout=wrap),
            ipywidgets.HBox([left, right], layout=box(**{**look.WRAP, "align_items": "stretch"})),
        ]

    def _shown_classes(self) -> list[int]:
        teacher = self._examples.teacher_logits[self.example]
        if len(teacher) <= MOST_BARS:
            return list(range(len(teacher)))
        likely = soften(teacher) + soften(self._examples.student_logits[self.example])
        return sorted(likely.topk(MOST_BARS).indices.tolist())

    def _loss_name(self) -> str:
        formula = FORMULAS.get(self.divergence, self.divergence)
        scaled = self.temperature_scaling and self.divergence != "mse_logits"
        return f"T² · {formula}" if scaled else formula

    def _redraw_example(self) -> None:
        self._shown = self._shown_classes()
        names = [self._examples.class_names[c] for c in self._shown]
        of_all = (
            f": {len(names)} of {self._examples.classes} classes"
            if len(names) < self._examples.classes
            else ""
        )
        with ExitStack() as held:
            for widget in (self._probabilities, self._gradient):
                held.enter_context(widget.hold_sync())
            self._picture.show(self.example)
            self._probabilities.x = self._gradient.x = names
            self._probability_title.value = f"<b>Softened outputs{of_all}</b> " + look.key(
                (look.TEACHER, "teacher p (left)"), (look.STUDENT, "student q (right)")
            )
            self._redraw()
        labels = self._examples.labels
        truth = ""
        if labels is not None:
            name = self._examples.class_names[labels[self.example]]
            truth = f", labelled <b>{html.escape(name)}</b>"
        rank = self._sequences["hesitant"].index(self.example) + 1
        self._caption.value = (
            f"Example {self.example}{truth}.<br>The teacher hesitates here<br>"
            f"as number {rank} of {len(self._examples)}."
        )

    def _redraw(self) -> None:
        state = self.state
        p, q, gradient = (
            [state[name][c] for c in self._shown]
            for name in ("teacher_probabilities", "student_probabilities", "gradient")
        )
        bound = look.round_up(max(map(abs, gradient)))
        with ExitStack() as held:
            for widget in (self._probabilities, self._gradient, self._gradient_scale):
                held.enter_context(widget.hold_sync())
            self._probabilities.y = [p, q]
            self._gradient.y = gradient
            self._gradient_scale.min, self._gradient_scale.max = -bound, bound
        self._temperature.value = f"T = 1/β = <b>{state['temperature']:.3g}</b>"
        self._scaling.disabled = self.divergence == "mse_logits"
        self._gradient_title.value = "<b>Gradient of the loss</b> " + look.key(
            (look.GRADIENT, "∂loss/∂z_s; below 0, a step raises this logit")
        )
        self._readout.value = _readout(state, self._loss_name())


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}; expected one of {', '.join(map(repr, choices))}")
    return value


def _readout(state: dict[str, Any], loss_name: str) -> str:
    def row(words: str, kind: str, digits: str) -> str:
        cells = "".join(
            f'<td style="text-align:right">{state[f"{who}_{kind}"]:{digits}}</td>'
            for who in ("teacher", "student")
        )
        return f'<tr><th scope="row" style="text-align:left">{words}</th>{cells}</tr>'

    note = "<br>β and T² do not enter this loss." if state["divergence"] == "mse_logits" else ""
    return (
        '<table style="width:100%;font-variant-numeric:tabular-nums"><tr><td></td>'
        '<th scope="col">teacher</th><th scope="col">student</th></tr>'
        f"{row('entropy (nats)', 'entropy', '.3f')}"
        f"{row('effective classes', 'effective_classes', '.2f')}</table>"
        f"loss = {html.escape(loss_name)}<br>&emsp;&ensp;= <b>{state['loss']:.4g}</b>{note}"
    )
