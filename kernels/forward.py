"""Forward: read both tensors once, write the row's loss and statistics.

A row belongs to one program (`forward_kernel`), which also writes the gradient, if asked, of a row
that is one tile; or, where rows are few and long, to several: each makes the state of its part
(`part_kernel`), js and tv sweep again (`spread_kernel`), and `join_kernel` combines the parts. Both
ways, and that of `lookback.py`, are made of the same `sweep`, `combine` and `write_loss`.
"""

import triton
import triton.language as tl
from kdlab.kernels.row_state import (
    FIELDS,
    JS,
    KL,
    LN_2,
    LOG2_E,
    MSE_LOGITS,
    REVERSE_KL,
    TV,
    across,
    collapse,
    combine,
    empty,
    exponent,
    finish,
    finite_max,
    gather,
    in_reach,
    log_ratio,
    maxima,
    no_sums,
    plain,
    settle,
    single,
    total,
    with_maxima,
)
from kdlab.kernels.softened import (
    as_number,
    less_label,
    spread,
    spread_finish,
    student_gradient,
)

N_FIELDS = tl.constexpr(len(FIELDS))
JOIN = tl.constexpr(32)  # parts of a row that are joined at a time


@triton.jit
def lanes(BLOCK: tl.constexpr, VECTOR: tl.constexpr, ALIGNED: tl.constexpr):
    """The columns of a tile, (lanes, VECTOR).

    Where rows start on 16 bytes, a lane takes neighbours, which arrive in one 128-bit load.
    Elsewhere each arrives by itself, and it is neighbouring lanes that take neighbours.
    """
    LANES: tl.constexpr = BLOCK // VECTOR
    lane = tl.arange(0, LANES)[:, None]
    k = tl.arange(0, VECTOR)[None, :]
    if ALIGNED:
        cols = lane * VECTOR + k
    else:
        cols = lane + k * LANES
    return cols


@triton.jit
def load_tile(
    student,
    teacher,
    cols,
    end,
    ACC: tl.constexpr,
    SOFT: tl.constexpr,
    FULL: tl.constexpr = False,
    LAST: tl.constexpr = False,
):
    """Both rows' logits at these columns, −inf past `end`; the student's twice if no teacher.

    FULL: no column is past `end`. LAST: nobody reads them again, so caches may drop them first.
    """
    EVICT: tl.constexpr = "evict_first" if LAST else ""
    if FULL:
        s = tl.load(student + cols, eviction_policy=EVICT)
        t = s
        if SOFT:
            t = tl.load(teacher + cols, eviction_policy=EVICT)
    else:
        low = float("-inf")
        s = tl.load(student + cols, mask=cols < end, other=low, eviction_policy=EVICT)
        t = s
        if SOFT:
            t = tl.load(teacher + cols, mask=cols < end, other=low, eviction_policy=EVICT)
    return widen(s, ACC), widen(t, ACC)


