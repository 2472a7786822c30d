"""What is written of a row whose state is known: its loss, the statistics that gradients need, and
the gradient where it is not that of any class: at the label, and where the row counts for nothing.

Statistics are (9, N), named in `kdlab.rows.STATS`.
"""

import triton
import triton.language as tl
from kdlab.kernels.row_state import (
    KL,
    LN_2,
    LOG2_E,
    MSE_LOGITS,
    REVERSE_KL,
    TV,
    exponent,
    finite_max,
    log_ratio,
)
from kdlab.kernels.softened import less_label, student_gradient
from kdlab.kernels.sweep import lanes


@triton.jit
def softmaxes_of(state, DIVERGENCE: tl.constexpr):
    """m_s, z_s, m_t, z_t and z_1 of a row, to subtract and to divide by, and log(z_t / z_s), for
    the divergences that ask for log(q / p)."""
    ratio = state[1] * 0
    if DIVERGENCE == KL or DIVERGENCE == REVERSE_KL or DIVERGENCE == TV:
        ratio = log_ratio(state)
    return finite_max(state[0]), state[1], finite_max(state[2]), state[3], state[11], ratio


@triton.jit
def statistic(stats, k: tl.constexpr, row, n_rows):
    """Where a row has its k-th statistic: k n_rows may pass 2³¹."""
    return stats + (tl.full((), n_rows, tl.int64) * k + row)


@triton.jit
def store_softmaxes(softmaxes, stats, row, n_rows):
    m_s, z_s, m_t, z_t, z_1, ratio = softmaxes
    tl.store(statistic(stats, 0, row, n_rows), m_s)
    tl.store(statistic(stats, 1, row, n_rows), z_s)
    tl.store(statistic(stats, 2, row, n_rows), m_t)
    tl.store(statistic(stats, 3, row, n_rows), z_t)
    tl.store(statistic(stats, 7, row, n_rows), z_1)
    tl.store(statistic(stats, 8, row, n_rows), ratio)


@triton.jit
def load_softmaxes(stats, row, n_rows):
    return (
        tl.load(statistic(stats, 0, row, n_rows)),
        tl.load(statistic(stats, 1, row, n_rows)),
        tl.load(statistic(stats, 2, row, n_rows)),
        tl.load(statistic(stats, 3, row, n_rows)),
        tl.load(statistic(stats, 7, row, n_rows)),
        tl.load(statistic(stats, 8, row, n_rows)),
    )


@triton.jit
def write_loss(
    softmaxes,
    soft,
    dot_s,
    dot_t,
    student,
    labels,
    loss,
    stats,
    row,
    n_rows,
    b,
    counts,
    label_weight,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ONE_TILE: tl.constexpr,
    ACC: tl.constexpr,
):
    """A row's loss, and the sums that its gradients subtract; `student` points at the row,
    `label_weight` is α and 1 − α."""
    m_s, _z_s, _m_t, _z_t, z_1, _ratio = softmaxes
    total = tl.zeros((), ACC)
    if SOFT:
        scaled = soft
        if TEMPERATURE_SCALING and DIVERGENCE != MSE_LOGITS:
            scaled = soft / (b * b)
        total = label_weight[1] * scaled
    if HARD:
        z_label = tl.load(student + tl.load(labels + row)).to(ACC)
        hard = tl.log(z_1) - exponent(z_label, LOG2_E, m_s, ONE_TILE) * LN_2
        total += label_weight[0] * tl.where(z_1 == 0, float("nan"), hard)
    tl.store(loss + row, tl.where(counts, total, 0.0))
    tl.store(statistic(stats, 4, row, n_rows), dot_s)
    tl.store(statistic(stats, 5, row, n_rows), dot_t)
    tl.store(statistic(stats, 6, row, n_rows), soft)


@triton.jit
def gradient_at_label(
    student,
    teacher,
    grad,
    label,
    begin,
    end,
    g,
    b,
    softmaxes,
    dot_s,
    label_weight,
    mix,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ACC: tl.constexpr,
):
    """The label's class once more, if it is between begin and end, rather than to ask of each class
    whether it is the label."""
    tl.debug_barrier()
    if (begin <= label) & (label < end):
        s = tl.load(student + label).to(ACC)
        t = s
        if SOFT:
            t = tl.load(teacher + label).to(ACC)
        out = student_gradient(
            s, t, g, b, softmaxes, dot_s, label_weight, mix, DIVERGENCE, SOFT, HARD,
            TEMPERATURE_SCALING, False)  # fmt: skip
        tl.store(grad + label, less_label(out, True, g, label_weight))


@triton.jit
def nothing(grad, begin, end, BLOCK: tl.constexpr, VECTOR: tl.constexpr, ALIGNED: tl.constexpr):
    """The gradient of a part of a row that counts for nothing."""
    offsets = lanes(BLOCK, VECTOR, ALIGNED)
    for start in range(begin, end, BLOCK):
        zeros = tl.zeros(offsets.shape, grad.dtype.element_ty)
        tl.store(grad + start + offsets, zeros, mask=start + offsets < end)
