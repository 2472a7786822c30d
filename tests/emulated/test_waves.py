"""The candidate for look-back, `benchmarks/waves.py`, as compiled for an H100, with all its
programs at once in random turns: where they wait for each other, it is not for ever."""

import os
import random
from functools import partial

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("these run what is compiled", allow_module_level=True)

from kdlab.kernels import launch
from triton.runtime import driver

import kdlab
from benchmarks import tune, waves
from benchmarks.cases import Case
from benchmarks.measure import Inputs
from tests.emulated.device import Driver, Launcher
from tests.oracle import error, oracle

PROGRAMS = 8


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(launch, "MAX_BLOCK", 64)
    monkeypatch.setattr(Launcher, "resident", PROGRAMS)
    way = partial(waves.looking_back, part_tiles=1, each=PROGRAMS)
    monkeypatch.setattr(launch, "_looking_back", way)
    torch.use_deterministic_algorithms(True)  # what `empty` gives is NaN
    yield
    torch.use_deterministic_algorithms(False)


def loss_and_grad(s, t, **settings):
    s = s.clone().requires_grad_()
    loss = kdlab.distillation_loss(s, t, backend="triton", reduction="sum", **settings)
    return loss.detach(), torch.autograd.grad(loss, s)[0]


@pytest.mark.parametrize(
    ("dtype", "label_weight"),
    [(torch.bfloat16, 0.0), (torch.float32, 0.3), (torch.bfloat16, 1.0)],
)
@pytest.mark.parametrize("divergence", waves.USES)
def test_value_and_gradient(divergence, dtype, label_weight):
    s, t = (2 * torch.randn(2, 4, 304)).to(dtype).unbind()
    if divergence != "reverse_kl":  # of which autograd makes NaN
        s[1, 64:128] = t[1, 64:128] = -torch.inf  # a part, on both sides
    if divergence in ("kl", "mse"):
        t[0, :100] = -torch.inf
    keep = torch.tensor([True, True, False, True])
    given = dict(labels=torch.tensor([303, 3, 200, 150]), label_weight=label_weight, beta=0.5)
    given |= dict(divergence=divergence)
    loss, grad = loss_and_grad(s, t, mask=keep, **given)
    exact, exact_grad = oracle(s, t, **given)
    exact_grad[~keep] = 0
    assert error(loss, exact[keep].sum()) <= 2e-6
    assert error(grad, exact_grad) <= 1.05 * error(exact_grad.to(dtype), exact_grad) + 2e-6
    assert (grad[~keep] == 0).all()


@pytest.mark.parametrize("classes", [300, 501], ids=["5 parts", "8 parts, not aligned"])
@pytest.mark.parametrize("rows", [1, 3, 10])
def test_the_same_bits_in_any_order(rows, classes, monkeypatch):
    s, t = torch.randn(2, rows, classes).unbind()
    found = []
    for seed in range(4):
        monkeypatch.setattr(Launcher, "rng", random.Random(seed))
        found.append(loss_and_grad(s, t))
    for value, grad in found[1:]:
        assert torch.equal(value, found[0][0]) and torch.equal(grad, found[0][1])


def test_nan_is_told():
    """Also the NaN that stands for what has not been written."""
    s, t = torch.randn(2, 2, 300).unbind()
    s[0, 70:80] = torch.full((10,), -1, dtype=torch.int32).view(torch.float32)
    loss, grad = loss_and_grad(s, t)
    assert loss.isnan() and grad[0].isnan().all() and grad[1].isfinite().all()


def test_nothing_empties_l1(monkeypatch):
    """No acquire and no fence, of which each would."""
    names = []
    run = Launcher.run

    def spy(self, programs):
        names.extend(name for _, _, name, _ in self.code.instructions)
        run(self, programs)

    monkeypatch.setattr(Launcher, "run", spy)
    loss_and_grad(*torch.randn(2, 1, 300))
    assert any("relaxed" in name for name in names)
    assert not any("acq" in name or name.startswith(("fence", "membar")) for name in names)


def test_the_tuner_calls_it():
    """As `make gpu-tune` does, but for the sizes."""
    case = Case("kl", "bf16", 2, 304)
    inputs = Inputs(case, torch.device("cpu"))
    names = dict(tune.choices("waves", "bf16"))
    for name in (min(names), max(names)):
        value, (grad,) = tune.timed("waves", case, inputs, names[name])(0)
        exact, exact_grad = oracle(inputs.student[0], inputs.teacher[0], beta=0.5)
        assert error(value, exact.mean()) <= 2e-6 and error(grad, exact_grad / 2) <= 4e-3


def test_a_row_has_to_fit_a_wave():
    with pytest.raises(ValueError, match="9 parts a row, but only 8 programs"):
        loss_and_grad(*torch.randn(2, 1, 570))
