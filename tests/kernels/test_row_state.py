"""The row state as a monoid: any split of a row, joined in any order, is the row's state."""

import math
import os

import numpy as np
import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from kdlab.kernels.parts import load_states
from kdlab.kernels.row_state import (
    FIELDS,
    KL,
    MSE,
    MSE_LOGITS,
    REVERSE_KL,
    collapse,
    combine,
    empty,
    finish,
    single,
)
from kdlab.kernels.sweep import lanes, sweep

DIVERGENCES = {"kl": KL, "reverse_kl": REVERSE_KL, "mse": MSE, "mse_logits": MSE_LOGITS}
BLOCK = 20


@triton.jit
def states_kernel(s, t, out, c, DIVERGENCE: tl.constexpr, BLOCK: tl.constexpr, HOW: tl.constexpr):
    """The state of each row of (n, BLOCK) logits, one column of `out` (12, n) a row."""
    i = tl.program_id(0)
    n = tl.num_programs(0)
    c = tl.load(c)
    if HOW == "one tile":
        cols = lanes(32, 4, True)
        low = float("-inf")
        x_s = tl.load(s + i * BLOCK + cols, mask=cols < BLOCK, other=low)
        x_t = tl.load(t + i * BLOCK + cols, mask=cols < BLOCK, other=low)
        x = single(x_s, x_t, c, DIVERGENCE, True, True)
    else:  # three tiles, the last of them not full
        x = sweep(s, t, i * BLOCK, i * BLOCK + BLOCK, c, DIVERGENCE, True, True, tl.float64, 8, 4,
                  True)  # fmt: skip
    for k in tl.static_range(12):
        tl.store(out + k * n + i, x[k])


@triton.jit
def combine_kernel(x, y, out, value, c, DIVERGENCE: tl.constexpr, FIRST_EMPTY: tl.constexpr):
    c = tl.load(c)
    here = tl.arange(0, 1) == 0
    a = load_states(x + tl.arange(0, 1), here)
    if FIRST_EMPTY:
        a = empty(1, tl.float64)
    b = load_states(y + tl.arange(0, 1), here)
    joined = combine(a, b, c, DIVERGENCE, True, True)
    joined = collapse(joined, c, DIVERGENCE, True, True)
    for k in tl.static_range(12):
        tl.store(out + k, joined[k])
    soft, _, _ = finish(joined, DIVERGENCE)
    tl.store(value, soft)


def rate(beta):
    """c, so that 2^(c z) = e^(β z)."""
    return torch.tensor(beta / math.log(2), dtype=torch.float64)


def states(s, t, divergence, beta=0.7, how="sweep"):
    out = torch.empty(len(FIELDS), len(s), dtype=s.dtype)
    states_kernel[(len(s),)](s, t, out, rate(beta), DIVERGENCES[divergence], BLOCK, how)
    return [out[:, i].contiguous() for i in range(len(s))]


def join(x, y, divergence, beta=0.7, first_empty=False):
    out, value = torch.empty_like(y), torch.empty((), dtype=y.dtype)
    combine_kernel[(1,)](x, y, out, value, rate(beta), DIVERGENCES[divergence], first_empty)
    return out, value


def exact(s, t, divergence, beta=0.7):
    from kdlab import reference

    if divergence == "mse_logits":
        return reference.mse_logits(s.reshape(-1), t.reshape(-1))
    return getattr(reference, divergence)(s.reshape(-1), t.reshape(-1), beta)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_any_order_gives_the_row(divergence):
    s, t = 5 * torch.randn(4, BLOCK).double(), 5 * torch.randn(4, BLOCK).double()
    a, b, c, d = states(s, t, divergence)
    left = join(join(join(a, b, divergence)[0], c, divergence)[0], d, divergence)
    tree = join(join(a, b, divergence)[0], join(c, d, divergence)[0], divergence)
    swapped = join(join(d, b, divergence)[0], join(c, a, divergence)[0], divergence)
    for state, value in (left, tree, swapped):
        torch.testing.assert_close(state, left[0])
        torch.testing.assert_close(value, exact(s, t, divergence))


def mask(s, t):
    s[1, :6] = t[1, :6] = -torch.inf


def mask_the_last_tile(s, t):
    s[1, -5:] = t[1, -5:] = -torch.inf


def overflow(s, t):
    s[1, 2] += 1e4
    t[2, 3] += 1e4


@pytest.mark.parametrize("hard", [None, mask, mask_the_last_tile, overflow])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_sweep_and_a_single_tile_gather_the_same(divergence, hard):
    s, t = 5 * torch.randn(3, BLOCK).double(), 5 * torch.randn(3, BLOCK).double()
    if hard is not None:
        hard(s, t)
    swept, at_once = (states(s, t, divergence, how=how) for how in ("sweep", "one tile"))
    if hard in (mask_the_last_tile, overflow):  # about the row's own maxima then
        torch.testing.assert_close(swept[1], at_once[1])
    for x, y in zip(swept, at_once, strict=True):  # about whatever maxima, joined with the others
        (_, one), (_, other) = (join(z, at_once[0], divergence) for z in (x, y))
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_empty_is_the_unit(divergence):
    s, t = torch.randn(1, BLOCK).double(), torch.randn(1, BLOCK).double()
    (x,) = states(s, t, divergence)
    joined, _ = join(x, x, divergence, first_empty=True)
    torch.testing.assert_close(joined, x)


@settings(deadline=None, max_examples=25)
@given(
    masked=st.lists(st.sampled_from(["none", "both", "teacher"]), min_size=2, max_size=3),
    shift=st.floats(-300, 300),
    seed=st.integers(0, 2**31),
    divergence=st.sampled_from(["kl", "mse"]),
)
def test_masked_tiles_and_far_maxima(masked, shift, seed, divergence):
    """A tile of nothing but −inf (the classic NaN), first or later; maxima that move a long way."""
    if "none" not in masked:
        masked[-1] = "none"
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(len(masked), BLOCK, generator=g).double()
    t = torch.randn(len(masked), BLOCK, generator=g).double()
    s[0] += shift
    t[0] += shift
    for i, which in enumerate(masked):
        if which == "both":
            s[i] = -torch.inf
        if which != "none":
            t[i] = -torch.inf
    state, *rest = states(s, t, divergence)
    for other in rest:
        state, value = join(state, other, divergence)
    assert np.isfinite(value.item())
    torch.testing.assert_close(value, exact(s, t, divergence), rtol=1e-8, atol=1e-12)


def test_a_class_that_only_the_student_masks_stays_infinite():
    s, t = torch.zeros(2, BLOCK).double(), torch.zeros(2, BLOCK).double()
    s[0, 3] = -torch.inf
    t[1] += 1e4  # the first tile's weight underflows to 0 when the maximum moves
    a, b = states(s, t, "kl")
    for x, y in ((a, b), (b, a)):
        assert join(x, y, "kl")[1] == torch.inf
