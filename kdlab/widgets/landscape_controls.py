"""The loss landscape's controls and its words: what can be set, and what the numbers are."""

import html
from typing import Any

import ipywidgets

from kdlab.widgets import landscape_view, look
from kdlab.widgets.beta_numbers import DIVERGENCES, loss_name
from kdlab.widgets.descent import Descent
from kdlab.widgets.later import Later
from kdlab.widgets.one_thread import OneThread
from kdlab.widgets.surface import Minimum, Surface

# Powers of two. Curvatures on the map go from thousandths to tens, hence the learning rates.
BETAS, BETA_STEP = (-5, 3), 0.25
LEARNING_RATES, LEARNING_RATE_STEP = (-5, 9), 0.5


class LandscapeControls:
    """Linked to the landscape's traits; `show_minimum` and `show_student` write the numbers."""

    def __init__(self, landscape: Any, surface: Surface, thread: OneThread) -> None:
        self._landscape, self._rows = landscape, len(surface.x)
        self.beta = look.beta_slider(landscape.beta, *BETAS, BETA_STEP)
        self._temperature = ipywidgets.HTML()
        self.divergence = look.dropdown(
            "Divergence", list(DIVERGENCES), landscape.divergence, "210px"
        )
        self.scaling = _checkbox("Multiply the loss by T²", landscape.temperature_scaling, "190px")
        self.hold = _checkbox("Hold the colours", landscape.hold_colours, "160px")
        self.rate = look.slider(
            ipywidgets.FloatLogSlider,
            "Learning rate η",
            landscape.learning_rate,
            *LEARNING_RATES,
            LEARNING_RATE_STEP,
            "310px",
            base=2,
            readout_format=".3g",
        )
        self.a, self.b = (
            look.slider(
                ipywidgets.FloatSlider,
                f"Drop at {name}",
                0.0,
                ticks[0].item(),
                ticks[-1].item(),
                0.1,
                "230px",
                # One message, when the handle is let go: while one is not answered, the page keeps
                # later ones back, and the click on the button would overtake them.
                continuous_update=False,
            )
            for name, ticks in (("a", surface.a), ("b", surface.b))
        )
        self.drop_button = _button("Drop a student", "Place a student at a and b, and let it go")
        self.run = ipywidgets.ToggleButton(
            value=False, description="Descend", layout=look.control_layout("90px")
        )
        self.step_button = _button("One step", "One step of gradient descent")
        self.clear_button = _button("Clear", "Take the student off the map")
        self._student, self._minimum = ipywidgets.HTML(), ipywidgets.HTML()
        thread.link(landscape, "beta", self.beta)
        thread.link(landscape, "divergence", self.divergence)
        thread.link(landscape, "temperature_scaling", self.scaling)
        thread.link(landscape, "hold_colours", self.hold)
        thread.link(landscape, "learning_rate", self.rate)
        # A little later, since another thread may be about to bring where a slider stands.
        self.drop_soon = Later(lambda: self.drop(self.a.value, self.b.value))
        # Before the link, so that a descent begins where a student is about to be dropped.
        thread.observe(self.run, lambda _: self.drop_soon.now())
        thread.link(landscape, "running", self.run)
        thread.on_click(self.drop_button, self.drop_soon.soon)
        thread.on_click(self.step_button, self._step)
        thread.on_click(self.clear_button, self._clear)

    def _step(self) -> None:
        self.drop_soon.now()
        self._landscape.descend(1)

    def _clear(self) -> None:
        self.drop_soon.cancel()
        self._landscape.clear()

    def drop(self, a: float, b: float) -> None:
        """Drop a student and let it descend, as a click or the button asks."""
        self.a.value, self.b.value = a, b
        # The sliders round and keep within the map, where a click at the rim may fall outside.
        low_a, high_a, low_b, high_b = self.a.min, self.a.max, self.b.min, self.b.max
        self._landscape.drop(min(max(a, low_a), high_a), min(max(b, low_b), high_b))
        self._landscape.running = True

    def around(self, view: landscape_view.LandscapeView) -> list:
        """The instrument's children, top to bottom."""
        box, wrap = ipywidgets.Layout, ipywidgets.Layout(**look.WRAP)
        left = ipywidgets.VBox(
            [landscape_view.key(), view.map],
            layout=box(flex="1 1 450px", min_width="300px"),
        )
        right = ipywidgets.VBox(
            [self._student, self._minimum], layout=box(width="240px", flex="0 1 240px")
        )
        return [
            ipywidgets.HBox([self.beta, self._temperature], layout=wrap),
            ipywidgets.HBox([self.divergence, self.scaling, self.hold], layout=wrap),
            ipywidgets.HBox([left, right], layout=box(**{**look.WRAP, "align_items": "stretch"})),
            ipywidgets.HBox(
                [self.rate, self.run, self.step_button, self.clear_button], layout=wrap
            ),
            ipywidgets.HBox([self.a, self.b, self.drop_button], layout=wrap),
        ]

    def show_minimum(self, minimum: Minimum) -> None:
        low, high = minimum.curvatures
        bound = f"η below 2/λ = {2 / high:.3g} is stable there" if high > 0 else "no bowl there"
        self._minimum.value = (
            f"<b>Lowest point</b><br>a = {minimum.point[0]:.2f}, b = {minimum.point[1]:.2f}<br>"
            f"loss = <b>{minimum.loss:.4g}</b><br>"
            f"curvatures λ = {low:.2g} and {high:.2g}<br>{bound}"
        )

    def show_student(
        self, numbers: dict[str, Any], descent: Descent, error: Exception | None
    ) -> None:
        landscape = self._landscape
        self._temperature.value = f"T = 1/β = <b>{1 / landscape.beta:.3g}</b>"
        self.scaling.disabled = landscape.divergence == "mse_logits"
        for control in (self.run, self.step_button, self.clear_button):
            control.disabled = not descent
        name = html.escape(loss_name(landscape.divergence, landscape.temperature_scaling))
        lines = [f"loss = mean of {name}", "<b>Your student</b>"]
        if not descent:
            lines.append("Click on the map to drop one,<br>or use the sliders below it.")
        else:
            a, b = numbers["point"]
            slope = sum(g * g for g in numbers["gradient"]) ** 0.5
            lines += [
                f"a = {a:.2f}, b = {b:.2f}, step {descent.steps}",
                f"loss = <b>{numbers['loss']:.4g}</b>",
                f"length of the gradient = {slope:.3g}",
            ]
            if numbers["accuracy"] is not None:
                lines.append(f"accuracy on these {self._rows} = {numbers['accuracy']:.3f}")
        if descent.over:
            lines.append(f"It has {descent.over}.")
        if error is not None:
            words = html.escape(f"{type(error).__name__}: {error}")
            lines.append(f'<span role="alert" style="color:{look.LOSS}">Stopped: {words}</span>')
        self._student.value = "<br>".join(lines) + "<br>&nbsp;"


def _checkbox(words: str, value: bool, width: str) -> Any:
    return ipywidgets.Checkbox(
        value=value, description=words, indent=False, layout=look.control_layout(width)
    )


def _button(words: str, tooltip: str) -> Any:
    return ipywidgets.Button(
        description=words, tooltip=tooltip, layout=ipywidgets.Layout(width="auto")
    )
