"""What DistillationRace and BetaSweep have in common: settings, moved by mouse and by keyboard."""

import math

from playwright.sync_api import Locator

from kdlab.widgets.training_settings import TrainingSettings, parse_betas
from tests.browser.controls import drag, eventually, handle, moved, reading, spin, write

BETAS, ALPHA, RATE = "β values", "α (weight of the labels)", "Learning rate"
WIDTH, SEEDS = "Student size (units)", "Seeds"


def rate_of(widget: Locator) -> float:
    """The learning rate as it is, not as rounded for the reader: ten steps a factor of ten."""
    return 10 ** (round(10 * math.log10(reading(handle(widget, RATE)))) / 10)


def expect_whole(widget: Locator, name: str, value: int) -> None:
    def says() -> None:
        assert widget.get_by_role("spinbutton", name=name, exact=True).input_value() == str(value)

    eventually(says)


def settings_by_mouse(widget: Locator, twin: TrainingSettings, betas: str) -> None:
    """Move every setting by the mouse (β are typed, after a click), and the twin's after it."""
    widget.get_by_role("textbox", name=BETAS, exact=True).click()
    write(widget, BETAS, betas)
    alpha, rate = handle(widget, ALPHA), handle(widget, RATE)
    twin.label_weight = moved(alpha, lambda: drag(alpha, 40))
    moved(rate, lambda: drag(rate, -12))
    widget.get_by_label("Divergence").select_option("js")
    spin(widget, WIDTH, times=2)
    spin(widget, SEEDS)
    _follow(widget, twin, betas, "js", twin.width + 2, twin.seeds + 1)


def settings_by_keyboard(widget: Locator, twin: TrainingSettings, betas: str) -> None:
    """Move every setting by keys, and the twin's after it."""
    write(widget, BETAS, betas)
    alpha, rate = handle(widget, ALPHA), handle(widget, RATE)
    twin.label_weight = moved(alpha, lambda: alpha.press("ArrowRight"))
    moved(rate, lambda: rate.press("ArrowLeft"))
    widget.get_by_label("Divergence").press("r")
    widget.get_by_role("spinbutton", name=WIDTH, exact=True).press("ArrowDown")
    widget.get_by_role("spinbutton", name=SEEDS, exact=True).press("ArrowUp")
    _follow(widget, twin, betas, "reverse_kl", twin.width - 1, twin.seeds + 1)


def _follow(
    widget: Locator, twin: TrainingSettings, betas: str, divergence: str, width: int, seeds: int
) -> None:
    expect_whole(widget, WIDTH, width)
    expect_whole(widget, SEEDS, seeds)
    twin.betas, twin.lr = parse_betas(betas), rate_of(widget)
    twin.divergence, twin.width, twin.seeds = divergence, width, seeds
