"""A row's softened divergence as a few running sums that combine associatively.

With m_s, m_t the maxima of the logits seen so far, v = exp(β(z_s − m_s)), u = exp(β(z_t − m_t)) and
w = u − v, a state is

    m_s, z_s = Σ v     m_t, z_t = Σ u     w = Σ (u − v)                       both softmaxes
    a   = Σ u (β(z_t − m_t) − β(z_s − m_s))                                   kl
        = Σ v (β(z_s − m_s) − β(z_t − m_t))                                   reverse_kl
    uu  = Σ u²    vv = Σ v²    ww = Σ w²    wv = Σ w v                        mse
    sq  = Σ (z_t − z_s)²                                                      mse_logits
    z_1 = Σ exp(z_s − m_s)                                                    cross-entropy at T = 1

`tile` makes the state of one tile, `combine` joins two: when a maximum moves, v shrinks by
c_s = exp(β(m_s − m_s')) and u by c_t, and every sum is rescaled by what follows from that. The
empty row is `empty`. That is a monoid, so the order of joining is free. The loss comes from sums of
w rather than from the difference of two large sums, because a student near its teacher has w ≈ 0
and log Z_s − log Z_t or Σp² − 2Σpq + Σq² would cancel away every digit.

Online softmax: Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018, algorithm 3.
"""

import triton
import triton.language as tl

KL = tl.constexpr(0)
MSE = tl.constexpr(1)
MSE_LOGITS = tl.constexpr(2)
REVERSE_KL = tl.constexpr(3)
JS = tl.constexpr(4)  # js and tv need p and q, so the normalisers first: a second sweep
TV = tl.constexpr(5)

FIELDS = ("m_s", "z_s", "m_t", "z_t", "w", "a", "uu", "vv", "ww", "wv", "sq", "z_1")


