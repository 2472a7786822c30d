"""BetaSweep in a page: its controls, and its curve and verdicts against the same sweep run here."""

from statistics import mean

import pytest
from playwright.sync_api import Locator

from kdlab.widgets import BetaSweep, look
from kdlab.widgets.curves import LABELS_ONLY
from tests.browser import marks
from tests.browser.controls import click, enter, eventually, expect_text, number
from tests.browser.training import settings_by_keyboard, settings_by_mouse

CLASS = "kdlab-beta-sweep"


def check(widget: Locator, twin: BetaSweep, words: str) -> None:
    """Wait until the widget says these words; when it has finished, its marks are the twin's."""
    expect_text(widget, words, seconds=120)
    state, best = twin.state, twin.recommendation

    def compare() -> None:
        table = marks.table(widget)
        assert set(table) == {*(f"β = {beta:g}" for beta in twin.betas), "labels only"}
        if best is None:
            return
        means = {beta: mean(seeds) for beta, seeds in state["held_out"].items()}
        for beta, expected in means.items():
            temperature, accuracy, share, verdict = table[f"β = {beta:g}"]
            assert float(temperature) == pytest.approx(1 / beta, rel=5e-3)
            assert float(accuracy.split()[0]) == pytest.approx(expected, abs=1e-3)
            assert float(share[:-1]) == pytest.approx(100 * best.shares[beta], abs=0.51)
            assert (verdict == "recommended") == (beta == best.beta)
            assert (verdict == "cannot be told apart") == (beta in best.ties)
        alone = mean(state["labels_only"])
        assert float(table["labels only"][1].split()[0]) == pytest.approx(alone, abs=1e-3)
        figure = widget.locator(".kdlab-sweep")
        drawn = marks.lines(figure, log="x")
        assert drawn[marks.rgb(look.STUDENT)] == [
            (pytest.approx(beta, rel=0.05), pytest.approx(expected, abs=0.01))
            for beta, expected in means.items()
        ]
        assert [y for _, y in drawn[marks.rgb(LABELS_ONLY[0])]] == pytest.approx(
            [alone] * 2, abs=0.01
        )
        ring = marks.points(figure, log="x")["rgba(0, 0, 0, 0)"]
        assert ring[0] == pytest.approx(best.beta, rel=0.05)
        assert ring[1] == pytest.approx(means[best.beta], abs=0.01)
        assert str(best) in widget.inner_text()
        tested = mean(state["test"]["distilled"])
        assert number(widget, r"On the test set.*: ([\d.]+)") == pytest.approx(tested, abs=1e-3)

    eventually(compare)


def run_with_a_pause(widget: Locator, twin: BetaSweep, press) -> None:
    """Run, cancel, run on: the controls are fixed meanwhile, and what was done is kept."""
    students = (len(twin.betas) + 1) * twin.seeds
    check(widget, twin, f"Ready: {students} students to train.")
    press(widget, "Run")
    expect_text(widget, "the kernel is free for other cells")
    assert widget.get_by_label("β values").is_disabled()
    press(widget, "Cancel")
    expect_text(widget, "Cancelled: ")
    assert widget.get_by_label("β values").is_enabled()
    assert number(widget, r"Cancelled: (\d+) of") < students
    press(widget, "Run")
    twin.run()
    check(widget, twin, f"Finished: {students} students.")


def by_mouse(widget: Locator, twin: BetaSweep) -> None:
    """Every control by the mouse; the twin has the widget's settings, before and after."""
    settings_by_mouse(widget, twin, "0.1, 1")
    run_with_a_pause(widget, twin, click)


def by_keyboard(widget: Locator, twin: BetaSweep) -> None:
    """Every control by keys; the twin has the widget's settings, before and after."""
    settings_by_keyboard(widget, twin, "1/16, 1/4, 1")
    run_with_a_pause(widget, twin, enter)
