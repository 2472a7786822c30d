"""Logits that are far from each other, or from zero, in rows of several tiles."""

import os
from itertools import product

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from kdlab.kernels import tiles

import kdlab
from tests.oracle import error, oracle, peer

SOFTENED = ["kl", "reverse_kl", "js", "mse", "tv"]
CLASSES = 3_000  # three tiles, with the launcher's widest made 1024
LOWEST = torch.finfo(torch.float32).min


def backends(s, t, reduction, **settings):
    """Loss and gradient by PyTorch and by the kernels."""
    for backend in ("torch", "triton"):
        z = s.clone().requires_grad_()
        loss = kdlab.distillation_loss(z, t, reduction=reduction, backend=backend, **settings)
        yield loss.detach(), *torch.autograd.grad(loss.sum(), z)


@pytest.fixture(
    params=[(1, "none"), (20, "none"), (20, "sum")],
    ids=["a program a row", "shared rows", "gradient in forward"],
)
def reduction(request, monkeypatch):
    programs, reduction = request.param
    monkeypatch.setattr(tiles, "programs_that_fill", lambda device: programs)
    monkeypatch.setattr(tiles, "MAX_BLOCK", 1024)
    return reduction


@pytest.mark.parametrize("masked", ["student", "teacher", "both"])
@pytest.mark.parametrize(("mask", "beta"), [(-1e9, 0.7), (LOWEST, 0.5), (LOWEST, 2.0)])
@pytest.mark.parametrize("divergence", SOFTENED)
def test_masks_that_are_numbers(divergence, mask, beta, masked, reduction):
    """Whole parts of a row at what stands for −∞ in much code, as where all but the teacher's best
    classes were dropped. β times the lowest number may be −∞ indeed."""
    s, t = torch.randn(2, 2, CLASSES)
    s[0, 130] = t[0, 130] = 400.0
    keep = torch.zeros(2, CLASSES, dtype=torch.bool)
    keep[:, 100:150] = True
    keep[1, 2_500] = True
    if masked != "teacher":
        s[~keep] = mask
    if masked != "student":
        t[~keep] = mask
    labels = torch.tensor([120, 2_500])
    given = dict(labels=labels, label_weight=0.3, beta=beta, divergence=divergence)
    (loss, grad), (found, found_grad) = backends(s, t, reduction, **given)
    torch.testing.assert_close(found, loss, rtol=3e-6, atol=1e-6)
    if loss.isfinite().all():
        torch.testing.assert_close(found_grad, grad, rtol=1e-4, atol=1e-6)


# Where they are as sure of the same class, T² D and its gradient are nearly 0: hence 1 + ….
@pytest.mark.parametrize("peak", [20.0, 40.0])
@pytest.mark.parametrize("divergence", SOFTENED)
def test_peaks_in_different_tiles(divergence, peak, reduction):
    """Each side sure of a class, in another tile than the one whose maximum the sums are about."""
    places = (5, 2_990)
    for student_at, teacher_at, noise in product((None, *places), (None, *places), (0.1, 1)):
        s, t = noise * torch.randn(2, 1, CLASSES)
        for z, place in ((s, student_at), (t, teacher_at)):
            if place is not None:
                z[:, place] += peak
        exact, exact_grad = oracle(s, t, divergence=divergence)
        eager, eager_grad = peer(s, t, divergence=divergence)
        _, (loss, grad) = backends(s, t, reduction, divergence=divergence)
        slack = 4e-6 * (1 + exact.sum())  # an ulp of a logit of 60
        assert (loss - exact.sum()).abs().max() <= 4 * (eager - exact).abs().max() + slack
        gap, eager_gap = (grad - exact_grad).norm(), (eager_grad - exact_grad).norm()
        assert gap <= 4 * eager_gap + 1e-5 * (1 + exact_grad.norm())


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("divergence", SOFTENED)
def test_rows_far_from_zero_are_right_or_nan(divergence, sign, reduction):
    for tenths in (60, 82, 85, 92, 94, 97, 106):
        far = sign * torch.tensor(10.0 ** (tenths / 10))
        step = torch.nextafter(far.abs(), torch.tensor(torch.inf)) - far.abs()
        s, t = far + step * torch.randint(-3, 3, (2, 2, CLASSES))
        s[1], t[1], t[1, :100] = far, far, far - step
        wanted, found = backends(s, t, reduction, beta=0.7, divergence=divergence)
        known = ~found[0].isnan()
        if known.all():
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
            assert far.abs() < 1e9
            continue
        assert 0.7 * far.abs() > 1e8 and found[1].isnan().any()
        if reduction == "none":
            for x, y in zip(found, wanted, strict=True):
                torch.testing.assert_close(x[known], y[known], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("masked", ["student", "teacher", "both"])
@pytest.mark.parametrize("divergence", SOFTENED)
def test_what_beta_takes_out_of_float32_is_masked(divergence, masked, reduction):
    s, t = torch.randn(2, 2, CLASSES)
    found = []
    for mask in (LOWEST, -torch.inf):
        for z, side in ((s, "student"), (t, "teacher")):
            if masked in (side, "both"):
                z[:, 1_000:] = mask
        found += backends(s, t, reduction, beta=0.7, divergence=divergence)
    of_numbers, of_infinity = [loss for loss, _ in found[:2]], [loss for loss, _ in found[2:]]
    torch.testing.assert_close(of_numbers, of_infinity, rtol=3e-6, atol=1e-6)
    infinite = (divergence, masked) in (("kl", "student"), ("reverse_kl", "teacher"))
    assert all(loss.isinf().all() == infinite for loss in of_numbers)


@pytest.mark.parametrize("moved", ["student", "teacher"])
@pytest.mark.parametrize("offset", [-100.0, 1e4])
@pytest.mark.parametrize("divergence", ["reverse_kl", "tv"])
def test_a_side_that_is_moved_as_a_whole(divergence, offset, moved, reduction):
    """log(q / p) keeps its digits whichever side is farther from zero."""
    t = torch.randn(2, CLASSES)
    s = t + 0.05 * torch.randn(2, CLASSES)
    s, t = (s + offset, t) if moved == "student" else (s, t + offset)
    _, exact = oracle(s, t, divergence=divergence, beta=1.0)
    for _, grad in backends(s, t, reduction, divergence=divergence):
        assert error(grad, exact) < 1e-5