@triton.jit
def finite_max(m):
    """The maximum to subtract: 0 in place of −inf, so that exp(−inf − m) is 0 and never NaN."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit
def empty(ACC: tl.constexpr):
    """The state of no classes at all: `combine(empty, x)` is x."""
    zero = tl.zeros((), ACC)
    low = zero - float("inf")
    return low, zero, low, zero, zero, zero, zero, zero, zero, zero, zero, zero


@triton.jit
def weighted(weight, x, y):
    """Σ weight (x − y), weight = exp(x): what the first never says contributes nothing, and what
    only the second never says is infinitely far."""
    far = tl.where(y == float("-inf"), float("inf"), weight * (x - y))
    return tl.sum(tl.where(x == float("-inf"), 0.0, far), 0)


@triton.jit
def tile(s, t, beta, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """The state of one tile: s and t are its logits, −inf past the end of the row."""
    m_s = tl.max(s, 0)
    m_t = tl.max(t, 0)
    zero = tl.zeros((), s.dtype)
    z_s, z_t, w = zero, zero, zero
    a, uu, vv, ww, wv, sq, z_1 = zero, zero, zero, zero, zero, zero, zero
    y_s = s - finite_max(m_s)
    if HARD:
        z_1 = tl.sum(tl.exp(y_s), 0)
    if SOFT:
        if DIVERGENCE == MSE_LOGITS:
            gap = tl.where(t == s, 0.0, t - s)  # −inf in both is no gap
            sq = tl.sum(gap * gap, 0)
        else:
            x_s = beta * y_s
            x_t = beta * (t - finite_max(m_t))
            v = tl.exp(x_s)
            u = tl.exp(x_t)
            z_s = tl.sum(v, 0)
            z_t = tl.sum(u, 0)
            w = tl.sum(u - v, 0)
            if DIVERGENCE == KL:
                a = weighted(u, x_t, x_s)
            elif DIVERGENCE == REVERSE_KL:
                a = weighted(v, x_s, x_t)
            elif DIVERGENCE == MSE:
                uu = tl.sum(u * u, 0)
                vv = tl.sum(v * v, 0)
                ww = tl.sum((u - v) * (u - v), 0)
                wv = tl.sum((u - v) * v, 0)
    return m_s, z_s, m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def rescaled(x, m_s, m_t, beta, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """The sums of state x about the new maxima m_s ≥ x's and m_t ≥ x's (neither −inf)."""
    x_m_s, z_s, x_m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1 = x
    if HARD:
        z_1 = z_1 * tl.exp(x_m_s - m_s)
    if SOFT and DIVERGENCE != MSE_LOGITS:
        shift_s = beta * (x_m_s - m_s)
        shift_t = beta * (x_m_t - m_t)
        c_s = tl.exp(shift_s)
        c_t = tl.exp(shift_t)
        slip = c_t - c_s
        if DIVERGENCE == KL or DIVERGENCE == REVERSE_KL:
            # A tile that one side masks whole has no shift to speak of: its a is 0 or +inf already.
            masked = (x_m_s == float("-inf")) | (x_m_t == float("-inf"))
            if DIVERGENCE == KL:
                moved = c_t * (a + tl.where(masked, 0.0, (shift_t - shift_s) * z_t))
            else:
                moved = c_s * (a + tl.where(masked, 0.0, (shift_s - shift_t) * z_s))
            a = tl.where(a == float("inf"), a, moved)
        elif DIVERGENCE == MSE:
            ww = c_t * c_t * ww + 2 * c_t * slip * wv + slip * slip * vv
            wv = c_s * (c_t * wv + slip * vv)
            uu = c_t * c_t * uu
            vv = c_s * c_s * vv
        w = c_t * w + slip * z_s
        z_s = c_s * z_s
        z_t = c_t * z_t
    return z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def combine(x, y, beta, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """The state of two disjoint sets of classes together, from the state of each."""
    m_s = tl.maximum(x[0], y[0])
    m_t = tl.maximum(x[2], y[2])
    f_s = finite_max(m_s)
    f_t = finite_max(m_t)
    z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1 = rescaled(x, f_s, f_t, beta, DIVERGENCE, SOFT, HARD)
    z_s2, z_t2, w2, a2, uu2, vv2, ww2, wv2, sq2, z_12 = rescaled(
        y, f_s, f_t, beta, DIVERGENCE, SOFT, HARD
    )
    return (
        m_s,
        z_s + z_s2,
        m_t,
        z_t + z_t2,
        w + w2,
        a + a2,
        uu + uu2,
        vv + vv2,
        ww + ww2,
        wv + wv2,
        sq + sq2,
        z_1 + z_12,
    )


@triton.jit
def log1p(x):
    """log(1 + x) without losing a small x (Kahan): the rounding of 1 + x is divided out again."""
    y = 1.0 + x
    return tl.where(y == 1.0, x, tl.log(y) * (x / tl.where(y == 1.0, 1.0, y - 1.0)))


@triton.jit
def finish(state, DIVERGENCE: tl.constexpr):
    """D(p, q) of a whole row, Σ q ∂D/∂q and Σ p ∂D/∂p, which the gradients subtract.

    Not for js and tv: their sums are `second.spread`.
    """
    _m_s, z_s, _m_t, z_t, w, a, uu, vv, ww, wv, sq, _z_1 = state
    dot_s = z_s * 0
    dot_t = z_s * 0
    if DIVERGENCE == MSE_LOGITS:
        soft = sq
    else:
        close = (w < 0.5 * z_t) & (-w < 0.5 * z_t)
        if DIVERGENCE == MSE:
            r = w / z_s
            near = (ww - 2 * wv * r + vv * r * r) / (z_t * z_t)
            uv = wv + vv
            apart = uu / (z_t * z_t) - 2 * uv / (z_t * z_s) + vv / (z_s * z_s)
            soft = tl.where(close, near, apart)
            soft = tl.where(soft < 0, 0.0, soft)
            dot_s = tl.where(
                close, (vv * r - wv) / (z_s * z_t), vv / (z_s * z_s) - uv / (z_s * z_t)
            )
            # Σ p (p − q)
            dot_t = tl.where(
                close,
                ((ww + wv) - r * uv) / (z_t * z_t),
                uu / (z_t * z_t) - uv / (z_t * z_s),
            )
        else:
            log_ratio = tl.where(close, log1p(-w / z_t), tl.log(z_s) - tl.log(z_t))
            if DIVERGENCE == KL:
                soft = a / z_t + log_ratio
            else:
                soft = a / z_s - log_ratio
            soft = tl.where(soft < 0, 0.0, soft)  # rounding, where p = q; keeps NaN
            if DIVERGENCE == KL:
                dot_t = soft
            else:
                dot_s = soft
        soft = tl.where((z_s == 0) | (z_t == 0), float("nan"), soft)  # nothing finite in the row
    return soft, dot_s, dot_t
