"""Teams, as compiled for an H100, with all programs at once in random turns: where they wait for
each other, it is not for ever."""

import os
import random
from collections import Counter

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("these run what is compiled", allow_module_level=True)

from kdlab.kernels import launch, teams, tiles
from triton.runtime import driver

import kdlab
from benchmarks import tune
from benchmarks.cases import Case
from benchmarks.measure import Inputs
from kdlab import functional
from tests.emulated.device import Driver, Launcher
from tests.emulated.ptx import Memory
from tests.oracle import error, oracle, peer

PROGRAMS = 6


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    monkeypatch.setattr(driver, "_active", Driver())
    monkeypatch.setattr(functional, "_interpreted", lambda: True)
    monkeypatch.setattr(tiles, "MAX_BLOCK", 64)
    monkeypatch.setattr(tiles, "TEAM_WARPS", 1)
    monkeypatch.setattr(tiles, "programs_at_once", lambda _: PROGRAMS)
    monkeypatch.setattr(tiles, "team_tiles", lambda *_: (2,))  # parts of 512 or 256 classes
    monkeypatch.setattr(launch, "_looking_back", None)
    monkeypatch.setattr(Launcher, "resident", PROGRAMS)
    torch.use_deterministic_algorithms(True)  # what `empty` gives is NaN
    yield
    torch.use_deterministic_algorithms(False)


def loss_and_grad(s, t, **settings):
    s = s.clone().requires_grad_()
    loss = kdlab.distillation_loss(s, t, backend="triton", reduction="sum", **settings)
    return loss.detach(), torch.autograd.grad(loss, s)[0]


@pytest.mark.parametrize(
    ("dtype", "label_weight"),
    [(torch.bfloat16, 0.0), (torch.float32, 0.3), (torch.bfloat16, 0.3), (torch.bfloat16, 1.0)],
)
@pytest.mark.parametrize("divergence", teams.TOLD)
def test_value_and_gradient(divergence, dtype, label_weight):
    if divergence == "mse_logits" and label_weight == 0:
        pytest.skip("one sweep will do: differences.py")
    s, t = (2 * torch.randn(2, 4, 1248)).to(dtype).unbind()
    if divergence != "reverse_kl":  # of which autograd makes NaN
        s[1, :512] = t[1, :512] = -torch.inf  # a part, on both sides
    if divergence in ("kl", "mse", "tv"):
        t[0, :800] = -torch.inf
    keep = torch.tensor([True, True, False, True])
    given = dict(labels=torch.tensor([1247, 600, 200, 150]), label_weight=label_weight, beta=0.5)
    given |= dict(divergence=divergence)
    loss, grad = loss_and_grad(s, t, mask=keep, **given)
    exact, exact_grad = oracle(s, t, **given)
    exact_grad[~keep] = 0
    assert error(loss, exact[keep].sum()) <= 2e-6
    assert error(grad, exact_grad) <= 1.05 * error(exact_grad.to(dtype), exact_grad) + 2e-6
    assert (grad[~keep] == 0).all()


@pytest.mark.parametrize("architecture", [80, 100])
@pytest.mark.parametrize("divergence", ["kl", "tv"])
def test_other_generations(divergence, architecture, monkeypatch):
    monkeypatch.setattr(driver, "_active", Driver(architecture))
    s, t = torch.randn(2, 5, 1248).bfloat16().unbind()
    given = dict(divergence=divergence, labels=torch.arange(5), label_weight=0.3, beta=0.5)
    loss, grad = loss_and_grad(s, t, **given)
    exact, exact_grad = oracle(s, t, **given)
    assert error(loss, exact.sum()) <= 2e-6
    assert error(grad, exact_grad) <= 1.05 * error(exact_grad.bfloat16(), exact_grad) + 2e-6


@pytest.mark.parametrize("beta", [1e-3, 1.0, 40.0], ids="β = {}".format)
@pytest.mark.parametrize("shift", [0, -100, 100])
def test_padding_counts_for_nothing(beta, shift):
    """Whatever the logits are like, past the end of the row there is nothing."""
    s, t = ((torch.randn(2, 2, 544) + shift) / beta).unbind()
    loss, grad = loss_and_grad(s, t, beta=beta)
    exact, exact_grad = oracle(s, t, beta=beta)
    assert error(loss, exact.sum()) <= 2e-5 and error(grad, exact_grad) <= 2e-5


def test_logits_as_low_as_the_padding():
    """As masked by `torch.finfo(dtype).min`, here all logits that one member has, and more; and a
    student whose logits are all just that number: too far from zero for a result."""
    s, t = torch.randn(2, 3, 544).unbind()
    s[1] = teams.PADDING.value
    s[0, 9:] = t[0, 7:] = torch.finfo(torch.float32).min
    loss, grad = loss_and_grad(s, t, beta=0.5)
    _, exact_grad = oracle(s, t, beta=0.5)
    assert error(grad[::2], exact_grad[::2]) <= 2e-5
    assert loss.isnan() and grad[1].isnan().all()


@pytest.mark.parametrize("masked", ["student", "teacher", "both"])
@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "mse", "tv"])
def test_members_whose_logits_are_all_a_mask_that_is_a_number(divergence, masked):
    s, t = torch.randn(2, 2, 1248).unbind()
    if masked != "teacher":
        s[:, 300:] = -1e9
    if masked != "student":
        t[:, 250:] = -1e9
    given = dict(divergence=divergence, labels=torch.tensor([5, 9]), label_weight=0.3, beta=0.7)
    loss, grad = loss_and_grad(s, t, **given)
    exact, exact_grad = oracle(s, t, **given)
    assert error(loss, exact.sum()) <= 2e-6 and error(grad, exact_grad) <= 1e-5


