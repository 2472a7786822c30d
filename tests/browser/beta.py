"""BetaExplorer in a page: its controls, and its marks against the library on the same logits."""

import math
import re

import pytest
from playwright.sync_api import Locator
from torch import Tensor

import kdlab
from kdlab.widgets import look
from tests.browser import marks
from tests.browser.controls import eventually

CLASS = "kdlab-beta-explorer"
BETA, EXAMPLE = "β (inverse temperature)", "Example"
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


def handle(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("slider", name=name, exact=True)


def expect_says(slider: Locator, text: str) -> None:
    """Wait until the slider's handle reports this value."""

    def says() -> None:
        assert slider.get_attribute("aria-valuetext") == text

    eventually(says)


def check(widget: Locator, logits: tuple[Tensor, Tensor], *, example: int = 0, **settings) -> None:
    """Wait until bars, their colours and the readout are what `distillation_loss` says at the
    slider's β."""

    def compare() -> None:
        # The slider reports three digits and moves in eighths of a doubling.
        said = float(handle(widget, BETA).get_attribute("aria-valuetext"))
        assert said > 0  # not yet drawn
        beta = 2 ** (round(8 * math.log2(said)) / 8)
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
