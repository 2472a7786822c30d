"""The settings of a widget that trains students: checked, on controls and as attributes."""

import html
import math
import traceback
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, ClassVar

import ipywidgets
import traitlets

from kdlab.arguments import DIVERGENCES
from kdlab.widgets import look
from kdlab.widgets.classroom import Settings
from kdlab.widgets.one_thread import OneThread

LEAST_LR, MOST_LR = 1e-5, 1.0


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """The value as a float, or a ValueError that names it.

    >>> check_number("lr", float("nan"), 0, 1)
    Traceback (most recent call last):
        ...
    ValueError: lr: got nan; expected a number from 0 to 1
    """
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise ValueError(f"{name}: got {value!r}; expected a number from {low:g} to {high:g}")
    return number


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int, or a ValueError that names it."""
    number = check_number(name, value, low, high)
    if number != int(number):
        raise ValueError(f"{name}: got {value!r}; expected a whole number from {low} to {high}")
    return int(number)


def check_betas(value: Any, fewest: int, most: int) -> tuple[float, ...]:
    """Different β from 0.001 to 1000, in ascending order, or a ValueError."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"betas: got {value!r}; expected a list of numbers")
    betas = tuple(sorted(check_number("betas", beta, 1e-3, 1e3) for beta in value))
    if not fewest <= len(set(betas)) == len(betas) <= most:
        raise ValueError(f"betas: got {list(betas)}; expected {fewest} to {most} different numbers")
    return betas


def parse_betas(text: str) -> list[float]:
    """Numbers or fractions between commas, semicolons or spaces.

    >>> parse_betas("1/8, 0.25 1")
    [0.125, 0.25, 1.0]
    """
    words = text.replace(",", " ").replace(";", " ").split()
    try:
        return [float(Fraction(word)) for word in words]
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"betas: got {text!r}; expected numbers such as 1/8, 0.25, 1") from None


def words_of(error: Exception) -> str:
    """An exception in a line.

    >>> words_of(ValueError("lr: got 0"))
    'ValueError: lr: got 0'
    """
    return f"{type(error).__name__}: {error}"


def alert(text: str, error: Exception | None = None) -> str:
    """HTML of a message that a screen reader speaks at once, with an error's traceback folded."""
    colour = "color:var(--jp-error-color1, #B00020)"
    message = f'<span role="alert" style="{colour}">⚠ {html.escape(text)}</span>'
    if error is None:
        return message
    trace = html.escape("".join(traceback.format_exception(error)))
    return (
        f"{message}<details><summary>Traceback</summary>"
        f'<pre style="overflow-x:auto;line-height:1.3">{trace}</pre></details>'
    )


