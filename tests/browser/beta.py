"""BetaExplorer in a page: its controls, and its marks against the library on the same logits."""

import re

import pytest
from playwright.sync_api import Locator
from torch import Tensor

import kdlab
from kdlab.arguments import DIVERGENCES
from kdlab.metrics import entropy
from kdlab.widgets import look
from tests.browser import marks
from tests.browser.controls import (
    BETA,
    beta_of,
    drag,
    eventually,
    expect_says,
    handle,
    moved,
    reading,
    write,
)

CLASS = "kdlab-beta-explorer"
EXAMPLE, MIX = "Example", "Teacher's share in js"
# A reader's cell; the test has put the logits beside the notebook.
OPEN = """\
import torch
from kdlab import data
from kdlab.widgets import BetaExplorer

digits = data.digits()
student_logits, teacher_logits = torch.load("digits_outputs.pt")
explorer = BetaExplorer(
    student_logits, teacher_logits, digits.x_test, digits.y_test, digits.class_names,
    digits.image_shape, beta=0.25,
)
explorer"""


def check(widget: Locator, logits: tuple[Tensor, Tensor], *, example: int = 0, **settings) -> None:
    """Wait until bars, their colours and the readout are what `distillation_loss` says at the
    slider's β."""

    def compare() -> None:
        beta = beta_of(widget, a_doubling=8)
        z_s, z_t = (rows[example].clone() for rows in logits)
        z_s.requires_grad_()
        loss = kdlab.distillation_loss(z_s, z_t, beta=beta, **settings)
        loss.backward()
        p, q = (kdlab.soften(z, beta).tolist() for z in (z_t, z_s.detach()))
        names, pairs = marks.bars(widget.locator(".kdlab-probabilities"))
        assert names == [str(c) for c in range(10)]
        for drawn, *expected in zip(pairs, p, q, strict=True):
            assert [bar["value"] for bar in drawn] == pytest.approx(expected, abs=1e-3)
            assert [bar["colour"] for bar in drawn] == [
                marks.rgb(look.TEACHER),
                marks.rgb(look.STUDENT),
            ]
        names, singles = marks.bars(widget.locator(".kdlab-gradient"))
        assert names == [str(c) for c in range(10)]
        drawn = [bar["value"] for (bar,) in singles]
        assert drawn == pytest.approx(z_s.grad.tolist(), abs=1e-3 * z_s.grad.abs().max().item())
        said = re.search(r"loss = .*?= ([\d.e+-]+)", widget.inner_text(), re.DOTALL)
        assert float(said.group(1)) == pytest.approx(loss.item(), rel=1e-3)

    eventually(compare)


def chosen(widget: Locator) -> int:
    """The example that the slider has come to."""
    return round(reading(handle(widget, EXAMPLE)))


def most_hesitant(logits: tuple[Tensor, Tensor]) -> int:
    return entropy(kdlab.soften(logits[1])).argmax().item()


def by_mouse(widget: Locator, logits: tuple[Tensor, Tensor]) -> None:
    """Every control by the mouse, from the state in which the widget opens and back to it."""
    check(widget, logits)
    beta, example = handle(widget, BETA), handle(widget, EXAMPLE)
    assert moved(beta, lambda: drag(beta, -40)) < 0.25
    check(widget, logits)
    choice = widget.get_by_label("Divergence")
    offered = choice.locator("option").all_text_contents()
    assert set(offered) == set(DIVERGENCES)
    for divergence in offered:
        choice.select_option(divergence)
        check(widget, logits, divergence=divergence)
    choice.select_option("js")
    mix = handle(widget, MIX)
    check(widget, logits, divergence="js", mix=moved(mix, lambda: drag(mix, 30)))
    write(widget, f"{MIX}, typed", "0.5")
    choice.select_option("kl")
    scaling = widget.get_by_label("Multiply the loss by T²")
    scaling.click()
    check(widget, logits, temperature_scaling=False)
    scaling.click()
    moved(example, lambda: drag(example, 60))
    check(widget, logits, example=chosen(widget))
    order = widget.get_by_label("Order")
    order.select_option("where the teacher hesitates first")
    check(widget, logits, example=most_hesitant(logits))
    order.select_option("as given")
    expect_says(example, str(most_hesitant(logits)))  # who goes back stays
    write(widget, f"{EXAMPLE}, typed", "0")
    write(widget, f"{BETA}, typed", "0.25")
    check(widget, logits)


def by_keyboard(widget: Locator, logits: tuple[Tensor, Tensor]) -> None:
    """Every control by keys, from the state in which the widget opens and back to it."""
    check(widget, logits)
    beta, example = handle(widget, BETA), handle(widget, EXAMPLE)
    for key, value in (("ArrowLeft", "0.229"), ("ArrowRight", "0.250"), ("End", "8.000")):
        beta.press(key)
        expect_says(beta, value)
        check(widget, logits)
    write(widget, f"{BETA}, typed", "0.5")
    expect_says(beta, "0.500")
    check(widget, logits)
    choice = widget.get_by_label("Divergence")
    choice.press("m")
    check(widget, logits, divergence="mse")
    choice.press("ArrowUp")
    mix = handle(widget, MIX)
    share = moved(mix, lambda: mix.press("ArrowRight"))
    check(widget, logits, divergence="js", mix=share)
    write(widget, f"{MIX}, typed", "0.5")
    choice.press("Home")
    scaling = widget.get_by_label("Multiply the loss by T²")
    scaling.press("Space")
    check(widget, logits, temperature_scaling=False)
    scaling.press("Space")
    example.press("ArrowRight")
    check(widget, logits, example=1)
    write(widget, f"{EXAMPLE}, typed", "7")
    check(widget, logits, example=7)
    order = widget.get_by_label("Order")
    order.press("ArrowDown")
    check(widget, logits, example=most_hesitant(logits))
    order.press("ArrowUp")
    expect_says(example, str(most_hesitant(logits)))  # who goes back stays
    write(widget, f"{EXAMPLE}, typed", "0")
    write(widget, f"{BETA}, typed", "0.25")
    check(widget, logits)
