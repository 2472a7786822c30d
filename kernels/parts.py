"""A row in parts, each of which another program reads.

Here for few rows of many classes: each program makes the state of its part (`part_kernel`), for js
and tv each sweeps again (`spread_kernel`), and `join_kernel` combines what they have left.
`lookback.py` leaves and joins parts in the same way, in one launch.
"""

import triton
import triton.language as tl
from kdlab.kernels.results import softmaxes_of, store_softmaxes, write_loss
from kdlab.kernels.row_state import (
    FIELDS,
    JS,
    LOG2_E,
    TV,
    collapse,
    combine,
    empty,
    finish,
    in_reach,
)
from kdlab.kernels.softened import shares, spread_finish
from kdlab.kernels.sweep import spread_sweep, sweep

N_FIELDS = tl.constexpr(len(FIELDS))
JOIN = tl.constexpr(32)  # parts of a row that are joined at a time


@triton.jit
def part_of(number, parts, part_size, n_classes):
    """The row of a part, and its first class and the one after its last."""
    begin = number % parts * part_size
    return (number // parts).to(tl.int64), begin, tl.minimum(begin + part_size, n_classes)


@triton.jit
def part_kernel(
    student,
    teacher,
    keep,
    beta,
    states,
    student_stride,
    teacher_stride,
    beta_stride,
    n_classes,
    part_size,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The state of one part of one row, written to `states` (rows, parts, 12)."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    b = tl.load(beta + row * beta_stride).to(ACC)
    begin = part * part_size
    end = tl.minimum(begin + part_size, n_classes)
    if HAS_KEEP:
        end = tl.where(tl.load(keep + row) != 0, end, begin)
    state = sweep(student + row * student_stride, teacher + row * teacher_stride, begin, end,
                  b * LOG2_E, DIVERGENCE, SOFT, HARD, ACC, BLOCK, VECTOR, ALIGNED)  # fmt: skip
    store_state(states + (row * tl.num_programs(1) + part) * N_FIELDS, state)


@triton.jit
def store_state(x, state):
    for k in tl.static_range(N_FIELDS):
        tl.store(x + k, state[k])


@triton.jit
def load_states(x, there):
    """States in memory, twelve fields each: x points at their first; empty where none is there."""
    low = float("-inf")
    return (
        tl.load(x, mask=there, other=low),
        tl.load(x + 1, mask=there, other=0.0),
        tl.load(x + 2, mask=there, other=low),
        tl.load(x + 3, mask=there, other=0.0),
        tl.load(x + 4, mask=there, other=0.0),
        tl.load(x + 5, mask=there, other=0.0),
        tl.load(x + 6, mask=there, other=0.0),
        tl.load(x + 7, mask=there, other=0.0),
        tl.load(x + 8, mask=there, other=0.0),
        tl.load(x + 9, mask=there, other=0.0),
        tl.load(x + 10, mask=there, other=0.0),
        tl.load(x + 11, mask=there, other=0.0),
    )


@triton.jit
def join(
    states,
    parts,
    c,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    ACC: tl.constexpr,
):
    """The state of a row from those of its parts."""
    state = empty(JOIN, ACC)
    for first in range(0, parts, JOIN):
        part = first + tl.arange(0, JOIN)
        more = load_states(states + part * N_FIELDS, part < parts)
        state = combine(state, more, c, DIVERGENCE, SOFT, HARD)
    state = collapse(state, c, DIVERGENCE, SOFT, HARD)
    return in_reach(state, c, DIVERGENCE, SOFT, HARD)


@triton.jit
def spread_kernel(
    student,
    teacher,
    keep,
    beta,
    states,
    sums,
    student_stride,
    teacher_stride,
    beta_stride,
    n_classes,
    part_size,
    mix: tl.float64,
    DIVERGENCE: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The second sweep of js and tv over one part of one row, into `sums` (rows, parts, 3)."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    parts = tl.num_programs(1)
    b = tl.load(beta + row * beta_stride).to(ACC)
    mix = shares(mix, ACC)
    begin = part * part_size
    end = tl.minimum(begin + part_size, n_classes)
    if HAS_KEEP:
        end = tl.where(tl.load(keep + row) != 0, end, begin)
    c = b * LOG2_E
    state = join(states + row * parts * N_FIELDS, parts, c, DIVERGENCE, True, HARD, ACC)
    student += row * student_stride
    teacher += row * teacher_stride
    dot_s, dot_t, soft = spread_sweep(
        student,
        teacher,
        begin,
        end,
        c,
        softmaxes_of(state, DIVERGENCE),
        mix,
        DIVERGENCE,
        True,
        ACC,
        BLOCK,
        VECTOR,
        ALIGNED,
    )
    store_sums(sums + (row * parts + part) * 3, dot_s, dot_t, soft)


@triton.jit
def store_sums(x, dot_s, dot_t, soft):
    tl.store(x, dot_s)
    tl.store(x + 1, dot_t)
    tl.store(x + 2, soft)


@triton.jit
def join_sums(sums, parts, z_s, z_t, mix, DIVERGENCE: tl.constexpr, ACC: tl.constexpr):
    """js's or tv's sums over a row, from those of `spread` over its parts, and D."""
    dot_s = tl.zeros((JOIN,), ACC)
    dot_t = dot_s
    soft = dot_s
    for first in range(0, parts, JOIN):
        part = first + tl.arange(0, JOIN)
        x = sums + part * 3
        dot_s += tl.load(x, mask=part < parts, other=0.0)
        dot_t += tl.load(x + 1, mask=part < parts, other=0.0)
        soft += tl.load(x + 2, mask=part < parts, other=0.0)
    dot_s, dot_t, soft = tl.sum(dot_s, 0), tl.sum(dot_t, 0), tl.sum(soft, 0)
    return dot_s, dot_t, spread_finish(dot_s, dot_t, soft, z_s, z_t, mix, DIVERGENCE)


@triton.jit
def join_kernel(
    student,
    labels,
    keep,
    beta,
    states,
    sums,
    loss,
    stats,
    student_stride,
    beta_stride,
    n_rows,
    parts,
    label_weight: tl.float64,
    mix: tl.float64,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ACC: tl.constexpr,
):
    """One program a row: its loss and statistics from the states of its parts."""
    row = tl.program_id(0).to(tl.int64)
    b = tl.load(beta + row * beta_stride).to(ACC)
    label_weight = shares(label_weight, ACC)
    mix = shares(mix, ACC)
    counts = True
    if HAS_KEEP:
        counts = tl.load(keep + row) != 0
    state = join(states + row * parts * N_FIELDS, parts, b * LOG2_E, DIVERGENCE, SOFT, HARD, ACC)
    if SOFT and (DIVERGENCE == JS or DIVERGENCE == TV):
        dot_s, dot_t, soft = join_sums(
            sums + row * parts * 3, parts, state[1], state[3], mix, DIVERGENCE, ACC
        )
    else:
        soft, dot_s, dot_t = finish(state, DIVERGENCE)
    softmaxes = softmaxes_of(state, DIVERGENCE)
    store_softmaxes(softmaxes, stats, row, n_rows)
    student += row * student_stride
    write_loss(softmaxes, soft, dot_s, dot_t, student, labels, loss, stats, row, n_rows, b, counts,
               label_weight, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, False, ACC)  # fmt: skip
