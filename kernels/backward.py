"""Backward: one program a tile reads both tensors once and writes the student's gradient once.

Everything that the gradient needs of the whole row is in the statistics that forward saved, so
tiles don't wait for each other.
"""

import triton
import triton.language as tl
from kdlab.kernels.row_state import KL, MSE_LOGITS


@triton.jit
def backward_kernel(
    grad_loss,
    student,
    teacher,
    labels,
    keep,
    beta,
    stats,
    grad,
    grad_loss_stride,
    student_stride,
    teacher_stride,
    beta_stride,
    grad_stride,
    n_rows,
    n_classes,
    n_tiles,
    label_weight,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row = (program // n_tiles).to(tl.int64)
    cols = (program % n_tiles) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < n_classes
    read = inside
    counts = True
    if HAS_KEEP:
        counts = tl.load(keep + row) != 0
        read = inside & counts

    b = tl.load(beta + row * beta_stride).to(ACC)
    g = tl.load(grad_loss + row * grad_loss_stride).to(ACC)
    m_s = tl.load(stats + row)
    s = tl.load(student + row * student_stride + cols, mask=read, other=0.0).to(ACC)
    out = tl.zeros((BLOCK,), ACC)
    if SOFT:
        t = tl.load(teacher + row * teacher_stride + cols, mask=read, other=0.0).to(ACC)
        scale = (1 - label_weight) * g
        if DIVERGENCE == MSE_LOGITS:
            out = 2 * scale * tl.where(s == t, 0.0, s - t)
        else:
            z_s = tl.load(stats + n_rows + row)
            m_t = tl.load(stats + 2 * n_rows + row)
            z_t = tl.load(stats + 3 * n_rows + row)
            # β comes from the chain rule; T² makes it T.
            scale = scale / b if TEMPERATURE_SCALING else scale * b
            q = tl.exp(b * (s - m_s)) * (1 / z_s)
            p = tl.exp(b * (t - m_t)) * (1 / z_t)
            if DIVERGENCE == KL:
                out = scale * (q - p)
            else:
                dot = tl.load(stats + 4 * n_rows + row)
                out = 2 * scale * q * ((q - p) - dot)
    if HARD:
        z_1 = tl.load(stats + 5 * n_rows + row)
        label = tl.load(labels + row)
        hard = tl.exp(s - m_s) * (1 / z_1) - tl.where(cols == label, 1.0, 0.0)
        out += label_weight * g * hard
    if HAS_KEEP:
        out = tl.where(counts, out, 0.0)
    tl.store(grad + row * grad_stride + cols, out.to(grad.dtype.element_ty), mask=inside)
