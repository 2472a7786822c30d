"""The kernels with functions as inexact as a GPU's, which the interpreter's are not.

Bounds from NVIDIA: ex2.approx 2 ulp, lg2.approx 2^-22, rsqrt.approx 2^-22.9, full-range division
2 ulp (PTX ISA); logf 1 ulp (libdevice). Errors up to the bound are drawn by hashing the argument,
so that the same argument always gives the same result. Powers of two with an integer exponent are
exact.
"""

import os

import numpy as np
import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from triton.runtime.interpreter import InterpreterBuilder

import kdlab
from tests.oracle import DIVERGENCES, error, oracle


def noise(x):
    """In [-1, 1): as good as random, and a function of x."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)) / 2**23 - 1


def inexact(exact, x, relative):
    out = exact.astype(np.float64) * (1 + relative * noise(x))
    return np.where(np.abs(out) < 2.0**-126, 0.0, out).astype(np.float32)


def exp2(x):
    return inexact(np.exp2(x.astype(np.float64)), x, np.where(x == np.round(x), 0, 2**-22))


def log(x):
    return inexact(np.log(x.astype(np.float64)), x, 2**-23)


def log2(x):
    """lg2.approx: within 2⁻²² between ½ and 2, elsewhere to 2⁻²² of itself."""
    exact = np.log2(x.astype(np.float64))
    near = (x > 0.5) & (x < 2)
    return np.where(near, exact + 2**-22 * noise(x), exact * (1 + 2**-22 * noise(x))).astype("f")


def rsqrt(x):
    return inexact(1 / np.sqrt(x.astype(np.float64)), x, 2**-22.9)


def divide(x, y):
    quotient = x.astype(np.float64) / y
    return inexact(quotient, quotient, 2**-22)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    for name, function in (("exp2", exp2), ("log", log), ("log2", log2), ("rsqrt", rsqrt)):
        approximate = lambda self, x, function=function: self.unary_op(x, function)  # noqa: E731
        monkeypatch.setattr(InterpreterBuilder, f"create_{name}", approximate)
    approximate = lambda self, x, y: self.binary_op(x, y, divide)  # noqa: E731
    monkeypatch.setattr(InterpreterBuilder, "create_fdiv", approximate)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("classes", [4_099, 20_000], ids=["one tile", "several tiles"])
@pytest.mark.parametrize("apart", [1.0, 0.02, 0.002])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_what_the_approximations_cost(divergence, apart, classes):
    """Relative to what is asked for, which is small where the student is near its teacher: the
    gradient of that order, kl of its square, as a sum of terms of the first order."""
    teacher = 3 * torch.randn(3, classes)
    student = (teacher + apart * torch.randn(3, classes)).requires_grad_()
    settings = dict(divergence=divergence, beta=0.5)
    exact, exact_grad = oracle(student, teacher, **settings)
    loss = kdlab.distillation_loss(student, teacher, reduction="none", backend="triton", **settings)
    loss.sum().backward()
    first_order = 16 * 2**-22 / apart
    squared = first_order / apart / 8 if divergence in ("kl", "reverse_kl") else 0
    assert error(loss, exact) <= max(first_order, squared)
    assert error(student.grad, exact_grad) <= first_order
