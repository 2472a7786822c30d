"""Loss and gradient in one launch, for rows of many tiles, with each logit read once, by teams.

A gradient needs the whole row's statistics. Look-back sweeps a row twice, and the second sweep
finds it in L2; on an H100 that is not free, since half of what L2 gives comes over the link between
its two halves. Here nothing is read twice: a team of programs holds a row in registers. Each member
loads its part, sums it, tells the others its state, and waits until all have told theirs; each
joins them for itself and writes the gradient of what it holds. Then the team goes on to its next
row. While one team waits, others on the same multiprocessor load or compute.

All programs run at once, in a cooperative launch, which begins when the device has room for all.
A member tells before it waits: whoever waits for a row waits for programs that are at that row or
at earlier ones, so nobody waits for ever.

What is told are numbers, in memory that was all ones before: such a word has not been written yet.
So nobody has to ask whether what others wrote has arrived, and no fence waits for gradients that
are on their way to memory.
"""

import triton
import triton.language as tl
from kdlab.kernels.parts import N_FIELDS
from kdlab.kernels.results import (
    gradient_at_label,
    nothing,
    softmaxes_of,
    statistic,
    store_softmaxes,
    write_loss,
)
from kdlab.kernels.row_state import (
    FIELDS,
    LOG2_E,
    TV,
    collapse,
    farthest,
    finish,
    gather,
    in_reach,
    maxima,
    no_sums,
    plain,
    settle,
    total,
    with_maxima,
)
from kdlab.kernels.softened import shares, spread, spread_finish, student_gradient
from kdlab.kernels.sweep import careful_sweep, lanes, widen

UNWRITTEN = tl.constexpr(-1)  # all ones: a NaN that no arithmetic gives
NO_LOGIT = tl.constexpr(-0x800000)  # −∞
BOTH = tl.constexpr(0b11)
# Stands past the end of a row, where −∞ would need care: its exponential is 0 beside any logit that
# is not too far from zero (`farthest`), at any c above SMALLEST.
PADDING = tl.constexpr(-(2.0**120))
SMALLEST = tl.constexpr(2.0**-80)
# The fields of a row's state that a divergence asks for; cross-entropy asks for m_s and z_1.
_SOFTMAXES = ("m_s", "z_s", "m_t", "z_t")
TOLD = {
    "kl": (*_SOFTMAXES, "w", "a"),
    "reverse_kl": (*_SOFTMAXES, "w", "a"),
    "mse": (*_SOFTMAXES, "w", "a", "uu", "vv", "ww", "wv"),
    "mse_logits": ("sq",),
    "tv": (*_SOFTMAXES, "w"),
}


def told(divergence: str, soft: bool, hard: bool) -> int:
    """A bit for each field of a row's state that a team's members tell each other."""
    fields = TOLD[divergence] if soft else ()
    fields += ("m_s", "z_1") if hard else ()
    return sum(1 << k for k, name in enumerate(FIELDS) if name in fields)


@triton.jit
def tell(words, stride, numbers, WHICH: tl.constexpr):
    """Write those of the numbers that have their bit in WHICH where the team waits for them."""
    k = tl.arange(0, 16)
    out = tl.zeros((16,), tl.float32)
    for i in tl.static_range(len(numbers)):
        if (WHICH >> i) & 1:
            out = tl.where(k == i, numbers[i], out)
    bits = tl.where(out == out, out, float("nan")).to(tl.int32, bitcast=True)
    tl.atomic_xchg(words + k * stride, bits, mask=((WHICH >> k) & 1) != 0, sem="relaxed")


@triton.jit
def heard(words, parts, WHICH: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr):
    """What every member told, one in each lane, as soon as all have."""
    part = tl.arange(0, LANES)
    found = look(words + part, part < parts, parts, WHICH, N)
    while tl.max(missing(found), 0) != 0:
        found = look(words + part, part < parts, parts, WHICH, N)
    numbers = ()
    for k in tl.static_range(N):
        numbers = numbers + (found[k].to(tl.float32, bitcast=True),)  # noqa: RUF005
    return numbers


@triton.jit
def look(words, there, stride, WHICH: tl.constexpr, N: tl.constexpr):
    found = ()
    for k in tl.static_range(N):
        maximum = (N == N_FIELDS) & ((k == 0) | (k == 2))  # of no logits at all: −∞
        found = found + (  # noqa: RUF005
            word(words + k * stride, there, NO_LOGIT if maximum else 0, (WHICH >> k) & 1),
        )
    return found


