"""Multiply a gradient by a number on the device, in place; do nothing where that number is 1.

What is 0 stays 0: rows that don't count, also for a loss scale that has become infinite.
"""

import triton
import triton.language as tl


@triton.jit
def scale_kernel(gradient, factor, n, BLOCK: tl.constexpr):
    """Few programs go over all of it: where the number is 1, they are all that it costs."""
    f = tl.load(factor)
    if f != 1:
        first = tl.program_id(0).to(tl.int64)
        for tile in range(first, tl.cdiv(n, BLOCK), tl.num_programs(0)):
            offsets = tile * BLOCK + tl.arange(0, BLOCK)
            x = tl.load(gradient + offsets, mask=offsets < n)
            scaled = (x.to(f.dtype) * f).to(gradient.dtype.element_ty)
            tl.store(gradient + offsets, tl.where(x == 0, x, scaled), mask=offsets < n)
