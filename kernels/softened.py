"""One tile of a row whose statistics are known: p and q, their distance, and its slopes.

The divergences that need p and q themselves (js, tv) sum here, in a second sweep; the gradient of
every divergence is one function, `slope`, for the student. The teacher's is the same function with
the two exchanged: kl and reverse_kl are each other's mirror, js with mix → 1 − mix, the others
their own.
"""

import triton
import triton.language as tl
from kdlab.kernels.row_state import (
    JS,
    KL,
    LN_2,
    LOG2_E,
    MSE,
    MSE_LOGITS,
    REVERSE_KL,
    TV,
    exponent,
    log1p,
)

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
TINY = tl.constexpr(1e-37)  # about the smallest normal number


@triton.jit
def shares(x, ACC: tl.constexpr):
    """α or mix, and what it leaves of 1, each rounded once: near 1, the second would be lost.
    Kernels declare them fp64, since Triton cuts floats to fp32."""
    x = tl.full((), x, tl.float64)
    return x.to(ACC), (1.0 - x).to(ACC)


@triton.jit
def soften(s, t, c, softmaxes, ONE_TILE: tl.constexpr):
    """x_s, x_t (to base 2), q and p of one tile."""
    m_s, z_s, m_t, z_t, _z_1, _ratio = softmaxes
    x_s = exponent(s, c, m_s, ONE_TILE)
    x_t = exponent(t, c, m_t, ONE_TILE)
    return x_s, x_t, tl.exp2(x_s) * (1 / z_s), tl.exp2(x_t) * (1 / z_t)


@triton.jit
def log2_odds(s, t, c, softmaxes, ONE_TILE: tl.constexpr):
    """log₂(q / p) = c (s − t − (m_s − m_t)) + log₂(z_t / z_s), NaN where both are masked.

    By the logits, which are subtracted without rounding where they are near each other: p and q,
    and their exponents, have been rounded already. If one side's are far from the other's, the side
    that is farther from zero is moved first, by a whole number, which mostly leaves nothing to
    round either.
    """
    m_s, _z_s, m_t, _z_t, _z_1, ratio = softmaxes
    shift = m_s - m_t
    shift = tl.where(tl.abs(shift) < 2, 0.0, tl.floor(shift + 0.5))
    of_s = tl.where(tl.abs(m_s) < tl.abs(m_t), 0.0, shift)
    of_t = shift - of_s
    rest = ratio * LOG2_E - c * ((m_s - of_s) - (m_t + of_t))
    c = tl.full((), c, s.dtype)
    apart = (s - of_s) - (t + of_t)
    if ONE_TILE:
        out = c * apart + rest
    else:  # z_s and z_t sum powers of c z − c m, c m rounded: see `exponent`
        rest += tl.fma(m_s, c, -(m_s * c)) - tl.fma(m_t, c, -(m_t * c))
        out = tl.fma(apart, c, rest)
    return out


@triton.jit
def log2_fast(x):
    """log₂ x for normal x, by the hardware's one instruction: within 2⁻²² between ½ and 2, to 2⁻²²
    of itself elsewhere (PTX ISA, lg2.approx). `tl.log2` takes some twenty."""
    if INTERPRETED or x.dtype == tl.float64:
        out = tl.log2(x)
    else:
        out = tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return out


@triton.jit
def log2_near(x):
    """log₂(1 + x) for |x| < ⅛, to 2⁻²² of itself in float32: x times the polynomial of degree 5
    whose relative error is the least, 2⁻²⁵; rounding adds the rest."""
    if x.dtype == tl.float64:
        out = log1p(x) * LOG2_E
    else:
        out = tl.fma(x, -0.24535789, 0.29343879)
        out = tl.fma(x, out, -0.36063641)
        out = tl.fma(x, out, 0.4808695)
        out = tl.fma(x, out, -0.72134757)
        out = x * tl.fma(x, out, 1.44269502)
    return out


@triton.jit
def log2_quotient(q, inverse, difference):
    """log₂(q / m) from 1 / m and q / m − 1, which is exact where q and m are near each other;
    finite at q = 0, NaN where the difference is."""
    quotient = tl.maximum(q * inverse, TINY)
    return tl.where(tl.abs(difference) >= 0.125, log2_fast(quotient), log2_near(difference))


@triton.jit
def log2_shares(q, p, mix):
    """log₂(q / m) and log₂(p / m) for m = mix p + (1 − mix) q; here and below `mix` is both of
    its `shares`.

    Dividing by a square root twice costs less than dividing once: the hardware has its reciprocal.
    """
    of_p, of_q = mix
    root = tl.rsqrt(tl.maximum(tl.fma(p, of_p, of_q * q), TINY))
    inverse = root * root
    apart = (p - q) * inverse
    return log2_quotient(q, inverse, -of_p * apart), log2_quotient(p, inverse, of_q * apart)


@triton.jit
def log2_ratios(
    s, t, q, p, c, softmaxes, mix, DIVERGENCE: tl.constexpr, ONE_TILE: tl.constexpr
):  # fmt: skip
    """What the slopes of student and teacher ask for: log₂(q / p) and its negative; for js,
    log₂(q / m) and log₂(p / m)."""
    if DIVERGENCE == JS:
        of_student, of_teacher = log2_shares(q, p, mix)
    else:
        of_student = log2_odds(s, t, c, softmaxes, ONE_TILE)
        of_teacher = -of_student
    return of_student, of_teacher


@triton.jit
def signed(x, y):
    """y sgn(x), and 0 where x is NaN."""
    return tl.where(x > 0, y, tl.where(x < 0, -y, 0.0))


