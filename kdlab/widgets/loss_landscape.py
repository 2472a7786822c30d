"""LossLandscape: how β moves and flattens the loss of a two-parameter student; drop one, watch."""

import asyncio
from collections.abc import Sequence
from typing import Any

import ipywidgets
import torch
import traitlets
from torch import Tensor

from kdlab.widgets import landscape_controls, landscape_view, look
from kdlab.widgets.beta_numbers import DIVERGENCES
from kdlab.widgets.descent import Descent
from kdlab.widgets.examples import check_examples
from kdlab.widgets.later import Later
from kdlab.widgets.one_thread import OneThread
from kdlab.widgets.plane import Plane, digits_plane
from kdlab.widgets.surface import Surface

MOST_STEPS, SECONDS_A_STEP = 400, 0.05


class LossLandscape(ipywidgets.VBox):
    """The loss of every student on a plane through three students, as a map.

    The student has two parameters: its place (a, b) on a plane in the weight space of a real
    network (see `kdlab.widgets.plane.Plane`). The map shows the mean `kdlab.distillation_loss` over
    the examples at each place, on a log scale, with isolines; the lowest point, found by Newton
    steps from the grid's lowest; and the curvatures there, which bound the learning rate. A student
    dropped by a click (or by the sliders and "Drop") descends by gradient descent on that loss.

    The descent is an asyncio task of the kernel's event loop, one step every 50 ms: other cells
    run meanwhile. `close()` ends it. An exception in it is shown in the widget and kept in `error`.

    Args:
        plane: a `Plane`.
        x: (N, ...) inputs of the students.
        teacher_logits: (N, V), finite.
        labels: (N,) integers in [0, V); adds the student's accuracy on these N.
        corner_names: names of the plane's three students.
        beta, divergence, temperature_scaling: as in `distillation_loss`; β is 1/32 to 8.
        learning_rate: η in θ ← θ − η ∇L, 1/32 to 512.

    These settings can be read, set and observed, as can `hold_colours` (the colours keep their
    values when β moves) and `running`. `drop(a, b)` places a student, `descend(n)` takes n steps at
    once, `clear()` takes it away, `student()` gives it as a model. `state` has all numbers;
    `figure()` draws the same with matplotlib. `LossLandscape.example()` makes one on the digits.

    Raises:
        ValueError: names the argument, at the call or when an attribute is set.

    Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of Neural Nets",
    NeurIPS 2018.

    >>> landscape = LossLandscape.example()
    >>> landscape.drop(0, 0)
    >>> landscape.descend(50)
    >>> landscape
    LossLandscape(beta=0.25, divergence='kl', 50 steps)
    >>> landscape.state["loss"] < 0.5
    True
    """

    beta = traitlets.Float(0.25)
    divergence = traitlets.Unicode("kl")
    temperature_scaling = traitlets.Bool(True)
    learning_rate = traitlets.Float(1.0)
    hold_colours = traitlets.Bool(False)
    running = traitlets.Bool(False)

    def __init__(
        self,
        plane: Plane,
        x: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        corner_names: Sequence[str] = ("first", "second", "third"),
        *,
        beta: float = 0.25,
        divergence: str = "kl",
        temperature_scaling: bool = True,
        learning_rate: float = 1.0,
    ) -> None:
        if not isinstance(plane, Plane):
            raise ValueError(f"plane: got {type(plane).__name__}; expected a Plane")
        if isinstance(corner_names, str) or len(corner_names) != 3:
            raise ValueError(f"corner_names: got {corner_names!r}; expected three names")
        if not isinstance(x, Tensor) or not x.is_floating_point() or not x.isfinite().all():
            raise ValueError("x: expected a floating-point tensor of finite inputs, a row each")
        with torch.no_grad():
            first = plane.logits(plane.corners[:1].float(), x)[0]
        examples = check_examples(first, teacher_logits, labels=labels)
        self._labels, self._corner_names = examples.labels, tuple(map(str, corner_names))
        self._surface = Surface(plane, x, examples.teacher_logits)
        self._descent = Descent(self._surface)
        self._task: asyncio.Task | None = None
        self.error: Exception | None = None
        super().__init__()
        self.beta, self.divergence = beta, divergence
        self.temperature_scaling, self.learning_rate = temperature_scaling, learning_rate
        self._view = landscape_view.LandscapeView(self._surface, self._corner_names)
        thread = OneThread()
        self._controls = landscape_controls.LandscapeControls(self, self._surface, thread)
        thread.observe(self._view.clicked, self._drop_at_click, "y")
        # Colours at once; isolines when the colours are on their way and no newer β has come.
        self._isolines_later = Later(lambda: self._view.show_isolines(self._heights), quiet=0)
        self._minimum_later = Later(self._find_minimum, quiet=0.06)
        self._redraw()
        self.observe(self._redraw, ["beta", "divergence", "temperature_scaling", "hold_colours"])
        self.observe(self._start_or_stop, "running")
        self.add_class("kdlab-loss-landscape")
        look.dress(
            self, self._controls.around(self._view), {"kdlab-landscape": landscape_view.WORDS}
        )

    @classmethod
    def example(cls, seed: int = 0, **settings: Any) -> "LossLandscape":
        """Students of 16 hidden units on the digits, trained here in a few seconds."""
        plane, x, teacher_logits, labels = digits_plane(seed)
        names = ("untrained", "trained on 100 labels", "distilled")
        return cls(plane, x, teacher_logits, labels, names, **settings)

    @traitlets.validate("beta")
    def _valid_beta(self, proposal: Any) -> float:
        low, high = landscape_controls.BETAS
        return look.between("beta", proposal.value, 2.0**low, 2.0**high)

    @traitlets.validate("divergence")
    def _valid_divergence(self, proposal: Any) -> str:
        return look.choice("divergence", proposal.value, DIVERGENCES)

    @traitlets.validate("learning_rate")
    def _valid_learning_rate(self, proposal: Any) -> float:
        low, high = landscape_controls.LEARNING_RATES
        return look.between("learning_rate", proposal.value, 2.0**low, 2.0**high)

    @property
    def state(self) -> dict[str, Any]:
        """All numbers of the map and of the student on it, as plain Python values."""
        self._minimum_later.now()
        surface = self._surface
        corners, _ = surface.loss_and_slope(surface.plane.corners, **self._settings)
        return {
            **self._settings,
            "temperature": 1 / self.beta,
            "learning_rate": self.learning_rate,
            "running": self.running,
            "steps": self._descent.steps,
            "path": list(self._descent.path),
            **self._descent.numbers(self._settings, self._labels),
            "minimum": self._minimum.point,
            "minimum_loss": self._minimum.loss,
            "curvatures": self._minimum.curvatures,
            "corners": dict(zip(self._corner_names, surface.plane.corners.tolist(), strict=True)),
            "corner_losses": dict(zip(self._corner_names, corners.tolist(), strict=True)),
            "a": surface.a.tolist(),
            "b": surface.b.tolist(),
            "losses": self._losses.tolist(),
        }

    def drop(self, a: float, b: float) -> None:
        """Place a student at (a, b) on the map. It stays there until `descend` or `running`."""
        surface = self._surface
        look.between("a", a, surface.a[0].item(), surface.a[-1].item())
        look.between("b", b, surface.b[0].item(), surface.b[-1].item())
        self.running, self.error = False, None
        self._descent.drop(a, b)
        self._show_student()

    def descend(self, steps: int = 1) -> None:
        """Take steps of gradient descent now, all before returning; fewer once it has arrived."""
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise ValueError(f"steps: got {steps!r}; expected an integer, at least 0")
        self._need_student("steps")
        for _ in range(steps):
            self._descent.step(self.learning_rate, self._settings)
            if self._descent.over:
                break
        self._show_student()

    def clear(self) -> None:
        """Take the student off the map."""
        self.running, self.error = False, None
        self._descent.clear()
        self._show_student()

    def student(self) -> torch.nn.Module:
        """The student on the map as a model of its own, with all its weights."""
        self._need_student("student")
        return self._surface.plane.student(*self._descent.path[-1])

    def figure(self) -> Any:
        """The same map as a matplotlib figure, for a page where nothing moves."""
        from kdlab.widgets.landscape_figure import draw

        return draw(self.state)

    def close(self) -> None:
        """End the descent and take the widget off the page."""
        if getattr(self, "_task", None) is not None:
            self._stop()
        for later in ("_isolines_later", "_minimum_later"):
            if hasattr(self, later):
                getattr(self, later).cancel()
        if hasattr(self, "_controls"):
            self._controls.drop_soon.cancel()
        super().close()

    def __repr__(self) -> str:
        steps = f"{self._descent.steps} steps" if self._descent else "no student"
        return f"LossLandscape(beta={self.beta:g}, divergence={self.divergence!r}, {steps})"

    @property
    def _settings(self) -> dict[str, Any]:
        return {
            "beta": self.beta,
            "divergence": self.divergence,
            "temperature_scaling": self.temperature_scaling,
        }

    def _need_student(self, name: str) -> None:
        if not self._descent:
            raise ValueError(f"{name}: there is no student on the map; drop one first")

    def _start_or_stop(self, change: Any) -> None:
        if not change.new:
            self._stop()
            return
        try:
            self._need_student("running")
            loop = asyncio.get_running_loop()
        except ValueError:
            self.running = False
            raise
        except RuntimeError:
            self.running = False
            raise RuntimeError("running: no event loop runs here; use descend(steps)") from None
        self._task = loop.create_task(self._run())

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _run(self) -> None:
        try:
            for _ in range(MOST_STEPS):
                self._descent.step(self.learning_rate, self._settings)
                self._show_student()
                if self._descent.over:
                    break
                await asyncio.sleep(SECONDS_A_STEP)
        except Exception as problem:
            self.error = problem
        self._task = None
        self.running = False
        self._show_student()

    def _drop_at_click(self, _change: Any) -> None:
        clicked = self._view.clicked
        if len(clicked.x) == len(clicked.y):
            self._controls.drop(float(clicked.x[-1]), float(clicked.y[-1]))

    def _redraw(self, _change: Any = None) -> None:
        self._losses = self._surface.losses(**self._settings)
        self._heights = landscape_view.log_losses(self._losses)
        self._view.show_surface(self._heights, self.hold_colours)
        self._isolines_later.soon()
        self._minimum_later.soon()
        self._show_student()

    def _find_minimum(self) -> None:
        self._minimum = self._surface.minimum(self._losses, **self._settings)
        self._view.show_minimum(self._minimum.point)
        self._controls.show_minimum(self._minimum)

    def _show_student(self) -> None:
        self._view.show_path(self._descent.path)
        numbers = self._descent.numbers(self._settings, self._labels)
        self._controls.show_student(numbers, self._descent, self.error)