@triton.jit
def widen(x, ACC: tl.constexpr):
    """x in the dtype of the sums. bfloat16 is the upper half of float32: said in integers, half of
    the numbers need no shift, since two of them come in one register."""
    if x.dtype == tl.bfloat16 and ACC == tl.float32:
        out = (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        out = x.to(ACC)
    return out


@triton.jit
def last_tile(begin, end, BLOCK: tl.constexpr):
    """Where the last tile of the columns from begin to end begins; those before it are full."""
    return begin + tl.maximum(tl.cdiv(end - begin, BLOCK) - 1, 0) * BLOCK


@triton.jit
def gather_part(
    student,
    teacher,
    begin,
    last,
    m_s,
    m_t,
    s,
    t,
    c,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    CAREFUL: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """A part's state about m_s and m_t: full tiles from begin to last, then the tile s, t."""
    f_s = finite_max(m_s)
    f_t = finite_max(m_t)
    sums = gather(no_sums(BLOCK // VECTOR, ACC), s, t, f_s, f_t, c, DIVERGENCE, SOFT, HARD, True,
                  False)  # fmt: skip
    offsets = lanes(BLOCK, VECTOR, ALIGNED)
    for start in range(begin, last, BLOCK):
        s, t = load_tile(student, teacher, start + offsets, last, ACC, SOFT, FULL=True)
        sums = gather(sums, s, t, f_s, f_t, c, DIVERGENCE, SOFT, HARD, CAREFUL, False)
    return with_maxima(m_s, m_t, total(sums, DIVERGENCE, SOFT, HARD))


@triton.jit
def sweep(
    student,
    teacher,
    begin,
    end,
    c,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The state of the columns from begin to end of one row.

    About the largest logits of one tile: following the largest of all from tile to tile, and asking
    each whether it is −∞, doubled kl's instructions. In the rare case that these won't do, the
    largest of all are looked for first, and the sums are made with care.
    """
    offsets = lanes(BLOCK, VECTOR, ALIGNED)
    last = last_tile(begin, end, BLOCK)
    s, t = load_tile(student, teacher, last + offsets, end, ACC, SOFT)
    m_s, m_t = maxima(s, t)
    state = gather_part(
        student, teacher, begin, last, m_s, m_t, s, t, c, DIVERGENCE, SOFT, HARD, False, ACC, BLOCK,
        VECTOR, ALIGNED)  # fmt: skip
    if not plain(state, DIVERGENCE, SOFT, HARD):
        state = careful_sweep(student, teacher, begin, end, c, DIVERGENCE, SOFT, HARD, ACC, BLOCK,
                              VECTOR, ALIGNED)  # fmt: skip
    return settle(state, c, DIVERGENCE, SOFT, HARD)


@triton.jit
def careful_sweep(
    student,
    teacher,
    begin,
    end,
    c,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The same state about the largest logits of all, whatever they are."""
    offsets = lanes(BLOCK, VECTOR, ALIGNED)
    last = last_tile(begin, end, BLOCK)
    s, t = load_tile(student, teacher, last + offsets, end, ACC, SOFT)
    m_s, m_t = maxima(s, t)
    for start in range(begin, last, BLOCK):
        s, t = load_tile(student, teacher, start + offsets, last, ACC, SOFT, FULL=True)
        more_s, more_t = maxima(s, t)
        m_s = tl.maximum(m_s, more_s)
        m_t = tl.maximum(m_t, more_t)
    s, t = load_tile(student, teacher, last + offsets, end, ACC, SOFT)
    return gather_part(
        student, teacher, begin, last, m_s, m_t, s, t, c, DIVERGENCE, SOFT, HARD, True, ACC, BLOCK,
        VECTOR, ALIGNED)  # fmt: skip


@triton.jit
def spread_sweep(
    student,
    teacher,
    begin,
    end,
    c,
    softmaxes,
    mix,
    DIVERGENCE: tl.constexpr,
    FOR_TEACHER: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """The second sweep of js and tv, from the end backwards: what was read last is still in L2."""
    dot_s = tl.zeros((BLOCK // VECTOR,), ACC)
    dot_t = dot_s
    soft = dot_s
    offsets = lanes(BLOCK, VECTOR, ALIGNED)
    for i in range(tl.cdiv(end - begin, BLOCK) - 1, -1, -1):
        s, t = load_tile(student, teacher, begin + i * BLOCK + offsets, end, ACC, True)
        more_s, more_t, more_soft = spread(
            s, t, c, softmaxes, mix, DIVERGENCE, FOR_TEACHER, False)  # fmt: skip
        dot_s += more_s
        dot_t += more_t
        soft += more_soft
    dot_s, dot_t, soft, _soft = across(dot_s, dot_t, soft, soft)
    return dot_s, dot_t, soft


@triton.jit
def softmaxes_of(state, DIVERGENCE: tl.constexpr):
    """m_s, z_s, m_t, z_t and z_1 of a row, to subtract and to divide by, and log(z_t / z_s), for
    the divergences that ask for log(q / p)."""
    ratio = state[1] * 0
    if DIVERGENCE == KL or DIVERGENCE == REVERSE_KL or DIVERGENCE == TV:
        ratio = log_ratio(state)
    return finite_max(state[0]), state[1], finite_max(state[2]), state[3], state[11], ratio


@triton.jit
def store_softmaxes(softmaxes, stats, row, n_rows):
    m_s, z_s, m_t, z_t, z_1, ratio = softmaxes
    tl.store(stats + row, m_s)
    tl.store(stats + n_rows + row, z_s)
    tl.store(stats + 2 * n_rows + row, m_t)
    tl.store(stats + 3 * n_rows + row, z_t)
    tl.store(stats + 7 * n_rows + row, z_1)
    tl.store(stats + 8 * n_rows + row, ratio)


@triton.jit
def load_softmaxes(stats, row, n_rows):
    return (
        tl.load(stats + row),
        tl.load(stats + n_rows + row),
        tl.load(stats + 2 * n_rows + row),
        tl.load(stats + 3 * n_rows + row),
        tl.load(stats + 7 * n_rows + row),
        tl.load(stats + 8 * n_rows + row),
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
    """A row's loss, and the sums that its gradients subtract; `student` points at the row."""
    m_s, _z_s, _m_t, _z_t, z_1, _ratio = softmaxes
    total = tl.zeros((), ACC)
    if SOFT:
        scaled = soft
        if TEMPERATURE_SCALING and DIVERGENCE != MSE_LOGITS:
            scaled = soft / (b * b)
        total = (1 - label_weight) * scaled
    if HARD:
        z_label = tl.load(student + tl.load(labels + row)).to(ACC)
        hard = tl.log(z_1) - exponent(z_label, LOG2_E, m_s, ONE_TILE) * LN_2
        total += label_weight * tl.where(z_1 == 0, float("nan"), hard)
    tl.store(loss + row, tl.where(counts, total, 0.0))
    tl.store(stats + 4 * n_rows + row, dot_s)
    tl.store(stats + 5 * n_rows + row, dot_t)
    tl.store(stats + 6 * n_rows + row, soft)


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
    label_weight = as_number(label_weight, ACC)
    mix = as_number(mix, ACC)
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
    mix = as_number(mix, ACC)
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
    label_weight = as_number(label_weight, ACC)
    mix = as_number(mix, ACC)
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
