"""Loss and gradient of mse_logits without labels, for rows of any length, in one sweep.

Σ (z_t − z_s)² needs no maximum and no normaliser, and the gradient of a class, 2 g (z_s − z_t),
nothing of the other classes. So whoever reads a logit writes its gradient, and nobody waits.
"""

import triton
import triton.language as tl
from kdlab.kernels.parts import part_of
from kdlab.kernels.results import nothing
from kdlab.kernels.row_state import minus
from kdlab.kernels.sweep import lanes, last_tile, load_tile


@triton.jit
def difference_tile(
    student, teacher, grad, cols, end, g, FULL: tl.constexpr, ACC: tl.constexpr
):  # fmt: skip
    """A lane's part of Σ (z_t − z_s)²; writes 2 g (z_s − z_t)."""
    s, t = load_tile(student, teacher, cols, end, ACC, True, FULL, LAST=True)
    gap = minus(s, t)
    out = (2 * g * gap).to(grad.dtype.element_ty)
    if FULL:
        tl.store(grad + cols, out, eviction_policy="evict_first")
    else:
        tl.store(grad + cols, out, mask=cols < end, eviction_policy="evict_first")
    return tl.sum(gap * gap, 1)


@triton.jit
def difference_kernel(
    student,
    teacher,
    keep,
    sums,
    grad,
    grad_scale,
    student_stride,
    teacher_stride,
    grad_stride,
    n_classes,
    parts,
    part_size,
    HAS_KEEP: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """One part of one row; its sum goes to `sums` (rows, parts)."""
    row, begin, end = part_of(tl.program_id(0), parts, part_size, n_classes)
    student += row * student_stride
    teacher += row * teacher_stride
    grad += row * grad_stride
    total = tl.zeros((BLOCK // VECTOR,), ACC)
    counts = True
    if HAS_KEEP:
        counts = tl.load(keep + row) != 0
    if counts:
        g = tl.load(grad_scale).to(ACC)
        offsets = lanes(BLOCK, VECTOR, ALIGNED)
        last = last_tile(begin, end, BLOCK)
        for start in range(begin, last, BLOCK):
            total += difference_tile(student, teacher, grad, start + offsets, end, g, True, ACC)
        total += difference_tile(student, teacher, grad, last + offsets, end, g, False, ACC)
    else:
        nothing(grad, begin, end, BLOCK, VECTOR, ALIGNED)
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))
