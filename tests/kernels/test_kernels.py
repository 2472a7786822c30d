"""The kernels through the interpreter against the float64 oracle, at sizes that cross tiles."""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from kdlab.kernels import tiles

import kdlab
from kdlab import reference
from tests.oracle import DIVERGENCES, error, gradients, oracle, peer

SIZES = [1, 2, 10, 127, 128, 129, 1000, 4099]
# The interpreter cuts float32 to bfloat16 towards zero, where the hardware rounds to nearest: up to
# one unit in the last place, 2⁻⁷, instead of half of it.
GRAD_SLACK = {torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 2**-7}


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", list(GRAD_SLACK), ids=str)
@pytest.mark.parametrize("classes", SIZES)
@pytest.mark.parametrize("label_weight", [0.0, 0.3, 1.0])
def test_no_worse_than_plain_pytorch(divergence, dtype, classes, label_weight, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 1024)  # several tiles a row, at sizes that stay quick
    s = (3 * torch.randn(3, classes)).to(dtype).requires_grad_()
    t = (3 * torch.randn(3, classes)).to(dtype)
    y = torch.randint(0, classes, (3,))
    options = dict(beta=0.4, divergence=divergence, label_weight=label_weight)
    exact, exact_grad = oracle(s, t, y, **options)
    loss = kdlab.distillation_loss(s, t, y, reduction="none", backend="triton", **options)
    loss.sum().backward()
    plain, plain_grad = peer(s, t, y, **options)
    assert loss.dtype == torch.float32 and s.grad.dtype == dtype
    assert error(loss, exact) <= error(plain, exact) + 1e-6
    assert error(s.grad, exact_grad) <= error(plain_grad, exact_grad) + GRAD_SLACK[dtype]


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_both_backends_give_the_same_numbers_on_hard_input(divergence, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 64)
    s, t, y = torch.randn(8, 200), torch.randn(8, 200), torch.randint(100, 200, (8,))
    s[0, :80] = t[0, :80] = -torch.inf  # a whole first tile is masked
    t[1, 130:] = -torch.inf
    s[2, 5] = torch.nan
    s[3] = t[3] = torch.nan  # does not count
    y[4] = -100  # does not count
    s[5], t[5] = -torch.inf, -torch.inf  # nothing finite
    s[6] += 1000
    t[7] = s[7]
    mask = torch.tensor([True, True, True, False, True, True, True, True])
    beta = torch.linspace(0.2, 3, 8)
    results = []
    for backend in ("torch", "triton"):
        z = s.clone().requires_grad_()
        rows = kdlab.distillation_loss(
            z,
            t,
            y,
            beta=beta,
            divergence=divergence,
            label_weight=0.3,
            mask=mask,
            reduction="none",
            backend=backend,
        )
        rows.sum().backward()
        results.append((rows, z.grad))
    torch.testing.assert_close(results[1], results[0], equal_nan=True, rtol=2e-5, atol=2e-6)
    assert results[1][0].isnan().tolist() == [False, False, True, False, False, True, False, False]


def test_labels_masks_and_logits_as_memory_does_not_have_them():
    """The kernels read memory: views that repeat, skip or negate it have to be made real."""
    s, t = torch.randn(4, 9), torch.randn(4, 9)
    y, every_second = torch.arange(8)[::2], torch.tensor([True] * 3 + [False] * 5)[::2]
    for mask in (every_second, torch.tensor([True]).expand(4), None):
        for labels in (y, None):
            given = dict(mask=mask, label_weight=0.0 if labels is None else 0.5, reduction="none")
            found = [
                kdlab.distillation_loss(s, t, labels, backend=b, **given)
                for b in ("torch", "triton")
            ]
            torch.testing.assert_close(*found)
    negated = torch._neg_view(s)
    found = [kdlab.distillation_loss(z, t, backend="triton") for z in (-s, negated)]
    assert torch.equal(*found)


@pytest.mark.parametrize("classes", [2, 3000])
def test_infinities_on_both_sides_are_no_agreement(classes, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 1024)
    z = torch.zeros(2, classes)
    z[0, 1], z[1, 1] = torch.inf, -torch.inf
    for student in (z, z.clone().requires_grad_()):  # the value alone, and with its gradient
        given = dict(divergence="mse_logits", backend="triton")
        loss = kdlab.distillation_loss(student, z, reduction="none", **given)
        assert loss.isnan().tolist() == [True, False] and loss[1] == 0
        assert kdlab.distillation_loss(student, z, **given).isnan()


