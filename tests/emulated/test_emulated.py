"""The kernels as Triton compiles them for an H100, launched as on one, executed without one.

What the interpreter cannot show: how arguments are specialised, what the compiler makes of layouts,
masks and types, that addresses are aligned and inside of their tensors, rounding to half precision,
a maximum that passes over NaN.
"""

import os
import random
from itertools import product

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("these run what is compiled", allow_module_level=True)

import triton
import triton.language as tl
from kdlab.kernels import launch, tiles
from triton.runtime import driver

import kdlab
from kdlab import functional
from tests.emulated.device import Driver, Launcher
from tests.oracle import DIVERGENCES, error, oracle

SLACK = 2e-6  # float32 arithmetic, on top of the rounding of the result's own dtype


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    monkeypatch.setattr(driver, "_active", Driver())
    # kdlab takes CPU tensors: it is not the interpreter that will have them.
    monkeypatch.setattr(functional, "_interpreted", lambda: True)


def check(student, teacher, reduction="sum", **settings):
    """Value and gradient against float64: made in forward ("sum"), or in backward ("none")."""
    student = student.requires_grad_()
    exact, exact_grad = oracle(student, teacher, **settings)
    loss = kdlab.distillation_loss(
        student, teacher, reduction=reduction, backend="triton", **settings
    ).sum()
    (grad,) = torch.autograd.grad(loss, student)
    assert error(loss, exact.sum()) <= SLACK
    rounding = error(exact_grad.to(grad.dtype), exact_grad)
    assert error(grad, exact_grad) <= 1.05 * rounding + SLACK


# Classes, the reduction, and how many programs there should be: 12 share the rows.
WAYS = {
    "a tile, gradient in forward": (300, "sum", 1),
    "a tile, in backward": (300, "none", 1),
    "tiles, in forward": (9_008, "sum", 12),
    "tiles, in backward": (9_008, "none", 1),
    "tiles of shared rows": (9_008, "none", 12),
    "unaligned, in forward": (8_301, "sum", 1),
    "unaligned, of shared rows": (8_301, "none", 12),
}


def kinds():
    """Each divergence each way, and each dtype with both; float16 with kl."""
    for (i, divergence), (k, way) in product(enumerate(DIVERGENCES), enumerate(WAYS)):
        yield divergence, (torch.bfloat16, torch.float32)[(i + k) % 2], way
    yield from (("kl", torch.float16, way) for way in WAYS)


@pytest.mark.parametrize(("divergence", "dtype", "way"), [*kinds()])
def test_value_and_gradient(divergence, dtype, way, monkeypatch):
    classes, reduction, programs = WAYS[way]
    monkeypatch.setattr(tiles, "programs_that_fill", lambda device: programs)
    s, t = (2 * torch.randn(2, 2, classes)).to(dtype).unbind()
    labels = torch.tensor([classes - 1, 3])
    check(s, t, reduction, labels=labels, label_weight=0.3, beta=0.5, divergence=divergence)


@pytest.mark.parametrize("architecture", [80, 100])
@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_other_generations(divergence, architecture, monkeypatch):
    monkeypatch.setattr(driver, "_active", Driver(architecture))
    s, t = torch.randn(2, 2, 9_008).bfloat16().unbind()
    check(s, t, beta=0.5, divergence=divergence)


@pytest.mark.parametrize("label_weight", [0.0, 1.0])
def test_twice_backward_with_a_factor(label_weight):
    """The gradient that forward made, scaled in place; and made again for the second time."""
    s, t = torch.randn(2, 2, 9_000).unbind()
    labels = torch.tensor([8_999, 7])
    given = dict(labels=labels, label_weight=label_weight, beta=0.5)
    loss = kdlab.distillation_loss(s.requires_grad_(), t, backend="triton", **given)
    (first,) = torch.autograd.grad(3 * loss, s, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, s)
    exact = 1.5 * oracle(s, t, **given)[1]
    assert error(first, exact) <= SLACK and error(second, exact) <= SLACK


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("classes", [300, 9_001])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_nothing_between_equals(divergence, classes, reduction):
    """Products are not fused with the subtractions that they go into."""
    t = torch.randn(2, classes)
    s = t.clone().requires_grad_()
    loss = kdlab.distillation_loss(
        s, t, beta=0.3, divergence=divergence, mix=0.3, reduction=reduction, backend="triton"
    ).sum()
    (grad,) = torch.autograd.grad(loss, s)
    assert loss == 0 and (grad == 0).all()


