"""DistillationRace in a page: its controls, and its curves against the same race run here."""

import math

import pytest
import torch
from playwright.sync_api import Locator

from kdlab.widgets import DistillationRace, look
from tests.browser import marks
from tests.browser.controls import (
    click,
    drag,
    enter,
    eventually,
    expect_text,
    handle,
    moved,
    number,
    spin,
    write,
)
from tests.browser.training import (
    RATE,
    WIDTH,
    expect_whole,
    rate_of,
    settings_by_keyboard,
    settings_by_mouse,
)

CLASS = "kdlab-distillation-race"
LOSS_SHOWN = "Loss shown"


def check(widget: Locator, twin: DistillationRace, words: str, loss: str = "loss") -> None:
    """Wait until the widget says these words, and all its curves and its table are the twin's."""
    expect_text(widget, words, seconds=90)
    state = twin.state

    def compare() -> None:
        table = marks.table(widget)
        assert set(table) == {*state["lanes"], "teacher"}
        for name, lane in state["lanes"].items():
            step, *cells = table[name]
            assert int(step) == lane["steps"][-1]
            for cell, quantity in zip(cells, ("accuracy", "agreement", loss), strict=True):
                now = torch.tensor([row[-1] for row in lane[quantity]])
                if now.isfinite().all():
                    assert float(cell.split()[0]) == pytest.approx(now.mean().item(), abs=1e-3)
                else:  # no loss before the first step
                    assert cell == "–"
        for quantity in ("accuracy", "agreement", loss):
            chart = "loss" if quantity == loss else quantity
            figure = widget.locator(f".kdlab-race-{chart}")
            drawn = marks.lines(figure, log="y" if chart == "loss" else "")
            for lane in state["lanes"].values():
                colour = marks.rgb(twin._view.styles[lane["beta"]].colour)
                compare_curve(drawn.get(colour, []), lane, quantity)
            if chart == "accuracy":
                heights = [y for _, y in drawn[marks.rgb(look.TEACHER)]]
                assert heights == pytest.approx([state["teacher_accuracy"]] * 2, abs=0.01)

    eventually(compare)


def compare_curve(drawn: list[tuple[float, float]], lane: dict, quantity: str) -> None:
    """Each point drawn is the mean over seeds at its step; none is missing at the end."""
    means = torch.tensor(lane[quantity]).mean(0)
    known = {s: m for s, m in zip(lane["steps"], means.tolist(), strict=True) if math.isfinite(m)}
    assert bool(drawn) == bool(known)
    if known:
        assert drawn[-1][0] == pytest.approx(max(known), abs=1)
    share = quantity in ("accuracy", "agreement")
    for x, y in drawn:
        # A step is a pixel wide or less: the point may be that of the step before or after.
        near = [known[step] for step in known if abs(step - x) <= 1.5]
        # A pixel's height is a two-hundredth of the axis.
        within = {"abs": 0.008} if share else {"rel": 0.05}
        close = [y == pytest.approx(value, **within) for value in near]
        assert any(close), (quantity, x, y, near)


def change_rate_in_the_pause(widget: Locator, twin: DistillationRace, move) -> None:
    """The twin changes its learning rate at the step that the widget names."""
    moved(handle(widget, RATE), move)
    expect_text(widget, ": learning rate ")
    first = number(widget, r"From step (\d+): learning rate")
    if first - 1 > twin.state["step"]:
        twin.step(int(first) - 1 - twin.state["step"])
    twin.lr = rate_of(widget)


def expect_running(widget: Locator, step: int) -> None:
    def far_enough() -> None:
        assert any(int(cells[0] or 0) >= step for cells in marks.table(widget).values())

    eventually(far_enough)


def by_mouse(widget: Locator, twin: DistillationRace) -> None:
    """Every control by the mouse; the twin is in the widget's state, before and after."""
    steps = twin.state["steps"]
    check(widget, twin, "Ready: ")
    settings_by_mouse(widget, twin, "1/8, 0.5")
    check(widget, twin, f"Ready: {3 * twin.seeds} students in 3 lanes.")
    click(widget, "Step")
    twin.step()
    check(widget, twin, f"Paused at step 1 of {steps}.")
    widget.get_by_label(LOSS_SHOWN).select_option("cross-entropy on the test set")
    check(widget, twin, f"Paused at step 1 of {steps}.", loss="cross_entropy")
    click(widget, "Start")
    expect_running(widget, steps // 10)
    click(widget, "Pause")
    expect_text(widget, "Paused at step ")
    rate = handle(widget, RATE)
    change_rate_in_the_pause(widget, twin, lambda: drag(rate, 15))
    click(widget, "Start")
    twin.run()
    check(widget, twin, f"Finished: {steps} steps.", loss="cross_entropy")
    widget.get_by_label(LOSS_SHOWN).select_option("training loss, each lane its own")
    check(widget, twin, f"Finished: {steps} steps.")
    spin(widget, WIDTH)
    twin.width += 1
    expect_whole(widget, WIDTH, twin.width)
    check(widget, twin, f"At Reset: students of size {twin.width}")
    click(widget, "Reset")
    twin.reset()
    check(widget, twin, "Ready: ")


def by_keyboard(widget: Locator, twin: DistillationRace) -> None:
    """Every control by keys; the twin is in the widget's state, before and after."""
    steps = twin.state["steps"]
    settings_by_keyboard(widget, twin, "0.25")
    check(widget, twin, f"Ready: {2 * twin.seeds} students in 2 lanes.")
    enter(widget, "Step")
    twin.step()
    check(widget, twin, f"Paused at step 1 of {steps}.")
    shown = widget.get_by_label(LOSS_SHOWN)
    shown.press("ArrowDown")
    check(widget, twin, f"Paused at step 1 of {steps}.", loss="cross_entropy")
    shown.press("ArrowUp")
    enter(widget, "Start")
    expect_running(widget, steps // 10)
    enter(widget, "Pause")
    expect_text(widget, "Paused at step ")
    rate = handle(widget, RATE)
    change_rate_in_the_pause(widget, twin, lambda: rate.press("ArrowLeft"))
    # A lane that comes late catches up, as if it had been there all along.
    write(widget, "β values", "1/4, 1")
    twin.betas = [0.25, 1.0]
    enter(widget, "Start")
    twin.run()
    check(widget, twin, f"Finished: {steps} steps.")
    enter(widget, "Reset")
    twin.reset()
    check(widget, twin, "Ready: ")
