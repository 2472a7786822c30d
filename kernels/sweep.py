"""One program along the classes of a row, or of a part of one: the state of what it has read.

A tile's columns and how they are loaded (`lanes`, `load_tile`), and the sweeps of tiles that the
kernels are made of: `sweep` for the state, `spread_sweep` for the sums of js and tv, which need p
and q.
"""

import triton
import triton.language as tl
from kdlab.kernels.row_state import (
    across,
    finite_max,
    gather,
    maxima,
    no_sums,
    plain,
    settle,
    total,
    with_maxima,
)
from kdlab.kernels.softened import spread


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
