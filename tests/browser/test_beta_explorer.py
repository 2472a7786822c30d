"""BetaExplorer in JupyterLab: what the reader moves is what `distillation_loss` says."""

import pytest
import torch

import kdlab
from kdlab import data
from kdlab.metrics import entropy
from tests.browser import marks
from tests.browser.beta import BETA, CLASS, EXAMPLE, check, expect_says, handle
from tests.browser.controls import (
    accessible_controls,
    check_legible_at_700_pixels,
    drag,
    eventually,
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


def test_beta_by_keyboard(explorer, logits):
    beta = handle(explorer, BETA)
    for key, value in (("ArrowLeft", "0.229"), ("ArrowRight", "0.250"), ("End", "8.000")):
        beta.press(key)
        expect_says(beta, value)
        check(explorer, logits)


def test_beta_by_mouse(explorer, logits):
    beta = handle(explorer, BETA)
    drag(beta, -40)
    eventually(lambda: moved_left(beta))
    check(explorer, logits)


def moved_left(beta):
    assert float(beta.get_attribute("aria-valuetext")) < 0.25


def test_beta_typed_into_the_readout(explorer, logits):
    typed = explorer.get_by_role("textbox", name=f"{BETA}, typed")
    typed.fill("0.5")
    typed.press("Enter")
    expect_says(handle(explorer, BETA), "0.500")
    check(explorer, logits)


def test_every_divergence(explorer, logits):
    choice = explorer.get_by_label("Divergence")
    offered = choice.locator("option").all_text_contents()
    assert {"kl", "mse", "mse_logits"} <= set(offered)
    for divergence in offered:
        choice.select_option(divergence)
        check(explorer, logits, divergence=divergence)


def test_divergence_by_keyboard(explorer, logits):
    explorer.get_by_label("Divergence").press("m")
    check(explorer, logits, divergence="mse")


def test_temperature_scaling_by_mouse_and_keyboard(explorer, logits):
    scaling = explorer.get_by_label("Multiply the loss by T²")
    scaling.click()
    check(explorer, logits, temperature_scaling=False)
    scaling.press("Space")
    check(explorer, logits, temperature_scaling=True)


def test_example_by_keyboard_and_mouse(explorer, logits):
    example = handle(explorer, EXAMPLE)
    example.press("ArrowRight")
    check(explorer, logits, example=1)
    drag(example, 60)
    chosen = round(float(example.get_attribute("aria-valuenow")))
    assert chosen > 1
    check(explorer, logits, example=chosen)


def test_hesitant_examples_first(explorer, logits):
    explorer.get_by_label("Order").select_option("where the teacher hesitates first")
    check(explorer, logits, example=entropy(kdlab.soften(logits[1])).argmax().item())


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
