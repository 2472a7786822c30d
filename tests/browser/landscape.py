"""LossLandscape in a page: its controls, and its marks against `distillation_loss` on its plane."""

import math
from functools import cache

import pytest
import torch
from playwright.sync_api import Locator
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

import kdlab
from kdlab.metrics import accuracy
from kdlab.widgets import look
from kdlab.widgets.landscape_view import VIRIDIS
from kdlab.widgets.plane import digits_plane
from kdlab.widgets.surface import GRID, MARGIN
from tests.browser import marks
from tests.browser.controls import (
    BETA,
    beta_of,
    click,
    drag,
    enter,
    eventually,
    expect_text,
    handle,
    moved,
    number,
    write,
)

CLASS = "kdlab-loss-landscape"
RATE = "Learning rate η"
DROP_A, DROP_B = "Drop at a", "Drop at b"
SCALING, HOLD = "Multiply the loss by T²", "Hold the colours"


def losses(points: Tensor, **settings) -> Tensor:
    """Mean `distillation_loss` of the students at points (P, 2), differentiable in them."""
    plane, x, teacher_logits, _ = digits_plane(0)
    logits = plane.logits(points, x)
    teacher = teacher_logits.to(logits.dtype).expand_as(logits)
    return kdlab.distillation_loss(logits, teacher, reduction="none", **settings).mean(-1)


@cache
def grid() -> Tensor:
    """(GRID, GRID, 2): the students of the map, from the top left as one sees them."""
    corners = digits_plane(0)[0].corners
    low, high = corners.amin(0), corners.amax(0)
    pad = MARGIN * (high - low)
    a, b = (
        torch.linspace(start, end, GRID, dtype=torch.float64)
        for start, end in zip((low - pad).tolist(), (high + pad).tolist(), strict=True)
    )
    return torch.stack(torch.meshgrid(a, b.flip(0), indexing="xy"), -1)


def heights(**settings) -> Tensor:
    """log₁₀ of the loss at each student of the map, rows from the top."""
    flat = grid().reshape(-1, 2)
    return torch.cat([losses(some, **settings) for some in flat.split(64)]).log10().view(GRID, GRID)


def colour(share: float) -> list[float]:
    """Viridis at this share of the way from its first colour to its last."""
    stops = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in VIRIDIS]
    at = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    return [low + (at - i) * (high - low) for low, high in zip(*stops[i : i + 2], strict=True)]


def check(widget: Locator, span: tuple[float, float] | None = None, **settings) -> None:
    """Wait until the map's colours, isolines, lowest point and student are as the loss says.

    span: lowest and highest log₁₀ of the loss that the colours stand for; by default the map's.
    """
    high = heights(**settings)
    low_end, high_end = span or (high.min().item(), high.max().item())
    share = (high - low_end) / (high_end - low_end)

    def compare() -> None:
        figure = widget.locator(".kdlab-landscape")
        ticks = marks.colour_axis(figure)
        assert (ticks[0], ticks[-1]) == pytest.approx((low_end, high_end), abs=0.051)
        drawn = marks.heat_map(figure, GRID, GRID)
        for row in range(0, GRID, 3):
            for column in range(0, GRID, 3):
                expected = colour(share[row, column].item())
                # Four in 255 is a hundredth of the way: less than from cell to cell.
                assert drawn[row][column] == pytest.approx(expected, abs=4), (row, column)
        check_isolines(marks.isolines(figure), high)
        points = marks.points(figure)
        lowest = (
            number(widget, r"Lowest point\na = ([−\d.]+)"),
            number(widget, r", b = ([−\d.]+)\nl"),
        )
        said = number(widget, r"Lowest point\n.*\nloss = ([\d.e+-]+)")
        assert said <= 1.001 * 10 ** high.min().item()
        assert said == pytest.approx(losses(torch.tensor([lowest]).double(), **settings), rel=0.02)
        assert points[marks.rgb(look.POINT)] == pytest.approx(lowest, abs=0.1)
        if marks.rgb(look.STUDENT) in points:
            check_student(widget, points[marks.rgb(look.STUDENT)], **settings)

    eventually(compare)