@triton.jit
def word(x, there, other: tl.constexpr, ASKED: tl.constexpr):
    """A word as it is in memory now, not as L1 may have kept it."""
    if ASKED:
        out = tl.load(x, mask=there, other=other, volatile=True)
    else:
        out = tl.full(there.shape, other, tl.int32)
    return out


@triton.jit
def missing(words):
    out = words[0] == UNWRITTEN
    for k in tl.static_range(1, len(words)):
        out = out | (words[k] == UNWRITTEN)
    return out.to(tl.int32)


@triton.jit
def load_part(
    logits, begin, end, TILES: tl.constexpr, BLOCK: tl.constexpr, VECTOR: tl.constexpr
):  # fmt: skip
    """A part of a row as it is in memory, tile by tile."""
    tiles = ()
    for k in tl.static_range(TILES):
        cols = begin + k * BLOCK + lanes(BLOCK, VECTOR, True)
        tiles = tiles + (tl.load(logits + cols, mask=cols < end, other=PADDING),)  # noqa: RUF005
    return tiles


@triton.jit
def held(tiles):
    """The same tiles, as something that the compiler has not seen: else it would keep what it has
    made of them, float32 in twice the registers, rather than make it again."""
    out = ()
    for k in tl.static_range(len(tiles)):
        x = tiles[k]
        out = out + (  # noqa: RUF005
            tl.inline_asm_elementwise(
                "mov.b32 $0, $1;", "=r,r", [x], dtype=x.dtype, is_pure=False,
                pack=32 // x.dtype.primitive_bitwidth),
        )  # fmt: skip
    return out


@triton.jit
def anew(x):
    """The same int32, of which the compiler has kept nothing."""
    return tl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def shares_once_more(x):
    """`shares` of float64 x in float32, made in every turn of a loop: else the compiler makes them
    before the loop, with all that follows from them, and keeps it where registers are scarce."""
    share = tl.inline_asm_elementwise(
        "cvt.rn.f32.f64 $0, $1;", "=f,d", [x], dtype=tl.float32, is_pure=False, pack=1
    )
    rest, _ = tl.inline_asm_elementwise(
        "sub.rn.f64 $1, 0d3FF0000000000000, $2;\ncvt.rn.f32.f64 $0, $1;", "=f,=d,d", [x],
        dtype=(tl.float32, tl.float64), is_pure=False, pack=1,
    )  # fmt: skip
    return share, rest


@triton.jit
def part_state(
    s,
    t,
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
):
    """The state of the part in s and t, about the largest logits of its first tile; in the rare
    case that these won't do, that of the same logits read once more, with care."""
    m_s, m_t = maxima(widen(s[0], ACC), widen(t[0], ACC))
    sums = no_sums(BLOCK // VECTOR, ACC)
    if SOFT:
        for k in tl.static_range(len(s)):
            sums = gather(sums, widen(s[k], ACC), widen(t[k], ACC), m_s, m_t, c, DIVERGENCE, True,
                          False, False, False)  # fmt: skip
    if HARD:  # by itself: there are no registers for both at once
        s = held(s)
        for k in tl.static_range(len(s)):
            x = widen(s[k], ACC)
            sums = gather(sums, x, x, m_s, m_t, c, DIVERGENCE, False, True, False,
                          False)  # fmt: skip
    state = with_maxima(m_s, m_t, total(sums, DIVERGENCE, SOFT, HARD))
    low = -farthest(ACC)
    near = (m_s * c > low) & (m_t * c > low) & (c > SMALLEST)
    if HARD:
        near = near & (m_s * LOG2_E > low)
    if not (plain(state, DIVERGENCE, SOFT, HARD) & near):
        # In smaller tiles: there are registers for no more beside those that are held.
        state = careful_sweep(student, teacher, anew(begin), anew(end), c, DIVERGENCE, SOFT, HARD,
                              ACC, BLOCK // 4, VECTOR // 4, True)  # fmt: skip
        state = settle(state, c, DIVERGENCE, SOFT, HARD)
    return state


@triton.jit
def part_spread(
    s,
    t,
    c,
    softmaxes,
    mix,
    DIVERGENCE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """tv's two sums over the part in s and t."""
    dot_s = tl.zeros((BLOCK // VECTOR,), ACC)
    soft = dot_s
    for k in tl.static_range(len(s)):
        more_s, _more_t, more_soft = spread(
            widen(s[k], ACC), widen(t[k], ACC), c, softmaxes, mix, DIVERGENCE, False, False
        )
        dot_s += more_s
        soft += more_soft
    return both(dot_s, soft)


@triton.jit
def both(a, b):
    """Two sums over the lanes, at once."""
    return tl.split(tl.sum(tl.join(a, b), 0))


@triton.jit
def team_kernel(
    student,
    teacher,
    labels,
    keep,
    beta,
    loss,
    stats,
    grad,
    grad_scale,
    states,
    sums,
    student_stride,
    teacher_stride,
    beta_stride,
    grad_stride,
    n_rows,
    n_classes,
    parts,
    label_weight: tl.float64,
    mix: tl.float64,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    USED: tl.constexpr,
    ACC: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    LANES: tl.constexpr,
):
    """`states` (rows, 12, parts) and, for tv, `sums` (rows, 2, parts): all ones. USED: a bit
    for each field of a state that anybody asks for. LANES: threads of a program, at least parts."""
    SPREAD: tl.constexpr = SOFT and DIVERGENCE == TV
    mix = shares(mix, ACC)
    part = tl.program_id(0) % parts
    begin = part * (TILES * BLOCK)
    end = tl.minimum(begin + TILES * BLOCK, n_classes)

    for r in range(tl.program_id(0) // parts, n_rows, tl.num_programs(0) // parts):
        row = r.to(tl.int64)
        student_row = student + row * student_stride
        teacher_row = teacher + row * teacher_stride
        grad_row = grad + row * grad_stride
        b = tl.load(beta + row * beta_stride).to(ACC)
        c = b * LOG2_E
        counts = True
        if HAS_KEEP:
            counts = tl.load(keep + row) != 0
        if counts:
            g = tl.load(grad_scale).to(ACC)
            s = load_part(student_row, begin, end, TILES, BLOCK, VECTOR)
            t = s
            if SOFT:
                t = load_part(teacher_row, begin, end, TILES, BLOCK, VECTOR)
            state = part_state(s, t, student_row, teacher_row, begin, end, c, DIVERGENCE, SOFT,
                               HARD, ACC, BLOCK, VECTOR)  # fmt: skip
            row_states = states + row * (N_FIELDS * parts)
            tell(row_states + part, parts, state, USED)
            state = heard(row_states, parts, USED, N_FIELDS, LANES)
            state = collapse(state, c, DIVERGENCE, SOFT, HARD)
            state = in_reach(state, c, DIVERGENCE, SOFT, HARD)
            softmaxes = softmaxes_of(state, DIVERGENCE)
            alpha = shares_once_more(tl.full((), label_weight, tl.float64))
            s = held(s)
            t = held(t)
            if SPREAD:
                dot_s, soft = part_spread(s, t, c, softmaxes, mix, DIVERGENCE, ACC, BLOCK, VECTOR)
                row_sums = sums + row * (2 * parts)
                tell(row_sums + part, parts, (dot_s, soft), BOTH)
                dot_s, soft = heard(row_sums, parts, BOTH, 2, LANES)
                dot_s, soft = both(dot_s, soft)
                dot_t = dot_s * 0
                soft = spread_finish(dot_s, dot_t, soft, softmaxes[1], softmaxes[3], mix,
                                     DIVERGENCE)  # fmt: skip
                s = held(s)
                t = held(t)
            else:
                soft, dot_s, dot_t = finish(state, DIVERGENCE)
            if part == 0:
                store_softmaxes(softmaxes, stats, row, n_rows)
                write_loss(
                    softmaxes, soft, dot_s, dot_t, student_row, labels, loss, stats, row, n_rows, b,
                    counts, alpha, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, False,
                    ACC)  # fmt: skip
            for k in tl.static_range(TILES):
                cols = begin + k * BLOCK + lanes(BLOCK, VECTOR, True)
                out = student_gradient(
                    widen(s[k], ACC), widen(t[k], ACC), g, b, softmaxes, dot_s,
                    alpha, mix, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING,
                    False)  # fmt: skip
                tl.store(grad_row + cols, out.to(grad.dtype.element_ty), mask=cols < end)
            if HARD:
                gradient_at_label(
                    student_row, teacher_row, grad_row, tl.load(labels + row), begin, end, g, b,
                    softmaxes, dot_s, alpha, mix, DIVERGENCE, SOFT, HARD,
                    TEMPERATURE_SCALING, ACC)  # fmt: skip
        else:
            nothing(grad_row, begin, end, BLOCK, VECTOR, True)
            if part == 0:
                tl.store(loss + row, 0.0)
                for k in tl.static_range(9):
                    tl.store(statistic(stats, k, row, n_rows), 0.0)
