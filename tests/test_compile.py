"""The kernels compiled for chips that are not here: no spills, and 128-bit loads and stores."""

import os
from itertools import product

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from kdlab.kernels.launch import DIVERGENCE, MAX_BLOCK
from kdlab.kernels.resources import ARCHITECTURES, KERNELS, compile_kernel, runs

PAIRS = [(k, d) for k, d in product(KERNELS, DIVERGENCE) if runs(k, d)]


def check(kernel, architecture, dtype, divergence, label_weight, block):
    r = compile_kernel(kernel, architecture, dtype, divergence, label_weight, block)
    assert r.spilt_bytes == 0, r
    if kernel in ("join of the parts", "scale in place"):
        return  # one reads no logits; the other may not read, and its branch decides how
    # 16 bytes a load: what a thread holds of each tensor that is read, once for each sweep
    each = r.block // (32 * r.warps)
    vectors = each * (4 if dtype == "fp32" else 2) // 16
    sweeps = 1
    if kernel in ("forward", "forward + gradient"):
        sweeps += (kernel == "forward + gradient") + (divergence in ("js", "tv"))
    tensors = 2 if label_weight < 1 else 1
    assert r.wide_loads == sweeps * tensors * vectors, r
    written = {"backward": 1, "backward, all three": 2}.get(kernel, int("gradient" in kernel))
    assert r.wide_stores == written * vectors, r


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("kernel", "divergence"), PAIRS)
def test_widest_tile(kernel, divergence, architecture, dtype):
    check(kernel, architecture, dtype, divergence, 0.5, MAX_BLOCK)


@pytest.mark.parametrize(("kernel", "divergence"), PAIRS)
def test_half_precision(kernel, divergence):
    check(kernel, 90, "fp16", divergence, 0.0, MAX_BLOCK)


@pytest.mark.parametrize("block", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("kernel", ["forward + gradient, one tile", "backward"])
@pytest.mark.parametrize("divergence", DIVERGENCE)
def test_narrower_tiles(kernel, divergence, block):
    check(kernel, 90, "bf16", divergence, 0.5, block)


@pytest.mark.parametrize("kernel", ["forward", "forward + gradient", "backward"])
def test_labels_alone(kernel):
    check(kernel, 90, "bf16", "kl", 1.0, MAX_BLOCK)
