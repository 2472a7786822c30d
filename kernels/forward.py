"""Forward: one program a row reads both tensors once and writes the row's loss and statistics."""

import triton
import triton.language as tl
from kdlab.kernels.row_state import MSE_LOGITS, combine, empty, finish, tile


@triton.jit
def forward_kernel(
    student,
    teacher,
    labels,
    keep,
    beta,
    loss,
    stats,
    student_stride,
    teacher_stride,
    beta_stride,
    n_rows,
    n_classes,
    label_weight,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)  # row · stride passes 2³¹ long before memory runs out
    b = tl.load(beta + row * beta_stride).to(ACC)
    counts = True
    if HAS_KEEP:
        counts = tl.load(keep + row) != 0
    end = tl.where(counts, n_classes, 0)  # a row that counts for nothing is not even read

    state = empty(ACC)
    offsets = tl.arange(0, BLOCK)
    for start in range(0, end, BLOCK):
        cols = start + offsets
        inside = cols < n_classes
        s = tl.load(student + row * student_stride + cols, mask=inside, other=float("-inf"))
        s = s.to(ACC)
        t = s
        if SOFT:
            t = tl.load(teacher + row * teacher_stride + cols, mask=inside, other=float("-inf"))
            t = t.to(ACC)
        state = combine(state, tile(s, t, b, DIVERGENCE, SOFT, HARD), b, DIVERGENCE, SOFT, HARD)

    total = tl.zeros((), ACC)
    dot = tl.zeros((), ACC)
    if SOFT:
        soft, dot = finish(state, DIVERGENCE)
        if TEMPERATURE_SCALING and DIVERGENCE != MSE_LOGITS:
            soft = soft / (b * b)
        total = (1 - label_weight) * soft
    if HARD:
        label = tl.load(labels + row)
        z_label = tl.load(student + row * student_stride + label).to(ACC)
        hard = tl.log(state[11]) - (z_label - state[0])
        total += label_weight * tl.where(state[11] == 0, float("nan"), hard)
    total = tl.where(counts, total, 0.0)
    tl.store(loss + row, total)

    low = float("-inf")
    tl.store(stats + row, tl.where(state[0] == low, 0.0, state[0]))
    tl.store(stats + n_rows + row, state[1])
    tl.store(stats + 2 * n_rows + row, tl.where(state[2] == low, 0.0, state[2]))
    tl.store(stats + 3 * n_rows + row, state[3])
    tl.store(stats + 4 * n_rows + row, dot)
    tl.store(stats + 5 * n_rows + row, state[11])