@pytest.mark.parametrize("offset", [0, 10])
@pytest.mark.parametrize("divergence", ["reverse_kl", "tv"])
def test_log_odds_come_from_the_logits(divergence, offset):
    """For a student near its teacher: what p and q, as rounded, say of each other is worth less,
    and the sign of their difference is for many classes that of the rounding."""
    t = torch.randn(4, 1248)
    s = t + 1e-4 * torch.randn(4, 1248) + offset
    _, grad = loss_and_grad(s, t, divergence=divergence)
    _, exact_grad = oracle(s, t, divergence=divergence)
    naive = error(peer(s, t, divergence=divergence)[1], exact_grad)
    assert error(grad, exact_grad) <= naive / 5 and naive > 1e-3


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "mse", "tv"])
def test_each_side_sure_of_a_class_of_another_member(divergence):
    s, t = torch.randn(2, 2, 1248).unbind()
    s[0, 1000] += 20
    t[1, 700] += 30
    loss, grad = loss_and_grad(s, t, divergence=divergence)
    exact, exact_grad = oracle(s, t, divergence=divergence)
    assert error(loss, exact.sum()) <= 2e-6 and (grad - exact_grad).abs().max() <= 2e-6


@pytest.mark.parametrize("divergence", ["kl", "tv"])
@pytest.mark.parametrize("rows", [1, 7])
def test_the_same_bits_in_any_order(rows, divergence, monkeypatch):
    s, t = torch.randn(2, rows, 640).unbind()
    found = []
    for seed in range(4):
        monkeypatch.setattr(Launcher, "rng", random.Random(seed))
        found.append(loss_and_grad(s, t, divergence=divergence))
    for value, grad in found[1:]:
        assert torch.equal(value, found[0][0]) and torch.equal(grad, found[0][1])


def test_a_padded_vocabulary():
    s, t = torch.randn(3, 656), torch.randn(3, 640)
    s[:, 640:] = torch.nan
    loss, grad = loss_and_grad(s, t, num_classes=640)
    exact, exact_grad = oracle(s[:, :640], t)
    assert error(loss, exact.sum()) <= 2e-6 and error(grad[:, :640], exact_grad) <= 1e-5
    assert (grad[:, 640:] == 0).all()


def test_nothing_between_equals():
    s = torch.randn(3, 640)
    for divergence in ("kl", "reverse_kl", "mse", "tv"):
        loss, grad = loss_and_grad(s, s, divergence=divergence)
        assert loss == 0 and (grad == 0).all()


def test_nan_is_told():
    """Also the NaN that stands for what has not been written."""
    s, t = torch.randn(2, 2, 640).unbind()
    s[0, 270:280] = torch.full((10,), -1, dtype=torch.int32).view(torch.float32)
    loss, grad = loss_and_grad(s, t)
    assert loss.isnan() and grad[0].isnan().all() and grad[1].isfinite().all()


def test_nobody_waits_for_memory(monkeypatch):
    """No acquire, release or fence: each would wait for gradients on their way to memory."""
    names = []
    run = Launcher.run

    def spy(self, programs):
        names.extend(name for _, _, name, _ in self.code.instructions)
        run(self, programs)

    monkeypatch.setattr(Launcher, "run", spy)
    loss_and_grad(*torch.randn(2, 1, 640))
    assert any("relaxed" in name for name in names)
    assert not any("acq" in n or "rel." in n or n.startswith(("fence", "membar")) for n in names)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "mse", "tv"])
def test_each_logit_is_read_once_and_each_gradient_written_once(divergence, dtype, monkeypatch):
    """6 bytes a bf16 logit, 12 in fp32, whatever the caches hold."""
    moved = Counter()
    place = Memory.place

    def counted(self, addresses, width, count):
        content, indices = place(self, addresses, width, count)
        moved[content.nbytes] += addresses.size * width * count
        return content, indices

    monkeypatch.setattr(Memory, "place", counted)
    s, t = torch.randn(2, 5, 1248).to(dtype).unbind()
    loss_and_grad(s, t.clone(), divergence=divergence, beta=0.5)
    tensor = s.numel() * s.element_size()  # no other tensor here has as many bytes
    assert moved[tensor] == 3 * tensor


@pytest.mark.parametrize("name", ["4 tiles, 2 warps, 8 programs", "5 tiles, 4 warps, 4 programs"])
def test_the_tuner_calls_them(name):
    """As `make gpu-tune` does, but for the sizes."""
    case = Case("kl", "bf16", 2, 8_208)
    inputs = Inputs(case, torch.device("cpu"))
    shape = dict(tune.choices("teams", "bf16"))[name]
    value, (grad,) = tune.timed("teams", case, inputs, shape)(0)
    exact, exact_grad = oracle(inputs.student[0], inputs.teacher[0], beta=0.5)
    assert error(value, exact.mean()) <= 2e-6 and error(grad, exact_grad / 2) <= 4e-3


def test_who_holds_a_row():
    assert tiles.team(8192, 128_256, "js", False, 2, 528) is None
    assert tiles.team(4, 1248, "kl", False, 4, 4) is None  # five members, four programs
    assert tiles.team(4, 40_000, "kl", False, 4, 528) is None  # more members than lanes
