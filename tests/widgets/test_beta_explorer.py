"""The explorer without a browser: controls, marks and state tell the same story."""

import pytest
import torch

import kdlab
from kdlab.widgets import BetaExplorer
from kdlab.widgets.beta_numbers import DIVERGENCES, FORMULAS


@pytest.fixture
def explorer():
    return BetaExplorer(
        torch.randn(5, 4), 3 * torch.randn(5, 4), labels=torch.arange(4).repeat(2)[:5]
    )


def test_slider_and_python_drive_the_same_marks(explorer):
    explorer._beta.value = 0.5
    assert explorer.beta == 0.5
    explorer.beta = 0.25
    assert explorer._beta.value == 0.25
    z_s, z_t = explorer._examples.student_logits[0], explorer._examples.teacher_logits[0]
    drawn = torch.tensor(explorer._view.probabilities.y)
    expected = torch.stack((kdlab.soften(z_t, 0.25), kdlab.soften(z_s, 0.25)))
    torch.testing.assert_close(drawn.float(), expected)


def test_a_bars_colour_says_whose_it_is(explorer):
    # bqplot's "group" would colour by class, and show every second class as the teacher's.
    assert explorer._view.probabilities.color_mode == "element"


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("scaling", [True, False])
def test_state_is_the_librarys_loss(explorer, divergence, scaling):
    explorer.divergence, explorer.temperature_scaling, explorer.beta = divergence, scaling, 0.5
    explorer.example = 3
    z = explorer._examples.student_logits[3].clone().requires_grad_()
    loss = kdlab.distillation_loss(
        z,
        explorer._examples.teacher_logits[3],
        beta=0.5,
        divergence=divergence,
        temperature_scaling=scaling,
    )
    loss.backward()
    assert explorer.state["loss"] == pytest.approx(loss.item())
    assert explorer._view.gradient.y.tolist() == pytest.approx(z.grad.tolist())


def test_every_divergence_has_a_formula_and_a_place_in_the_list(explorer):
    assert set(DIVERGENCES) <= set(FORMULAS)
    assert explorer._divergence.options == tuple(DIVERGENCES)


def test_mix_is_a_control_where_it_enters(explorer):
    explorer._mix.value = 0.25
    assert explorer.mix == explorer.state["mix"] == 0.25
    assert explorer._mix.layout.display == "none"
    with pytest.raises(ValueError, match="mix"):
        explorer.mix = 1.5


def test_prints_nothing_and_has_a_stable_repr(explorer, capsys):
    explorer.order = "hesitant"
    assert repr(explorer).startswith("BetaExplorer(example=")
    assert capsys.readouterr().out == ""
    assert len(explorer.figure().axes) >= 3


@pytest.mark.parametrize(
    ("name", "student", "teacher"),
    [
        ("student_logits", torch.full((2, 3), torch.nan), torch.zeros(2, 3)),
        ("teacher_logits", torch.zeros(2, 3), torch.zeros(2, 4)),
        ("logits", torch.zeros(2, 1), torch.zeros(2, 1)),
        ("logits", torch.zeros(3), torch.zeros(3)),
    ],
)
def test_bad_input_is_an_error_at_the_call(name, student, teacher):
    with pytest.raises(ValueError, match=name):
        BetaExplorer(student, teacher)


def test_beta_out_of_range(explorer):
    with pytest.raises(ValueError, match="beta"):
        explorer.beta = 0
