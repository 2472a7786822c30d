"""The four instruments besides BetaExplorer: every control moved by mouse and by keyboard.

Their modules (`landscape`, `stepper`, `race`, `sweep`) know their controls and what the marks must
say; this one brings them to whatever page there is.
"""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator

from kdlab.widgets import BetaSweep, DistillationRace
from tests.browser import landscape, race, stepper, sweep
from tests.browser.outputs import write_notebook

# Long enough to be stopped on the way.
RACE = {"betas": [0.25], "seeds": 2, "steps": 200}
SWEEP = {"betas": [0.05, 0.25, 1.0], "seeds": 3, "steps": 100}
NOTEBOOK = "instruments.ipynb"
CELLS = (
    "from kdlab.widgets import BetaSweep, DistillationRace, KernelStepper, LossLandscape",
    "landscape = LossLandscape.example()\nlandscape",
    "stepper = KernelStepper()\nstepper",
    f"race = DistillationRace(**{RACE})\nrace",
    f"sweep = BetaSweep(**{SWEEP})\nsweep",
)
CLASSES = (landscape.CLASS, stepper.CLASS, race.CLASS, sweep.CLASS)


def write_instruments(folder: Path) -> str:
    """A notebook that opens the four, in this folder; its name."""
    write_notebook(folder / NOTEBOOK, *CELLS)
    return NOTEBOOK


def use(
    css_class: str,
    widget_of: Callable[[str], Locator],
    race_settings: dict | None = None,
    sweep_settings: dict | None = None,
) -> None:
    """Move every control of the widget that `widget_of(css_class)` brings into view, by mouse and
    then by keyboard, and compare its marks. settings: those that the page opened it with."""
    widget = widget_of(css_class)
    if css_class in (landscape.CLASS, stepper.CLASS):
        module = landscape if css_class == landscape.CLASS else stepper
        module.by_mouse(widget)
        module.by_keyboard(widget)
    elif css_class == race.CLASS:
        racing = DistillationRace(**(race_settings or {}))
        race.by_mouse(widget, racing)
        race.by_keyboard(widget, racing)
    else:
        sweeping = BetaSweep(**(sweep_settings or {}))
        sweep.by_mouse(widget, sweeping)
        sweep.by_keyboard(widget, sweeping)
