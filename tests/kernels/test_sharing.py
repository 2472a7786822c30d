"""Rows shared between programs, the gradient made in forward, and gradients for teacher and β."""

import os
from itertools import product

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from kdlab.kernels import launch, tiles

import kdlab
from tests.oracle import DIVERGENCES

HOW = list(product(DIVERGENCES, (0.0, 0.3, 1.0)))


@pytest.fixture(
    params=[(16, 1), (16, 20), (512, 1)], ids=["several tiles", "of shared rows", "one tile"]
)
def block(request, monkeypatch):
    """Rows of 50 classes in several tiles, by one program or by several, or in one tile."""
    block, programs = request.param
    monkeypatch.setattr(tiles, "MAX_BLOCK", block)
    monkeypatch.setattr(tiles, "programs_that_fill", lambda device: programs)


def run(backend, divergence, label_weight, everything, **options):
    torch.manual_seed(1)
    s, t = torch.randn(5, 50).double(), 2 * torch.randn(5, 50).double()
    beta, labels = torch.rand(5).double() + 0.3, torch.randint(0, 50, (5,))
    s[0, :20] = t[0, :20] = -torch.inf  # whole tiles of nothing but masked classes
    t[1, 30:] = -torch.inf if divergence in ("kl", "js", "tv", "mse") else 0.0
    labels[0] = 33
    labels[4] = -100
    leaves = [s.requires_grad_()]
    if everything:
        leaves += [t.requires_grad_(), beta.requires_grad_()]
    loss = kdlab.distillation_loss(
        s,
        t,
        labels,
        beta=beta,
        divergence=divergence,
        mix=0.3,
        label_weight=label_weight,
        mask=torch.tensor([True, True, False, True, True]),
        backend=backend,
        **options,
    )
    found = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
    return [loss.detach(), *(g for g in found if g is not None)]


@pytest.mark.parametrize(("divergence", "label_weight"), HOW)
def test_every_way_gives_the_same_numbers(divergence, label_weight, block):
    for everything, reduction in ((False, "mean"), (True, "mean"), (True, "none")):
        expected = run("torch", divergence, label_weight, everything, reduction=reduction)
        got = run("triton", divergence, label_weight, everything, reduction=reduction)
        torch.testing.assert_close(got, expected, rtol=2e-7, atol=1e-9)  # α and mix are float32


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_tv_knows_no_slope_where_a_side_is_masked_whole(side, block):
    for reduction in ("sum", "none"):
        s, t = torch.randn(2, 2, 50)
        (s if side == "student" else t)[0] = -torch.inf
        s.requires_grad_()
        loss = kdlab.distillation_loss(
            s, t, divergence="tv", reduction=reduction, backend="triton"
        ).sum()
        loss.backward()
        assert loss.isnan() and s.grad[0].isnan().all() and s.grad[1].isfinite().all()


def test_a_row_is_shared_only_where_rows_are_few():
    assert tiles.row_parts(8, 262_144, 8192, 264)[0] == 32
    assert tiles.row_parts(1, 262_144, 8192, 264)[0] == 32
    assert tiles.row_parts(100, 262_144, 8192, 264)[0] == 3
    assert tiles.row_parts(8192, 128_256, 8192, 264) == (1, 128_256)
    parts, size = tiles.row_parts(3, 100_000, 8192, 12)
    assert parts * size >= 100_000 and size % 8192 == 0


@pytest.mark.parametrize("factor", [1.0, 0.5, 3.0])
def test_scaling_in_place(factor):
    x = torch.randn(3, 2000)
    got = x.clone()
    launch.scale_(got, torch.tensor(factor))
    assert torch.equal(got, x * factor)


def test_backward_twice_with_the_gradient_made_in_forward():
    s, t = torch.randn(4, 30, requires_grad=True), torch.randn(4, 30)
    loss = 3 * kdlab.distillation_loss(s, t, beta=0.5, backend="triton")
    (first,) = torch.autograd.grad(loss, s, retain_graph=True)
    (second,) = torch.autograd.grad(loss, s)
    torch.testing.assert_close(first, second)