def check_isolines(drawn: list[list[tuple[float, float]]], high: Tensor) -> None:
    """A line for each fifth of a decade that the losses span, and the loss on each is its own."""
    levels = range(math.ceil(5 * high.min().item()), math.floor(5 * high.max().item()) + 1)
    assert len(drawn) == len(levels)
    a, b = grid()[0, :, 0].numpy(), grid()[:, 0, 1].flip(0).numpy()
    # Lines end at the map's rim, in the page perhaps a pixel outside, where None goes on.
    on_the_map = RegularGridInterpolator(
        (b, a), high.flip(0).numpy(), bounds_error=False, fill_value=None
    )
    for fifths, line in zip(levels, drawn, strict=True):
        found = on_the_map([(y, x) for x, y in line])
        # Half a pixel is up to 0.03 of a decade, where the map is steepest.
        assert found == pytest.approx(fifths / 5, abs=0.05)


def student(widget: Locator) -> tuple[float, float]:
    """(a, b) of the student, to the two decimals that the widget says."""
    return (
        number(widget, r"Your student\na = ([−\d.]+)"),
        number(widget, r"Your student\n.*b = ([−\d.]+), step"),
    )


def check_student(widget: Locator, drawn: tuple[float, float], **settings) -> None:
    place = student(widget)
    assert drawn == pytest.approx(place, abs=0.1)
    point = torch.tensor([place], dtype=torch.float64, requires_grad=True)
    loss = losses(point, **settings)
    loss.sum().backward()
    slope = point.grad.norm().item()
    # The place is said to half a hundredth, so the loss is known to that times its slope.
    assert number(widget, r"Your student\n.*\nloss = ([\d.e+-]+)") == pytest.approx(
        loss.item(), rel=2e-3, abs=0.01 * slope
    )
    assert number(widget, r"length of the gradient = ([\d.e+-]+)") == pytest.approx(
        slope, rel=0.05, abs=0.01
    )
    plane, x, _, labels = digits_plane(0)
    right = accuracy(plane.logits(point.detach(), x)[0], labels)
    # One or two of the fifty may change within that half of a hundredth.
    assert number(widget, r"accuracy on these 50 = ([\d.]+)") == pytest.approx(right, abs=0.041)


def steps(widget: Locator) -> float:
    return number(widget, r", step (\d+)")


def expect_steps(widget: Locator, least: float) -> None:
    def enough() -> None:
        assert steps(widget) >= least

    eventually(enough)


