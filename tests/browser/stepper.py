"""KernelStepper in a page: its controls, and its marks against sums over the logits it shows."""

import math

import pytest
from playwright.sync_api import Locator
from torch import Tensor

import kdlab
from kdlab.widgets import look
from kdlab.widgets.row_examples import example_rows
from tests.browser import marks
from tests.browser.controls import (
    BETA,
    beta_of,
    click,
    drag,
    enter,
    eventually,
    handle,
    moved,
    number,
    write,
)

CLASS = "kdlab-kernel-stepper"
TILES_SO_FAR = "Tiles so far"


def sums(z_s: Tensor, z_t: Tensor, beta: float) -> dict[str, float]:
    """The row state of these classes as the table says it, from its definition."""
    m_s, m_t = (z.max().item() if len(z) else -math.inf for z in (z_s, z_t))
    if m_s == -math.inf:  # nothing read yet, or nothing but masked classes
        return {"m_s": m_s, "Z_s": 0, "m_t": m_t, "Z_t": 0, "W": 0, "A": 0}
    x_s, x_t = beta * (z_s - m_s), beta * (z_t - m_t)
    v, u = x_s.exp(), x_t.exp()
    a = (u * (x_t - x_s))[u > 0].sum()
    return {
        "m_s": m_s,
        "Z_s": v.sum().item(),
        "m_t": m_t,
        "Z_t": u.sum().item(),
        "W": (u - v).sum().item(),
        "A": a.item(),
    }


def check(widget: Locator, row: str, *, beta: float = 1.0, tile: int = 8, position: int = 0):
    """Wait until bars, band, maxima, table, bytes and KL are those of the row so far."""
    z_s, z_t = example_rows()[row]
    classes = len(z_s)
    seen = min(position * tile, classes)
    start = max(position - 1, 0) * tile
    state = sums(z_s[:seen], z_t[:seen], beta)
    # What a pixel or two are worth, and labels of the axis that are rounded.
    span = max(z[z > -math.inf].abs().max().item() for z in (z_s, z_t))

    def compare() -> None:
        figure = widget.locator(".kdlab-row")
        _, drawn = marks.bars(figure)
        for i, (bars, *pair) in enumerate(zip(drawn, z_t.tolist(), z_s.tolist(), strict=True)):
            expected = [z if math.isfinite(z) else 0.0 for z in pair]
            assert [bar["value"] for bar in bars] == pytest.approx(expected, abs=0.01 * span), i
            assert [bar["opacity"] for bar in bars] == [1.0 if i < seen else 0.25] * 2
        lines = marks.lines(figure)
        band = [x for x, _ in lines[marks.rgb(look.GRADIENT)]]
        assert (min(band), max(band)) == pytest.approx((start - 0.5, seen - 0.5), abs=0.1)
        if math.isfinite(state["m_s"]):
            for colour, name in ((look.TEACHER, "m_t"), (look.STUDENT, "m_s")):
                (_, left), (_, right) = lines[marks.rgb(colour)]
                assert left == right == pytest.approx(state[name], abs=0.02 * span)
        shown = marks.table(widget)
        for name, value in state.items():
            together = float(shown[name][-1].replace("−", "-").replace("∞", "inf"))
            assert together == pytest.approx(value, rel=1e-3, abs=1e-12), name
        text = widget.inner_text()
        assert f"each logit read once: {4 * seen:,} bytes of {4 * classes:,}" in text
        assert f"then KL: {20 * seen:,} bytes of {20 * classes:,}" in text
        if seen == classes:
            loss = kdlab.distillation_loss(z_s, z_t, beta=beta, temperature_scaling=False)
            said = number(widget, r"KL\(p‖q\) = .* = ([\d.e+-]+)")
            assert said == pytest.approx(loss.item(), rel=1e-9)
        else:
            assert "KL comes when the whole row is read" in text

    eventually(compare)


def by_mouse(widget: Locator) -> None:
    """Every control by the mouse, from the state in which the widget opens and back to it."""
    first, *others = example_rows()
    check(widget, first)
    click(widget, "Step")
    click(widget, "Step")
    check(widget, first, position=2)
    click(widget, "Back")
    check(widget, first, position=1)
    for row in others:  # another row starts at its beginning
        widget.get_by_label("Row", exact=True).select_option(row)
        check(widget, row)
        moved(handle(widget, TILES_SO_FAR), lambda: drag(handle(widget, TILES_SO_FAR), 400))
        check(widget, row, position=4)
    widget.get_by_label("Row", exact=True).select_option(first)
    widget.get_by_label("Classes a tile").select_option("16")
    check(widget, first, tile=16)
    moved(handle(widget, BETA), lambda: drag(handle(widget, BETA), -60))
    moved(handle(widget, TILES_SO_FAR), lambda: drag(handle(widget, TILES_SO_FAR), 400))
    assert beta_of(widget) < 1
    check(widget, first, tile=16, position=2, beta=beta_of(widget))
    click(widget, "Reset")
    check(widget, first, tile=16, beta=beta_of(widget))
    widget.get_by_label("Classes a tile").select_option("8")
    write(widget, f"{BETA}, typed", "1")
    check(widget, first)


def by_keyboard(widget: Locator) -> None:
    """Every control by keys, from the state in which the widget opens and back to it."""
    first, second, *_ = example_rows()
    check(widget, first)
    enter(widget, "Step")
    enter(widget, "Step")
    enter(widget, "Back")
    check(widget, first, position=1)
    widget.get_by_label("Row", exact=True).press("ArrowDown")
    check(widget, second)
    so_far = handle(widget, TILES_SO_FAR)
    for key, position in (("ArrowRight", 1), ("End", 4), ("ArrowLeft", 3)):
        moved(so_far, lambda key=key: so_far.press(key))
        check(widget, second, position=position)
    for key, beta in (("ArrowRight", 2**0.25), ("Home", 1 / 8), ("End", 8.0)):
        moved(handle(widget, BETA), lambda key=key: handle(widget, BETA).press(key))
        assert beta_of(widget) == beta
        check(widget, second, position=3, beta=beta)
    widget.get_by_label("Classes a tile").press("ArrowUp")
    check(widget, second, tile=4, beta=8.0)
    write(widget, f"{TILES_SO_FAR}, typed", "8")
    check(widget, second, tile=4, position=8, beta=8.0)
    write(widget, f"{BETA}, typed", "0.5")
    check(widget, second, tile=4, position=8, beta=0.5)
    enter(widget, "Reset")
    widget.get_by_label("Classes a tile").press("ArrowDown")
    widget.get_by_label("Row", exact=True).press("ArrowUp")
    write(widget, f"{BETA}, typed", "1")
    check(widget, first)
