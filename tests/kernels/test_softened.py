"""js's two logarithms, log₂(q / m) and log₂(p / m), against float64."""

import os

import numpy as np
import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

import triton
import triton.language as tl
from kdlab.kernels.softened import TINY, log2_near, log2_shares, shares

N = 1 << 14


@triton.jit
def near_kernel(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, log2_near(tl.load(x + i)))


@triton.jit
def shares_kernel(q, p, of_q, of_p, mix, N: tl.constexpr):
    i = tl.arange(0, N)
    q, p = tl.load(q + i), tl.load(p + i)
    a, b = log2_shares(q, p, shares(tl.load(mix), q.dtype))
    tl.store(of_q + i, a)
    tl.store(of_p + i, b)


def test_near_one_to_the_precision_that_is_stated():
    x = torch.linspace(-0.125, 0.125, N)
    out = torch.empty(N)
    near_kernel[(1,)](x, out, N)
    exact = np.log1p(x.double().numpy()) / np.log(2)
    assert np.all(np.abs(out.numpy() - exact) <= 2**-22 * np.abs(exact))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mix", [0.5, 0.01, 0.99, 1e-8, 1 - 1e-8])
def test_shares_of_any_two_probabilities(mix, dtype):
    """From equal to forty orders of magnitude apart."""
    p = torch.rand(N, dtype=dtype)
    q = p * 10 ** torch.linspace(-40, 0, N, dtype=dtype)
    q[: N // 2] = p[: N // 2] * (1 + 10 ** torch.linspace(-7, 0, N // 2, dtype=dtype))
    q, p = torch.cat((q[::2], p[1::2])), torch.cat((p[::2], q[1::2]))
    out = torch.empty(2, N, dtype=dtype)
    share = torch.tensor(mix, dtype=torch.float64)
    shares_kernel[(1,)](q, p, *out, share, N)
    s, t = q.double(), p.double()
    apart = (t - s) / (share * t + (1 - share) * s)
    for x, z, weight in ((out[0], s, -share), (out[1], t, 1 - share)):
        exact = torch.where(
            (weight * apart).abs() < 0.5,
            torch.log1p(weight * apart) / np.log(2),
            torch.log2((z / (share * t + (1 - share) * s)).clamp_min(TINY.value)),
        )
        assert torch.all((x - exact).abs() <= 2e-6 * exact.abs() + 1e-30)


@pytest.mark.parametrize("mix", [0.5, 0.01])
def test_finite_where_a_probability_is_zero_and_not_where_one_is_unknown(mix):
    q = torch.tensor([0.0, 0.7, 0.0, 0.3, 0.3, torch.nan]).repeat(N)[:N]
    p = torch.tensor([0.7, 0.0, 0.0, 0.3, torch.nan, 0.3]).repeat(N)[:N]
    out = torch.empty(2, N)
    shares_kernel[(1,)](q, p, *out, torch.tensor(mix, dtype=torch.float64), N)
    of_q, of_p = out[:, :6].tolist()
    assert np.isfinite(of_q[:4]).all() and np.isfinite(of_p[:4]).all()
    assert of_q[3] == of_p[3] == 0
    assert of_p[0] == pytest.approx(-np.log2(mix), rel=1e-5)
    assert of_q[1] == pytest.approx(-np.log2(1 - mix), rel=1e-5)
    assert np.isnan(of_q[4:]).all() and np.isnan(of_p[4:]).all()
