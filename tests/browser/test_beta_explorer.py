"""BetaExplorer in JupyterLab: what the reader moves is what `distillation_loss` says."""

import pytest
import torch

from kdlab import data
from tests.browser import marks
from tests.browser.beta import CLASS, EXAMPLE, by_keyboard, by_mouse, check
from tests.browser.controls import (
    BETA,
    accessible_controls,
    check_legible_at_700_pixels,
    expect_says,
    handle,
    tab_stops,
)


@pytest.fixture(scope="module")
def notebook(logits, open_notebook):
    notebook = open_notebook("beta_explorer.ipynb", "doc/tree")
    notebook.run_all()
    return notebook


@pytest.fixture
def explorer(notebook):
    """The widget as it was opened, whatever the test before has done to it."""
    notebook.run("explorer.beta, explorer.divergence, explorer.order = 0.25, 'kl', 'given'")
    notebook.run("explorer.example, explorer.temperature_scaling = 0, True")
    widget = notebook.widget(CLASS)
    expect_says(handle(widget, BETA), "0.250")
    expect_says(handle(widget, EXAMPLE), "0")
    yield widget
    assert notebook.problems == []


def test_opens_on_the_librarys_numbers(explorer, logits, artifact):
    check(explorer, logits)
    explorer.screenshot(path=artifact("widget.png"))


def test_the_digit_stands_upright(explorer):
    drawn = torch.tensor(marks.picture(explorer.locator(".kdlab-picture")))
    given = data.digits().x_test[0].reshape(8, 8)
    # Not equal: the greys are not linear. But darker is darker, in the same places.
    assert drawn.shape == given.shape
    assert torch.corrcoef(torch.stack((drawn.flatten(), given.flatten())))[0, 1] > 0.95


def test_every_control_by_mouse(explorer, logits):
    by_mouse(explorer, logits)


def test_every_control_by_keyboard(explorer, logits):
    by_keyboard(explorer, logits)


def test_python_moves_the_page(explorer, notebook, logits):
    notebook.run("explorer.beta, explorer.example = 2.0, 7")
    expect_says(handle(explorer, BETA), "2.000")
    check(explorer, logits, example=7)


def test_every_control_has_a_name_and_tab_reaches_it(explorer):
    controls = accessible_controls(explorer)
    assert ("slider", BETA) in controls and ("slider", EXAMPLE) in controls
    assert all(name for _, name in controls), controls
    assert {name for _, name in controls} <= tab_stops(explorer)


def test_legible_and_unclipped_at_700_pixels_in_both_themes(explorer, notebook, artifact):
    check_legible_at_700_pixels(notebook.page, explorer, "widget", notebook.use_theme, artifact)
