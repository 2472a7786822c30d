"""Backward: one program a tile reads both tensors once and writes the gradients that are wanted.

Everything that a gradient needs of the whole row is in the statistics that forward saved, so tiles
don't wait for each other. The gradient for β is a sum over the row: each tile writes its part.
"""

import triton
import triton.language as tl
from kdlab.kernels.results import load_softmaxes, statistic
from kdlab.kernels.row_state import LN_2, LOG2_E, MSE_LOGITS
from kdlab.kernels.softened import (
    less_label,
    log2_ratios,
    shares,
    slope,
    slope_teacher,
    soften,
    student_gradient,
)


@triton.jit
def backward_kernel(
    grad_loss,
    student,
    teacher,
    labels,
    keep,
    beta,
    stats,
    grad_student,
    grad_teacher,
    beta_parts,
    grad_loss_stride,
    student_stride,
    teacher_stride,
    beta_stride,
    grad_student_stride,
    grad_teacher_stride,
    n_rows,
    n_classes,
    n_tiles,
    label_weight: tl.float64,
    mix: tl.float64,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    FOR_STUDENT: tl.constexpr,
    FOR_TEACHER: tl.constexpr,
    FOR_BETA: tl.constexpr,
    ONE_TILE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    # A grid has less than 2³¹ programs; offsets of rows may pass that.
    row = (program // n_tiles).to(tl.int64)
    cols = (program % n_tiles) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < n_classes
    counts = True
    if HAS_KEEP:
        counts = tl.load(keep + row) != 0
    read = cols < tl.where(counts, n_classes, 0)  # a row that counts for nothing is not even read

    b = tl.load(beta + row * beta_stride).to(ACC)
    label_weight = shares(label_weight, ACC)
    mix = shares(mix, ACC)
    g = tl.load(grad_loss + row * grad_loss_stride).to(ACC)
    c = b * LOG2_E
    softmaxes = load_softmaxes(stats, row, n_rows)
    dot_s = tl.load(statistic(stats, 4, row, n_rows))
    dot_t = tl.load(statistic(stats, 5, row, n_rows))
    low = float("-inf")
    s = tl.load(student + row * student_stride + cols, mask=read, other=low).to(ACC)
    t = s
    if SOFT:
        t = tl.load(teacher + row * teacher_stride + cols, mask=read, other=low).to(ACC)

    if FOR_STUDENT:
        out = student_gradient(
            s, t, g, b, softmaxes, dot_s, label_weight, mix, DIVERGENCE, SOFT, HARD,
            TEMPERATURE_SCALING, ONE_TILE)  # fmt: skip
        if HARD:
            out = less_label(out, cols == tl.load(labels + row), g, label_weight)
        out = tl.where(counts, out, 0.0).to(grad_student.dtype.element_ty)
        tl.store(grad_student + row * grad_student_stride + cols, out, mask=inside)
    if FOR_TEACHER:
        if DIVERGENCE == MSE_LOGITS:
            out = 2 * tl.where(s == t, 0.0, t - s)
        else:
            _x_s, _x_t, q, p = soften(s, t, c, softmaxes, ONE_TILE)
            _ratio, ratio = log2_ratios(s, t, q, p, c, softmaxes, mix, DIVERGENCE, ONE_TILE)
            scale = 1 / b if TEMPERATURE_SCALING else b
            out = scale * slope_teacher(q, p, ratio, dot_t, mix, DIVERGENCE)
        out = tl.where(counts, label_weight[1] * g * out, 0.0)
        out = out.to(grad_teacher.dtype.element_ty)
        tl.store(grad_teacher + row * grad_teacher_stride + cols, out, mask=inside)
    if FOR_BETA:
        x_s, x_t, q, p = soften(s, t, c, softmaxes, ONE_TILE)
        of_student, of_teacher = log2_ratios(
            s, t, q, p, c, softmaxes, mix, DIVERGENCE, ONE_TILE)  # fmt: skip
        towards = slope(q, p, of_student, dot_s, mix, DIVERGENCE) * x_s
        other = slope_teacher(q, p, of_teacher, dot_t, mix, DIVERGENCE) * x_t
        part = tl.where(x_s == low, 0.0, towards) + tl.where(x_t == low, 0.0, other)
        tl.store(beta_parts + program, tl.sum(part, 0) * LN_2)
