"""The landscape without a browser: the map, the descent and the state are the library's numbers."""

import asyncio

import pytest
import torch

import kdlab
from kdlab import models
from kdlab.widgets import LossLandscape
from kdlab.widgets.plane import Plane

SETTINGS = [
    {"beta": 0.25, "divergence": "kl", "temperature_scaling": True},
    {"beta": 2.0, "divergence": "mse", "temperature_scaling": False},
]


def make(**settings):
    torch.manual_seed(0)
    plane = Plane([models.MLP(6, [5], 4) for _ in range(3)])
    return LossLandscape(
        plane, torch.randn(9, 6), 3 * torch.randn(9, 4), torch.arange(9) % 4, **settings
    )


@pytest.fixture
def landscape():
    return make()


def loss_of(landscape, model):
    settings = {k: landscape.state[k] for k in ("beta", "divergence", "temperature_scaling")}
    surface = landscape._surface
    return kdlab.distillation_loss(model(surface.x), surface._teacher, **settings).item()


def test_a_plane_passes_through_its_students():
    students = [models.MLP(6, [5], 4) for _ in range(3)]
    plane, x = Plane(students), torch.randn(7, 6)
    for student, corner in zip(students, plane.corners, strict=True):
        torch.testing.assert_close(plane.student(*corner.tolist())(x), student(x))
        torch.testing.assert_close(plane.logits(corner[None].float(), x)[0], student(x))


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_map_is_the_librarys_loss_of_the_student_there(settings):
    landscape = make(**settings)
    state = landscape.state
    for i, j in ((0, 0), (5, 20), (30, 30)):
        student = landscape._surface.plane.student(state["a"][i], state["b"][j])
        assert state["losses"][i][j] == pytest.approx(loss_of(landscape, student), rel=1e-4)
    heights = torch.tensor(state["losses"]).T.log10()
    shares, axis = torch.tensor(landscape._view.heat.color), landscape._view.colour
    assert (shares.min(), shares.max()) == (0, 1)
    torch.testing.assert_close(axis.min + (axis.max - axis.min) * shares, heights)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_slope_is_the_gradient_of_all_weights_in_the_plane(settings):
    landscape = make(**settings)
    landscape.drop(0.5, -0.25)
    model = landscape.student().double()
    surface = landscape._surface
    loss = kdlab.distillation_loss(model(surface.x.double()), surface._teacher.double(), **settings)
    loss.backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters()])
    expected = surface.plane._axes @ whole
    assert landscape.state["gradient"] == pytest.approx(expected.tolist(), rel=1e-4)
    landscape.learning_rate = 0.5
    landscape.descend(1)
    a, b = landscape.state["point"]
    assert (a, b) == pytest.approx(
        (0.5 - 0.5 * expected[0].item(), -0.25 - 0.5 * expected[1].item()), rel=1e-4
    )


def test_the_minimum_is_not_above_the_grid_and_curvature_is_right(landscape):
    state = landscape.state
    assert state["minimum_loss"] <= min(map(min, state["losses"])) * (1 + 1e-5)
    surface, settings = landscape._surface, landscape._settings
    point = torch.tensor([0.4, 0.2], dtype=torch.float64)
    h = 1e-3
    around = [[h, 0.0], [-h, 0.0], [0.0, 0.0]]
    up, down, here = surface.loss_and_slope(
        point + torch.tensor(around, dtype=torch.float64), **settings
    )[0]
    second = ((up + down - 2 * here) / h**2).item()
    assert surface.curvature(point, **settings)[0, 0].item() == pytest.approx(second, rel=0.02)


def test_controls_and_python_drive_the_same_map(landscape):
    landscape._controls.beta.value = 4.0
    assert landscape.beta == 4.0
    landscape.beta = 0.5
    assert landscape._controls.beta.value == 0.5
    before = landscape._view.colour.min
    landscape.hold_colours = True
    landscape.beta = 8.0
    assert landscape._view.colour.min == before
    landscape._controls.hold.value = False
    assert landscape._view.colour.min != before


def test_beta_flattens_the_map_on_the_digits():
    landscape = LossLandscape.example()
    sharp = landscape.state["curvatures"][1]
    place = landscape.state["minimum"]
    landscape.beta = 4.0
    assert landscape.state["curvatures"][1] < sharp / 10
    assert landscape.state["minimum"][0] < place[0] - 1


