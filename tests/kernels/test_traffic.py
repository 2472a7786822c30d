"""Bytes that the kernels load and store for a logit, counted as the interpreter executes them."""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from kdlab.kernels import tiles

import kdlab
from tests.kernels.traffic import counted

ROWS, CLASSES = 3, 4096


def bytes_a_logit(divergence, label_weight=0.0, *, teacher=False, reduction="none"):
    """(forward, backward) bytes moved, over the number of logits of one tensor; bf16."""
    s = torch.randn(ROWS, CLASSES).bfloat16().requires_grad_()
    t = torch.randn(ROWS, CLASSES).bfloat16().requires_grad_(teacher)
    y = torch.randint(0, CLASSES, (ROWS,))
    with counted() as forward:
        loss = kdlab.distillation_loss(
            s,
            t,
            y,
            divergence=divergence,
            label_weight=label_weight,
            reduction=reduction,
            backend="triton",
        )
    with counted() as backward:
        loss.sum().backward()
    n = ROWS * CLASSES
    return forward.bytes / n, backward.bytes / n


@pytest.fixture(params=[1024, 8192], ids=["four tiles a row", "one tile a row"])
def n_tiles(request, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", request.param)
    return -(-CLASSES // request.param)


@pytest.mark.parametrize("label_weight", [0.0, 0.3])
@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "mse", "mse_logits"])
def test_one_read_a_direction(divergence, label_weight, n_tiles):
    forward, backward = bytes_a_logit(divergence, label_weight)
    assert 4 <= forward <= 4.1
    assert 6 <= backward <= 6.1


@pytest.mark.parametrize(("divergence", "widest"), [("js", 8192), ("tv", 8192), ("tv", 1024)])
def test_two_reads_where_the_normalisers_come_first(divergence, widest, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", widest)
    forward, backward = bytes_a_logit(divergence)
    one_tile = tiles.whole_tile(CLASSES, divergence, (2, 2)).block >= CLASSES
    assert forward <= (4.1 if one_tile else 8.1)
    assert backward <= 6.1


def test_labels_alone_do_not_read_the_teacher(n_tiles):
    forward, backward = bytes_a_logit("kl", 1.0)
    assert forward <= 2.1 and backward <= 4.1


def test_the_teachers_gradient_costs_its_own_write(n_tiles):
    assert bytes_a_logit("kl", teacher=True)[1] <= 8.1


@pytest.mark.parametrize("divergence", ["kl", "mse", "mse_logits"])
def test_gradient_made_in_forward(divergence, n_tiles):
    """Six bytes in all where the row stays on chip, or nothing of it is needed twice; else it is
    read twice. Backward moves nothing."""
    forward, backward = bytes_a_logit(divergence, reduction="mean")
    assert forward <= (6.1 if n_tiles == 1 or divergence == "mse_logits" else 10.1)
    assert backward <= 0.1


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize(("divergence", "sweeps"), [("kl", 2), ("tv", 3)])
def test_later_reads_come_from_a_cache_that_holds_a_row(divergence, sweeps, parts, monkeypatch):
    monkeypatch.setattr(tiles, "MAX_BLOCK", 1024)
    monkeypatch.setattr(tiles, "PART_TILES", 16 // parts)
    classes = 16_384
    s, t = (torch.randn(ROWS, classes).bfloat16() for _ in range(2))
    s.requires_grad_()

    def bytes_a_logit(cache):
        with counted(cache) as moved:
            kdlab.distillation_loss(s, t, divergence=divergence, backend="triton").backward()
        return moved.bytes / (ROWS * classes)

    # Both tensors' row; where it has parts, the third sweep of tv is another row behind.
    needed = 4 * classes * (1 if parts == 1 else sweeps - 1)
    assert bytes_a_logit(needed + 4096) <= 6.1
    assert bytes_a_logit(needed // 2) >= 7