@pytest.mark.parametrize("label_weight", [0.0, 0.3])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_for_teacher_and_temperature(divergence, label_weight):
    """As in PyTorch, with a mask, a temperature a row, and a teacher in double precision."""
    s, t = torch.randn(3, 8_300), torch.randn(3, 8_300)
    given = dict(divergence=divergence, mix=0.3, label_weight=label_weight)
    given |= dict(labels=torch.tensor([5, 8_299, 0]), mask=torch.tensor([True, True, False]))
    found = []
    for backend in ("torch", "triton"):
        leaves = [s.clone().requires_grad_(), t.double().requires_grad_()]
        leaves.append(torch.tensor([0.5, 1.0, 2.0], requires_grad=True))
        loss = kdlab.distillation_loss(*leaves[:2], beta=leaves[2], backend=backend, **given)
        found.append([loss, *torch.autograd.grad(loss, leaves, materialize_grads=True)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("classes", "programs"), [(200, 1), (8_300, 20)])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_hard_input(divergence, classes, programs, monkeypatch):
    """Masked tiles and rows, NaN, nothing finite, far away from zero, student equal to teacher."""
    monkeypatch.setattr(tiles, "programs_that_fill", lambda device: programs)
    s, t, y = torch.randn(7, classes), torch.randn(7, classes), torch.full((7,), classes - 1)
    s[0, : classes // 2] = t[0, : classes // 2] = -torch.inf
    t[1, 2 * classes // 3 : classes - 1] = -torch.inf
    s[2, 5] = torch.nan
    t[3, classes - 2] = torch.nan
    s[4] = t[4] = -torch.inf
    s[5] += 1000
    t[6] = s[6]
    found = []
    for backend in ("torch", "triton"):
        z = s.clone().requires_grad_()
        rows = kdlab.distillation_loss(
            z, t, y, beta=0.5, divergence=divergence, label_weight=0.3, reduction="none",
            backend=backend)  # fmt: skip
        rows.sum().backward()
        found.append((rows, z.grad))
    assert found[1][0].isnan().tolist() == [False, False, True, True, True, False, False]
    torch.testing.assert_close(found[1], found[0], equal_nan=True, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("classes", [9_008, 8_301])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_mse_logits_without_labels_needs_one_sweep(dtype, classes, monkeypatch):
    """Of masked rows and classes, infinities, NaN; never by look-back."""
    monkeypatch.setattr(launch, "_looking_back", None)
    s, t = torch.randn(2, 6, classes).to(dtype).unbind()
    s[0, 50:6_000] = t[0, 50:6_000] = -torch.inf
    t[1, 7_000] = -torch.inf
    s[2, classes - 1] = torch.nan
    s[3, 0] = t[3, 1] = torch.inf
    s[4, 9] = torch.nan
    mask = torch.tensor([True, True, True, True, False, True])
    for rows in (slice(0, 1), slice(4, 6), slice(0, 6)):
        found = []
        for backend in ("torch", "triton"):
            z = s[rows].clone().requires_grad_()
            loss = kdlab.distillation_loss(
                z, t[rows], mask=mask[rows], divergence="mse_logits", backend=backend)  # fmt: skip
            found.append((loss, *torch.autograd.grad(loss, z)))
        torch.testing.assert_close(found[1], found[0], equal_nan=True, rtol=1e-5, atol=0)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("classes", [100, 8_296])
def test_padded_rows_and_vocabularies(classes, reduction):
    wide, teacher = torch.randn(3, classes + 24), torch.randn(3, classes + 24)
    check(wide.clone()[:, 8 : classes + 8], teacher[:, :classes], reduction)
    check(wide.clone()[:, 3 : classes + 3], teacher[:, 5 : classes + 5], reduction)
    inputs = wide.requires_grad_(), teacher
    loss = kdlab.distillation_loss(*inputs, num_classes=classes, backend="triton")
    exact, exact_grad = oracle(wide[:, :classes], teacher[:, :classes])
    (grad,) = torch.autograd.grad(loss, wide)
    assert error(loss, exact.mean()) <= SLACK and (grad[:, classes:] == 0).all()
    assert error(grad[:, :classes], exact_grad / 3) <= SLACK


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_rows_more_than_2_to_the_31_elements_apart(reduction, tmp_path):
    """In a file that is a hole, but for the rows."""
    classes, apart = 8_208, 2**30 + 16
    rows = []
    for name in ("student", "teacher"):
        size = 2 * apart + classes
        with open(tmp_path / name, "wb") as file:
            file.truncate(2 * size)
        huge = torch.from_file(str(tmp_path / name), shared=True, size=size, dtype=torch.bfloat16)
        rows.append(huge.as_strided((3, classes), (apart, 1)).copy_(torch.randn(3, classes)))
    check(*rows, reduction)


@pytest.fixture
def nan_where_nothing_was_written():
    """Memory that is read too early must not hold what an earlier run left there."""
    torch.use_deterministic_algorithms(True)  # fills what `empty` gives
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_where_nothing_was_written")
@pytest.mark.parametrize("programs", [1, 8], ids=["least lag", "more lag"])
@pytest.mark.parametrize("resident", [2, 100])
@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_look_back_ends_with_the_same_bits_in_any_order(
    divergence, resident, programs, monkeypatch
):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 64)
    monkeypatch.setattr(tiles, "PART_TILES", 1)
    monkeypatch.setattr(tiles, "programs_that_fill", lambda device: programs)
    s, t = torch.randn(2, 3, 300).unbind()
    found = []
    for seed in range(4):
        monkeypatch.setattr(Launcher, "resident", resident if seed else 1)
        monkeypatch.setattr(Launcher, "rng", random.Random(seed))
        z = s.clone().requires_grad_()
        mask = torch.tensor([True, False, True])
        loss = kdlab.distillation_loss(z, t, mask=mask, divergence=divergence, backend="triton")
        found.append((loss.detach(), *torch.autograd.grad(loss, z)))
    for value, grad in found[1:]:
        assert torch.equal(value, found[0][0]) and torch.equal(grad, found[0][1])


@triton.jit
def copy_kernel(x, y, n, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(y + i, tl.load(x + i, mask=i < n), mask=i < n)


def test_the_emulator_sees_what_is_out_of_bounds_or_not_aligned():
    x, y = torch.randn(128), torch.zeros(128)
    copy_kernel[(1,)](x, y, 100, SIZE=128)
    assert torch.equal(x[:100], y[:100]) and (y[100:] == 0).all()
    with pytest.raises(MemoryError, match="outside"):
        copy_kernel[(1,)](x, y, 129, SIZE=256)
    odd = torch.frombuffer(bytearray(600), dtype=torch.float32, count=128, offset=2)
    with pytest.raises(MemoryError, match="multiple"):
        copy_kernel[(1,)](odd, y, 100, SIZE=128)
