"""Multiply a gradient by a number on the device, in place; do nothing where that number is 1."""

import triton
import triton.language as tl


@triton.jit
def scale_kernel(gradient, factor, n, BLOCK: tl.constexpr):
    f = tl.load(factor)
    if f != 1:  # reading the number costs nothing; the gradient is touched only if it must be
        offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(gradient + offsets, mask=offsets < n)
        x = (x.to(f.dtype) * f).to(gradient.dtype.element_ty)
        tl.store(gradient + offsets, x, mask=offsets < n)