@triton.jit
def spread(
    s,
    t,
    c,
    softmaxes,
    mix,
    DIVERGENCE: tl.constexpr,
    FOR_TEACHER: tl.constexpr,
    ONE_TILE: tl.constexpr,
):
    """A lane's part of the second sweep's sums: Σ q ∂D/∂q, Σ p ∂D/∂p (for tv only FOR_TEACHER, who
    alone asks for it), and D for tv."""
    m_s, z_s, m_t, z_t, _z_1, _ratio = softmaxes
    if DIVERGENCE == JS:
        _x_s, _x_t, q, p = soften(s, t, c, softmaxes, ONE_TILE)
        share_s, share_t = log2_shares(q, p, mix)
        dot_s = tl.sum(q * share_s, 1) * LN_2
        dot_t = tl.sum(p * share_t, 1) * LN_2
        soft = dot_s * 0
    else:
        v = tl.exp2(exponent(s, c, m_s, ONE_TILE))
        u = tl.exp2(exponent(t, c, m_t, ONE_TILE))
        odds = log2_odds(s, t, c, softmaxes, ONE_TILE)
        # 0, or the NaN of a row, which no sign keeps, or of one where a side is masked whole
        unknown = (1 / z_s + 1 / z_t) * 0
        dot_s = tl.sum(signed(odds, v), 1) / z_s + unknown
        dot_t = dot_s * 0
        if FOR_TEACHER:
            dot_t = tl.sum(signed(-odds, u), 1) / z_t + unknown
        soft = 0.5 * tl.sum(tl.abs(less(v, u, z_s, z_t)), 1) / z_s
    return dot_s, dot_t, soft


@triton.jit
def less(v, u, z_s, z_t):
    """z_s (q − p), in one operation, and 0 between equals."""
    return tl.fma(u, -tl.where(z_s == z_t, 1.0, z_s / z_t), v)


@triton.jit
def spread_finish(dot_s, dot_t, soft, z_s, z_t, mix, DIVERGENCE: tl.constexpr):
    """D of a row from the sums of `spread` over all of it."""
    if DIVERGENCE == JS:
        soft = mix[0] * dot_t + mix[1] * dot_s
        soft = tl.where(soft < 0, 0.0, soft)
    return tl.where((z_s == 0) | (z_t == 0), float("nan"), soft)


@triton.jit
def slope(q, p, ratio, dot, mix, DIVERGENCE: tl.constexpr):
    """∂D/∂(β z_s) of each class: formulas in `kdlab.divergences.slope`. `ratio`: see
    `log2_ratios`."""
    if DIVERGENCE == KL:
        out = q - p
    elif DIVERGENCE == REVERSE_KL:
        out = tl.where(q == 0, q, q * tl.fma(ratio, tl.full((), LN_2, q.dtype), -dot))
    elif DIVERGENCE == JS:
        out = q * tl.fma(ratio, mix[1] * LN_2, -mix[1] * dot)
    elif DIVERGENCE == MSE:
        out = 2 * q * ((q - p) - dot)
    else:
        out = 0.5 * q * (signed(ratio, 1.0) - dot)
    return out


@triton.jit
def slope_teacher(q, p, ratio, dot, mix, DIVERGENCE: tl.constexpr):
    """∂D/∂(β z_t) of each class: `slope` with student and teacher exchanged."""
    mix = mix[1], mix[0]
    if DIVERGENCE == KL:
        out = slope(p, q, ratio, dot, mix, REVERSE_KL)
    elif DIVERGENCE == REVERSE_KL:
        out = slope(p, q, ratio, dot, mix, KL)
    else:
        out = slope(p, q, ratio, dot, mix, DIVERGENCE)
    return out


@triton.jit
def student_gradient(
    s,
    t,
    g,
    beta,
    softmaxes,
    dot_s,
    label_weight,
    mix,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ONE_TILE: tl.constexpr,
):
    """g ∂(row loss)/∂z_s of one tile, as if none of it were the label: see `less_label`.
    β comes from the chain rule, and T² makes it T. `label_weight` is both of its `shares`."""
    m_s, z_s, m_t, z_t, z_1, _ratio = softmaxes
    c = beta * LOG2_E
    out = tl.zeros_like(s)
    if SOFT:
        scale = g * label_weight[1]
        if DIVERGENCE == MSE_LOGITS:  # (of +∞ in both the loss is NaN: `minus`, which costs more)
            out = 2 * scale * tl.where(s == t, 0.0, s - t)
        else:
            scale *= 1 / beta if TEMPERATURE_SCALING else beta
            if DIVERGENCE == KL:
                v = tl.exp2(exponent(s, c, m_s, ONE_TILE))
                u = tl.exp2(exponent(t, c, m_t, ONE_TILE))
                out = scale / z_s * less(v, u, z_s, z_t)
            elif DIVERGENCE == TV:
                v = tl.exp2(exponent(s, c, m_s, ONE_TILE))
                odds = log2_odds(s, t, c, softmaxes, ONE_TILE)
                out = 0.5 * scale / z_s * v * (signed(odds, 1.0) - dot_s)
            else:
                _x_s, _x_t, q, p = soften(s, t, c, softmaxes, ONE_TILE)
                ratio, _teacher = log2_ratios(
                    s, t, q, p, c, softmaxes, mix, DIVERGENCE, ONE_TILE
                )  # fmt: skip
                out = scale * slope(q, p, ratio, dot_s, mix, DIVERGENCE)
    if HARD:
        out = tl.fma(tl.exp2(exponent(s, LOG2_E, m_s, ONE_TILE)), g * label_weight[0] / z_1, out)
    return out


@triton.jit
def less_label(gradient, is_label, g, label_weight):
    """softmax(z_s) − 1 at the label, in cross-entropy's share of the gradient."""
    return tl.where(is_label, gradient - g * label_weight[0], gradient)
