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
    exponent,
    log1p,
)


@triton.jit
def as_number(x, ACC: tl.constexpr):
    """A float argument as ACC: kernels declare α and mix fp64, since Triton cuts floats to fp32."""
    return tl.full((), x, ACC)


@triton.jit
def soften(s, t, c, m_s, z_s, m_t, z_t, ONE_TILE: tl.constexpr):
    """x_s, x_t (to base 2), q, p and log q − log p (NaN where both are masked) of one tile.

    One logarithm of the quotient, which is near 1 for a student near its teacher: the difference of
    two logarithms would have the rounding of each.
    """
    x_s = exponent(s, c, m_s, ONE_TILE)
    x_t = exponent(t, c, m_t, ONE_TILE)
    r_s = 1 / z_s
    q = tl.exp2(x_s) * r_s
    p = tl.exp2(x_t) * (1 / z_t)
    apart = tl.where(z_t == z_s, 0.0, tl.log(z_t * r_s))
    return x_s, x_t, q, p, (x_s - x_t) * LN_2 + apart


@triton.jit
def log_mixture(q, p, mix):
    """log(m / q) for m = mix p + (1 − mix) q: log1p of the relative difference; finite at q = 0.

    1e-37 stands for the smallest normal number, so that the quotient cannot overflow. Dividing by a
    square root twice costs less than dividing once: the hardware has its reciprocal.
    """
    root = tl.rsqrt(tl.maximum(q, 1e-37))
    return log1p(mix * (p - q) * root * root)


@triton.jit
def sign(x):
    """−1, 0 or 1; NaN stays NaN."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))


@triton.jit
def spread(q, p, mix, DIVERGENCE: tl.constexpr):
    """A lane's part of the second sweep's sums: Σ q ∂D/∂q and Σ p ∂D/∂p, and D for tv."""
    if DIVERGENCE == JS:
        dot_s = -tl.sum(q * log_mixture(q, p, mix), 1)
        dot_t = -tl.sum(p * log_mixture(p, q, 1 - mix), 1)
        soft = dot_s * 0
    else:
        dot_s = tl.sum(q * sign(q - p), 1)
        dot_t = tl.sum(p * sign(p - q), 1)
        soft = 0.5 * tl.sum(tl.abs(q - p), 1)
    return dot_s, dot_t, soft


@triton.jit
def spread_finish(dot_s, dot_t, soft, z_s, z_t, mix, DIVERGENCE: tl.constexpr):
    """D of a row from the sums of `spread` over all of it."""
    if DIVERGENCE == JS:
        soft = mix * dot_t + (1 - mix) * dot_s
        soft = tl.where(soft < 0, 0.0, soft)
    return tl.where((z_s == 0) | (z_t == 0), float("nan"), soft)


@triton.jit
def slope(q, p, log_ratio, dot, mix, DIVERGENCE: tl.constexpr):
    """∂D/∂(β z_s) of each class: formulas in `kdlab.divergences.slope`."""
    if DIVERGENCE == KL:
        out = q - p
    elif DIVERGENCE == REVERSE_KL:
        out = tl.where(q == 0, q, q * (log_ratio - dot))
    elif DIVERGENCE == JS:
        out = (1 - mix) * q * (-log_mixture(q, p, mix) - dot)
    elif DIVERGENCE == MSE:
        out = 2 * q * ((q - p) - dot)
    else:
        out = 0.5 * q * (sign(q - p) - dot)
    return out


@triton.jit
def slope_teacher(q, p, log_ratio, dot, mix, DIVERGENCE: tl.constexpr):
    """∂D/∂(β z_t) of each class: `slope` with student and teacher exchanged."""
    if DIVERGENCE == KL:
        out = slope(p, q, -log_ratio, dot, 1 - mix, REVERSE_KL)
    elif DIVERGENCE == REVERSE_KL:
        out = slope(p, q, -log_ratio, dot, 1 - mix, KL)
    else:
        out = slope(p, q, -log_ratio, dot, 1 - mix, DIVERGENCE)
    return out


@triton.jit
def student_gradient(
    s,
    t,
    g,
    beta,
    m_s,
    z_s,
    m_t,
    z_t,
    dot_s,
    z_1,
    label_weight,
    mix,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ONE_TILE: tl.constexpr,
):
    """g ∂(row loss)/∂z_s of one tile, as if none of it were the label: see `less_label`.
    β comes from the chain rule, and T² makes it T."""
    out = tl.zeros_like(s)
    if SOFT:
        scale = g * (1 - label_weight)
        if DIVERGENCE == MSE_LOGITS:
            out = 2 * scale * tl.where(s == t, 0.0, s - t)
        else:
            scale *= 1 / beta if TEMPERATURE_SCALING else beta
            if DIVERGENCE == KL:
                # q − p = (v − u z_s / z_t) / z_s: in two operations, and 0 between equals.
                v = tl.exp2(exponent(s, beta * LOG2_E, m_s, ONE_TILE))
                u = tl.exp2(exponent(t, beta * LOG2_E, m_t, ONE_TILE))
                out = scale / z_s * tl.fma(u, -tl.where(z_s == z_t, 1.0, z_s / z_t), v)
            else:
                _x_s, _x_t, q, p, log_ratio = soften(
                    s, t, beta * LOG2_E, m_s, z_s, m_t, z_t, ONE_TILE
                )
                out = scale * slope(q, p, log_ratio, dot_s, mix, DIVERGENCE)
    if HARD:
        out = tl.fma(tl.exp2(exponent(s, LOG2_E, m_s, ONE_TILE)), g * label_weight / z_1, out)
    return out


@triton.jit
def less_label(gradient, is_label, g, label_weight):
    """softmax(z_s) − 1 at the label, in cross-entropy's share of the gradient."""
    return tl.where(is_label, gradient - g * label_weight, gradient)