def test_row_strides_and_zero_rows():
    wide = torch.randn(4, 50)
    s = torch.randn(4, 20, requires_grad=True)
    loss = kdlab.distillation_loss(s, wide[:, 5:25], backend="triton")
    torch.testing.assert_close(loss, kdlab.distillation_loss(s, wide[:, 5:25], backend="torch"))
    empty = kdlab.distillation_loss(s[:0], wide[:0, :20], backend="triton")
    (grad,) = torch.autograd.grad(empty, s)
    assert empty == 0 and (grad == 0).all()


@pytest.mark.parametrize("classes", [50, 200])
@pytest.mark.parametrize("mix", [1e-8, 1e-6, 0.999, 1 - 1e-6, 1 - 1e-8])
def test_a_mixture_that_is_nearly_one_side(mix, classes, monkeypatch):
    """In float32 a mix of 1 − 10⁻⁸ is 1, and leaves nothing."""
    monkeypatch.setattr(tiles, "MAX_BLOCK", 64)
    s, t = (3 * torch.randn(2, 6, classes)).unbind()
    found, exact = (
        value_and_gradients(x, y, divergence="js", mix=mix, backend=backend)
        for x, y, backend in ((s, t, "triton"), (s.double(), t.double(), "torch"))
    )
    assert all(error(a, b) <= 2e-6 for a, b in zip(found, exact, strict=True))


@pytest.mark.parametrize("classes", [50, 200])
def test_labels_that_count_for_nearly_everything(classes, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 64)
    s, t = torch.randn(2, 6, classes).unbind()
    given = dict(labels=torch.arange(6), label_weight=1 - 1e-7)
    found, exact = (
        value_and_gradients(x, y, backend=backend, **given)
        for x, y, backend in ((s, t, "triton"), (s.double(), t.double(), "torch"))
    )
    assert all(error(a, b) <= 2e-6 for a, b in zip(found, exact, strict=True))


def value_and_gradients(s, t, **given):
    s, t = s.clone().requires_grad_(), t.clone().requires_grad_()
    loss = kdlab.distillation_loss(s, t, **given)
    return loss, *torch.autograd.grad(loss, (s, t))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_gradient_from_above_that_is_only_marked_as_negated(reduction):
    s, t = torch.randn(3, 20, requires_grad=True), torch.randn(3, 20)
    loss = kdlab.distillation_loss(s, t, reduction=reduction, backend="triton")
    negated = torch._neg_view(torch.full(loss.shape, -2.0))
    (found,) = torch.autograd.grad(loss, s, negated, retain_graph=True)
    (expected,) = torch.autograd.grad(loss, s, torch.full(loss.shape, 2.0))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("classes", [50, 200])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_num_classes_is_what_slices_give(divergence, classes, reduction, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 64)
    s, t = torch.randn(3, classes + 14), torch.randn(3, classes + 9)
    s[:, classes:] = t[:, classes:] = torch.nan
    s.requires_grad_()
    t.requires_grad_(reduction == "none")
    inputs = (s, t) if reduction == "none" else (s,)  # whose gradient forward makes
    given = dict(divergence=divergence, reduction=reduction, backend="triton")
    loss = kdlab.distillation_loss(s, t, num_classes=classes, **given).sum()
    cut = kdlab.distillation_loss(s[:, :classes], t[:, :classes], **given).sum()
    found, expected = torch.autograd.grad(loss, inputs), torch.autograd.grad(cut, inputs)
    assert torch.equal(loss, cut) and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_float64_stays_float64(divergence, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 64)  # α and mix have no short binary fraction
    s, t = torch.randn(4, 150).double(), torch.randn(4, 150).double()
    y, beta = torch.randint(0, 150, (4,)), torch.linspace(0.3, 2, 4).double()
    given = dict(divergence=divergence, label_weight=0.1, mix=0.3)

    def loss(z, z_t, b):
        return kdlab.distillation_loss(
            z, z_t, y, beta=b, reduction="none", backend="triton", **given
        )

    def exact(z, z_t, b):
        return reference.distillation_rows(z, z_t, y, beta=b, **given)

    found, expected = gradients(loss, s, t, beta), gradients(exact, s, t, beta)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    leaves = [x[:2, ..., :5].clone() if x.dim() == 2 else x[:2].clone() for x in (s, t, beta)]
    y = torch.tensor([0, 4])
    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in leaves])