class TrainingSettings(ipywidgets.VBox):
    """β values, α, divergence, learning rate, student size and seeds, with a control for each."""

    FEWEST_BETAS: ClassVar[int] = 1
    MOST_BETAS: ClassVar[int] = 5
    FEWEST_SEEDS: ClassVar[int] = 1

    betas = traitlets.Any()
    label_weight = traitlets.Any()
    divergence = traitlets.Any()
    lr = traitlets.Any()
    width = traitlets.Any()
    seeds = traitlets.Any()
    SETTINGS: ClassVar[tuple[str, ...]] = (
        "betas", "label_weight", "divergence", "lr", "width", "seeds",
    )  # fmt: skip

    def _set_up(self, **settings: Any) -> None:
        """Check the settings, then make the controls; `children` is the widget's own matter."""
        self._thread = OneThread()
        for name in self.SETTINGS:
            setattr(self, name, settings[name])
        self._make_controls()

    @property
    def _step_settings(self) -> Settings:
        return Settings(self.lr, self.label_weight, self.divergence)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as they stand on the controls."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    @traitlets.validate("betas")
    def _valid_betas(self, proposal: Any) -> tuple[float, ...]:
        return self._allowed(
            "betas", check_betas(proposal.value, self.FEWEST_BETAS, self.MOST_BETAS)
        )

    @traitlets.validate("label_weight")
    def _valid_label_weight(self, proposal: Any) -> float:
        return self._allowed("label_weight", check_number("label_weight", proposal.value, 0, 1))

    @traitlets.validate("divergence")
    def _valid_divergence(self, proposal: Any) -> str:
        look.choice("divergence", proposal.value, DIVERGENCES)
        return self._allowed("divergence", proposal.value)

    @traitlets.validate("lr")
    def _valid_lr(self, proposal: Any) -> float:
        return self._allowed("lr", check_number("lr", proposal.value, LEAST_LR, MOST_LR))

    @traitlets.validate("width")
    def _valid_width(self, proposal: Any) -> int:
        return self._allowed("width", check_whole("width", proposal.value, 1, 4096))

    @traitlets.validate("seeds")
    def _valid_seeds(self, proposal: Any) -> int:
        return self._allowed("seeds", check_whole("seeds", proposal.value, self.FEWEST_SEEDS, 20))

    def _when_out_of_sight(self, act: Callable[[], None]) -> None:
        """Act when the last view of the widget has gone from the page: its cell ran again, or was
        deleted. A widget that is not shown, in a script or a test, has nothing to lose."""
        self._view_count = 0  # asks the page to count

        def counted(change: Any) -> None:
            if change.old and not change.new:
                act()

        self._thread.observe(self, counted, "_view_count")

    def _allowed(self, name: str, value: Any) -> Any:
        """Where a widget may refuse a change for now."""
        return value

    def _make_controls(self) -> None:
        style = {"description_width": "initial"}

        def labelled(kind: Any, name: str, width: str, words: str, tip: str, **more: Any) -> Any:
            control = kind(
                value=getattr(self, name),
                description=words,
                tooltip=tip,
                style=style,
                continuous_update=False,
                layout=look.control_layout(width),
                **more,
            )
            self._thread.link(self, name, control)
            return control

        self._label_weight = labelled(
            ipywidgets.FloatSlider, "label_weight", "360px", "α (weight of the labels)",
            "0: the teacher alone; 1: the labels alone", min=0, max=1, step=0.05,
        )  # fmt: skip
        self._lr = labelled(
            ipywidgets.FloatLogSlider, "lr", "320px", "Learning rate",
            "Adam's, at the top of the cosine that leads to 0",
            base=10, min=math.log10(LEAST_LR), max=math.log10(MOST_LR), step=0.1,
            readout_format=".2g",
        )  # fmt: skip
        self._width = labelled(
            ipywidgets.BoundedIntText, "width", "210px", "Student size (units)",
            "How many hidden units a student has", min=1, max=4096,
        )  # fmt: skip
        self._seeds = labelled(
            ipywidgets.BoundedIntText, "seeds", "130px", "Seeds",
            "How many students train for each setting", min=self.FEWEST_SEEDS, max=20,
        )  # fmt: skip
        self._divergence = look.dropdown("Divergence", DIVERGENCES, self.divergence, "200px")
        self._thread.link(self, "divergence", self._divergence)
        self._betas = ipywidgets.Text(
            value=self._betas_text(),
            description="β values",
            tooltip="Numbers or fractions with commas between them",
            continuous_update=False,
            style=style,
            layout=look.control_layout("430px"),
        )
        self._betas_error = ipywidgets.HTML()
        self._thread.observe(self._betas, self._betas_typed)
        self.observe(self._betas_set, "betas")

    def _betas_text(self) -> str:
        return ", ".join(f"{beta:g}" for beta in self.betas)

    def _betas_typed(self, change: Any) -> None:
        # What cannot be read stays in the field, beside the reason; the race keeps its β.
        self._betas_error.value = ""
        if change.new == self._betas_text():
            return
        try:
            self.betas = parse_betas(change.new)
        except ValueError as error:
            self._betas_error.value = alert(str(error))

    def _betas_set(self, change: Any) -> None:
        self._betas.value = self._betas_text()