def test_a_click_drops_a_student_that_descends_while_other_work_goes_on(landscape):
    async def click_and_wait():
        clicked = landscape._view.clicked
        with clicked.hold_trait_notifications():
            clicked.x, clicked.y = [0.0, 0.3], [0.0, 0.1]
        assert landscape.running
        await asyncio.sleep(0.3)
        seen = landscape.state["steps"]
        landscape.close()
        await asyncio.sleep(0.15)
        assert landscape.state["steps"] == seen  # closing ended it
        return seen

    assert asyncio.run(click_and_wait()) >= 2
    assert landscape._view.path.x[0] == pytest.approx(0.3)
    assert landscape.state["path"][0] == pytest.approx((0.3, 0.1))


def test_what_is_asked_right_after_a_drop_comes_after_it(landscape):
    controls = landscape._controls

    async def press(*buttons):
        for button in buttons:
            button.click()
        at_once = landscape.state["steps"], landscape.running
        await asyncio.sleep(0.2)
        landscape.running = False
        return at_once

    async def run():
        assert await press(controls.drop_button, controls.step_button) == (1, True)
        assert await press(controls.drop_button, controls.clear_button) == (0, False)
        assert not landscape._descent
        controls.drop_button.click()
        controls.run.value = True
        assert landscape._descent and landscape.running
        landscape.running = False

    asyncio.run(run())


def test_an_exception_in_the_descent_is_shown(landscape, monkeypatch):
    async def run():
        landscape.drop(0, 0)
        monkeypatch.setattr(landscape._surface, "loss_and_slope", lambda *a, **k: 1 / 0)
        monkeypatch.setattr(
            landscape._descent, "numbers", lambda *a: dict.fromkeys(["accuracy"], None)
            | {"point": (0.0, 0.0), "gradient": (0.0, 0.0), "loss": 0.0}
        )  # fmt: skip
        landscape.running = True
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert isinstance(landscape.error, ZeroDivisionError)
    assert "ZeroDivisionError" in landscape._controls._student.value
    assert not landscape.running


def test_without_an_event_loop_running_says_what_to_do(landscape):
    landscape.drop(0, 0)
    with pytest.raises(RuntimeError, match="descend"):
        landscape.running = True
    assert not landscape.running


def test_prints_nothing_and_has_a_stable_repr(landscape, capsys):
    assert repr(landscape) == "LossLandscape(beta=0.25, divergence='kl', no student)"
    landscape.drop(0, 0)
    landscape.descend(3)
    assert repr(landscape) == "LossLandscape(beta=0.25, divergence='kl', 3 steps)"
    assert len(landscape.figure().axes) == 2
    landscape.clear()
    assert landscape.state["point"] is None
    assert capsys.readouterr().out == ""


def test_bad_input_is_an_error_at_the_call():
    plane, x, teacher = make()._surface.plane, torch.randn(9, 6), torch.randn(9, 4)
    students = [models.MLP(6, [5], 4) for _ in range(2)]
    for name, call in {
        "plane": lambda: LossLandscape("plane", x, teacher),
        "x": lambda: LossLandscape(plane, x * torch.nan, teacher),
        "teacher_logits": lambda: LossLandscape(plane, x, teacher * torch.nan),
        "student_logits": lambda: LossLandscape(plane, x, teacher[:, :3]),
        "labels": lambda: LossLandscape(plane, x, teacher, torch.full((9,), 4)),
        "corner_names": lambda: LossLandscape(plane, x, teacher, corner_names=("a", "b")),
        "beta": lambda: LossLandscape(plane, x, teacher, beta=0.0),
        "divergence": lambda: LossLandscape(plane, x, teacher, divergence="l2"),
        "learning_rate": lambda: LossLandscape(plane, x, teacher, learning_rate=-1.0),
        "students": lambda: Plane([*students, models.MLP(6, [4], 4)]),
    }.items():
        with pytest.raises(ValueError, match=name):
            call()
    with pytest.raises(ValueError, match="one line"):
        Plane([students[0], students[1], students[1]])
    landscape = make()
    with pytest.raises(ValueError, match="a: got"):
        landscape.drop(1e6, 0)
    with pytest.raises(ValueError, match="steps"):
        landscape.descend(1)
