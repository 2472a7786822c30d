"""The stepper without a browser: buttons, marks and state tell the same story."""

import math

import pytest
import torch

import kdlab
from kdlab.widgets import KernelStepper, row_walk


@pytest.fixture
def stepper():
    return KernelStepper(torch.randn(20), 3 * torch.randn(20), tile=8)


def press(stepper, words):
    (button,) = (b for b in stepper._buttons if b.description == words)
    button.click()


def test_buttons_slider_and_python_move_the_same_position(stepper):
    press(stepper, "Step")
    assert stepper.position == stepper._position.value == 1
    stepper._position.value = 3
    assert stepper.state["seen"] == 20  # the last tile is shorter
    stepper.step()
    assert stepper.position == stepper.tiles == 3
    press(stepper, "Back")
    assert stepper.state["current"] == (8, 16)
    press(stepper, "Reset")
    assert stepper.position == 0
    stepper.back()
    assert stepper.state["running"]["z_s"] == 0


@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("tile", [2, 8, 32])
def test_every_row_ends_at_the_librarys_loss(stepper, beta, tile):
    stepper.beta, stepper.tile = beta, tile
    for row, logits in stepper._rows.items():
        stepper.row = row
        assert stepper.state["kl"] is None
        stepper.position = stepper.tiles
        expected = kdlab.distillation_loss(*logits, beta=beta, temperature_scaling=False).item()
        assert stepper.state["library_kl"] == expected
        assert stepper.state["kl"] == pytest.approx(expected, rel=1e-6)


def test_marks_follow_the_state(stepper):
    stepper.position = 2
    state, view = stepper.state, stepper._view
    assert view.band.x.tolist() == [7.5, 7.5, 15.5, 15.5]
    assert view.maxima[0].y.tolist() == [state["running"]["m_t"]] * 2
    assert view.maxima[1].y.tolist() == [state["running"]["m_s"]] * 2
    assert view.bars.y.tolist() == [state["teacher_logits"], state["student_logits"]]
    assert state["running"]["m_s"] == max(state["student_logits"][:16])
    assert (
        state["before"] == row_walk.tile(*(z[:8] for z in stepper._rows["your row"]), 1)._asdict()
    )
    assert state["bytes"] == 64 and state["bytes_multipass"] == 320


def test_a_new_tile_size_or_row_starts_again(stepper):
    stepper.position = 3
    stepper.tile = 4
    assert (stepper.position, stepper.tiles, stepper._position.max) == (0, 5, 5)
    stepper._position.value = 5
    stepper.row = "first classes all −∞"
    stepper.step()
    stepper.step()
    assert stepper.state["running"]["m_s"] == -math.inf
    assert len(stepper._view.masked.x) == 16


def test_prints_nothing_and_has_a_stable_repr(capsys):
    stepper = KernelStepper()
    stepper.step()
    assert repr(stepper) == "KernelStepper('a row of 32 classes', 1 of 4 tiles of 8, beta=1)"
    assert len(stepper.figure().axes) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "student", "teacher"),
    [
        ("student_logits", torch.tensor([0.0, torch.nan]), torch.zeros(2)),
        ("student_logits", torch.full((3,), -torch.inf), torch.zeros(3)),
        ("student_logits", torch.zeros(1), torch.zeros(1)),
        ("student_logits", torch.zeros(2, 3), torch.zeros(2, 3)),
        ("student_logits", [0.0, 1.0], torch.zeros(2)),
        ("student_logits", torch.zeros(129), torch.zeros(129)),
        ("teacher_logits", torch.zeros(3), torch.zeros(4)),
        ("teacher_logits", torch.zeros(3), None),
        ("student_logits", None, torch.zeros(3)),
    ],
)
def test_bad_rows_are_errors_at_the_call(name, student, teacher):
    with pytest.raises(ValueError, match=name):
        KernelStepper(student, teacher)


@pytest.mark.parametrize(
    ("name", "value"), [("beta", 0), ("tile", 3), ("row", "mine"), ("position", 4)]
)
def test_bad_settings(stepper, name, value):
    with pytest.raises(ValueError, match=name):
        setattr(stepper, name, value)
