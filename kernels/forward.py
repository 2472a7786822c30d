"""Forward: one program a row reads both tensors once, and writes its loss and statistics.

And its gradient, if asked, where a row is one tile. For longer rows `teams.py` and `lookback.py`
make both in one launch; where rows are few and long, `parts.py` shares one between programs.
"""

import triton
import triton.language as tl
from kdlab.kernels.results import softmaxes_of, store_softmaxes, write_loss
from kdlab.kernels.row_state import JS, LOG2_E, TV, across, finish, in_reach, single
from kdlab.kernels.softened import less_label, shares, spread, spread_finish, student_gradient
from kdlab.kernels.sweep import lanes, load_tile, spread_sweep, sweep


@triton.jit
def forward_kernel(
    student,
    teacher,
    labels,
    keep,
    beta,
    loss,
    stats,
    grad,
    grad_scale,
    student_stride,
    teacher_stride,
    beta_stride,
    grad_stride,
    n_rows,
    n_classes,
    label_weight: tl.float64,
    mix: tl.float64,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    GRADIENT: tl.constexpr,
    ONE_TILE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)  # row · stride passes 2³¹ long before memory runs out
    b = tl.load(beta + row * beta_stride).to(ACC)
    label_weight = shares(label_weight, ACC)
    mix = shares(mix, ACC)
    counts = True
    if HAS_KEEP:
        counts = tl.load(keep + row) != 0
    end = tl.where(counts, n_classes, 0)  # a row that counts for nothing is not even read
    student += row * student_stride
    teacher += row * teacher_stride
    offsets = lanes(BLOCK, VECTOR, ALIGNED)
    c = b * LOG2_E

    if ONE_TILE:  # the whole row stays in registers
        s, t = load_tile(student, teacher, offsets, end, ACC, SOFT)
        state = single(s, t, c, DIVERGENCE, SOFT, HARD)
    else:
        state = sweep(
            student, teacher, 0, end, c, DIVERGENCE, SOFT, HARD, ACC, BLOCK, VECTOR, ALIGNED
        )
        state = in_reach(state, c, DIVERGENCE, SOFT, HARD)
    softmaxes = softmaxes_of(state, DIVERGENCE)
    if SOFT and (DIVERGENCE == JS or DIVERGENCE == TV):
        if ONE_TILE:
            dot_s, dot_t, soft = spread(
                s, t, c, softmaxes, mix, DIVERGENCE, not GRADIENT, True)  # fmt: skip
            dot_s, dot_t, soft, _soft = across(dot_s, dot_t, soft, soft)
        else:
            dot_s, dot_t, soft = spread_sweep(
                student, teacher, 0, end, c, softmaxes, mix, DIVERGENCE, True, ACC, BLOCK, VECTOR,
                ALIGNED)  # fmt: skip
        soft = spread_finish(dot_s, dot_t, soft, softmaxes[1], softmaxes[3], mix, DIVERGENCE)
    else:
        soft, dot_s, dot_t = finish(state, DIVERGENCE)
    store_softmaxes(softmaxes, stats, row, n_rows)
    write_loss(softmaxes, soft, dot_s, dot_t, student, labels, loss, stats, row, n_rows, b, counts,
               label_weight, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, ONE_TILE,
               ACC)  # fmt: skip

    if GRADIENT:  # of longer rows: `lookback.py`
        tl.static_assert(ONE_TILE)
        g = tl.load(grad_scale).to(ACC)
        out = student_gradient(
            s, t, g, b, softmaxes, dot_s, label_weight, mix, DIVERGENCE, SOFT, HARD,
            TEMPERATURE_SCALING, True)  # fmt: skip
        if HARD:
            out = less_label(out, offsets == tl.load(labels + row), g, label_weight)
        out = tl.where(counts, out, 0.0).to(grad.dtype.element_ty)
        tl.store(grad + row * grad_stride + offsets, out, mask=offsets < n_classes)