def check_one_step(widget: Locator, press, rate: float, **settings) -> None:
    """A step goes from where the student is by −η times the gradient there."""
    before = torch.tensor([student(widget)], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(losses(before, **settings).sum(), before)
    count = steps(widget)
    press(widget, "One step")
    expect_steps(widget, count + 1)
    assert steps(widget) == count + 1
    expected = (before - rate * slope)[0].tolist()
    assert student(widget) == pytest.approx(expected, abs=0.01 + 0.05 * rate * slope.norm().item())


def check_dropped(widget: Locator, a: float, b: float) -> None:
    """The path of the student that was dropped starts where it was."""

    def starts_there() -> None:
        path = marks.lines(widget.locator(".kdlab-landscape")).get("rgb(0, 0, 0)")
        assert path and path[0] == pytest.approx((a, b), abs=0.12), (
            f"dropped at {(a, b)}, path from {path and path[0]}"
        )

    eventually(starts_there)


def by_mouse(widget: Locator) -> None:
    """Every control by the mouse, from the state in which the widget opens."""
    settings = {"beta": 0.25, "divergence": "kl", "temperature_scaling": True}
    check(widget, **settings)
    moved(handle(widget, BETA), lambda: drag(handle(widget, BETA), 30))
    settings["beta"] = beta_of(widget)
    assert settings["beta"] > 0.25
    choice = widget.get_by_label("Divergence")
    for divergence in choice.locator("option").all_text_contents():
        choice.select_option(divergence)
        check(widget, **{**settings, "divergence": divergence})
    choice.select_option("kl")
    widget.get_by_label(SCALING).click()
    settings["temperature_scaling"] = False
    check(widget, **settings)

    # Held colours go on meaning what they meant.
    held = heights(**settings)
    widget.get_by_label(HOLD).click()
    moved(handle(widget, BETA), lambda: drag(handle(widget, BETA), -40))
    settings["beta"] = beta_of(widget)
    check(widget, (held.min().item(), held.max().item()), **settings)
    widget.get_by_label(HOLD).click()
    check(widget, **settings)
    widget.get_by_label(SCALING).click()
    settings["temperature_scaling"] = True

    rate = moved(handle(widget, RATE), lambda: drag(handle(widget, RATE), -10))
    assert rate < 1
    a, b = (
        moved(handle(widget, name), lambda name=name, way=way: drag(handle(widget, name), way))
        for name, way in ((DROP_A, 20), (DROP_B, 30))
    )
    click(widget, "Drop a student")
    check_dropped(widget, a, b)
    expect_steps(widget, 2)
    click(widget, "Descend")  # it was let go; this stops it
    check(widget, **settings)
    check_one_step(widget, click, rate, **settings)
    check(widget, **settings)
    count = steps(widget)
    click(widget, "Descend")
    expect_steps(widget, count + 2)
    click(widget, "Descend")
    click(widget, "Clear")
    expect_text(widget, "Click on the map to drop one")
    assert marks.rgb(look.STUDENT) not in marks.points(widget.locator(".kdlab-landscape"))

    area = widget.locator(".kdlab-landscape rect.plotarea_events").first
    area.click()  # in its middle, which is the middle of the map
    check_dropped(widget, *grid()[GRID // 2, GRID // 2].tolist())
    expect_steps(widget, 2)
    click(widget, "Descend")
    check(widget, **settings)


def by_keyboard(widget: Locator) -> None:
    """Every control by keys, whatever state the widget is in."""
    clear = widget.get_by_role("button", name="Clear", exact=True)
    if clear.is_enabled():
        clear.press("Enter")
        expect_text(widget, "Click on the map to drop one")
    write(widget, f"{BETA}, typed", "0.25")
    choice = widget.get_by_label("Divergence")
    choice.press("k")
    settings = {"beta": 0.25, "divergence": "kl", "temperature_scaling": True}
    check(widget, **settings)
    for key, beta in (("ArrowRight", 2**-1.75), ("End", 8.0), ("Home", 1 / 32)):
        moved(handle(widget, BETA), lambda key=key: handle(widget, BETA).press(key))
        assert beta_of(widget) == beta
        check(widget, **{**settings, "beta": beta})
    write(widget, f"{BETA}, typed", "0.5")
    choice.press("ArrowDown")
    settings.update(beta=0.5, divergence="reverse_kl")
    check(widget, **settings)
    widget.get_by_label(SCALING).press("Space")
    settings["temperature_scaling"] = False
    check(widget, **settings)

    held = heights(**settings)
    widget.get_by_label(HOLD).press("Space")
    handle(widget, BETA).press("ArrowLeft")
    settings["beta"] = 2**-1.25
    check(widget, (held.min().item(), held.max().item()), **settings)
    widget.get_by_label(HOLD).press("Space")
    check(widget, **settings)

    write(widget, f"{RATE}, typed", "0.5")
    rate = moved(handle(widget, RATE), lambda: handle(widget, RATE).press("ArrowLeft"))
    assert rate == pytest.approx(2**-1.5, rel=0.01)
    write(widget, f"{DROP_A}, typed", "3")
    write(widget, f"{DROP_B}, typed", "5")
    b = moved(handle(widget, DROP_B), lambda: handle(widget, DROP_B).press("ArrowRight"))
    enter(widget, "Drop a student")
    check_dropped(widget, 3, b)
    expect_steps(widget, 2)
    descend = widget.get_by_role("button", name="Descend", exact=True)
    descend.press("Space")
    check(widget, **settings)
    check_one_step(widget, enter, 2**-1.5, **settings)
    count = steps(widget)
    descend.press("Enter")
    expect_steps(widget, count + 2)
    descend.press("Enter")
    check(widget, **settings)
    enter(widget, "Clear")
    expect_text(widget, "Click on the map to drop one")
