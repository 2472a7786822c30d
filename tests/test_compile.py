"""The kernels compiled for chips that are not here: no spills, and 128-bit loads and stores."""

import os
from itertools import product

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from kdlab.kernels.launch import DIVERGENCE, ELEMENTS_A_THREAD, MAX_BLOCK
from kdlab.kernels.resources import ARCHITECTURES, KERNELS, compile_kernel


def check(kernel, architecture, dtype, divergence, label_weight, block):
    r = compile_kernel(kernel, architecture, dtype, divergence, label_weight, block)
    assert r.spilt_bytes == 0, r
    # bytes a thread / 16 bytes, for each tensor that is read
    vectors = ELEMENTS_A_THREAD * (4 if dtype == "fp32" else 2) // 16
    tensors = 2 if label_weight < 1 else 1
    assert r.wide_loads == tensors * vectors, r
    if kernel == "backward":
        assert r.wide_stores == vectors, r


@pytest.mark.parametrize("label_weight", [0.0, 0.5])
@pytest.mark.parametrize("divergence", DIVERGENCE)
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_widest_tile(kernel, architecture, dtype, divergence, label_weight):
    check(kernel, architecture, dtype, divergence, label_weight, MAX_BLOCK)


@pytest.mark.parametrize(
    ("kernel", "divergence", "block"),
    list(product(KERNELS, DIVERGENCE, [512, 1024, 2048, 4096])),
)
def test_narrower_tiles(kernel, divergence, block):
    check(kernel, 90, "bf16", divergence, 0.5, block)


@pytest.mark.parametrize("kernel", KERNELS)
def test_labels_alone(kernel):
    check(kernel, 90, "bf16", "kl", 1.0, MAX_BLOCK)
