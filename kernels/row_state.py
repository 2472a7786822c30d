"""A row's softened divergence as a few running sums that combine associatively.

With c = β log₂ e (so that 2^(c z) = e^(β z): the hardware's exponential is to base 2), m_s, m_t the
maxima of the logits seen so far, v = 2^(c(z_s − m_s)) and u = 2^(c(z_t − m_t)), a state is

    m_s, z_s = Σ v     m_t, z_t = Σ u     w = Σ (u − v)                       both softmaxes
    a   = Σ u (c(z_t − m_t) − c(z_s − m_s))                                   kl
        = Σ v (c(z_s − m_s) − c(z_t − m_t))                                   reverse_kl
    a   = Σ u v   uu = Σ u²    vv = Σ v²    ww = Σ (u − v)²    wv = Σ (u − v) v    mse
    sq  = Σ (z_t − z_s)²                                                      mse_logits
    z_1 = Σ exp(z_s − m_s)                                                    cross-entropy at T = 1

`combine` joins two: when a maximum moves, v shrinks by c_s = 2^(c(m_s − m_s')) and u by c_t, and
every sum is rescaled by what follows from that. The empty row is `empty`. That is a monoid, so the
order of joining is free, and its elements may be anything: here they are parts of a row, which
programs share. Within a part m_s and m_t stay as they are (`gather`). They need not be its largest
logits: those of one of its tiles will do, unless a later one is so much larger that something
overflows (`plain`). A part whose logits are all far below zero, as −10⁹ that stands for a mask, is
as good as masked (`settle`), and a row whose largest logit is as far away gives NaN (`in_reach`).

The loss comes from sums of u − v rather than from the difference of two large sums, because a
student near its teacher has u ≈ v and log Z_s − log Z_t or Σp² − 2Σpq + Σq² would cancel away every
digit.

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
DIVERGENCE = {
    "kl": KL,
    "reverse_kl": REVERSE_KL,
    "js": JS,
    "mse": MSE,
    "mse_logits": MSE_LOGITS,
    "tv": TV,
}

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
LIMIT = tl.constexpr(2.0**60)

FIELDS = ("m_s", "z_s", "m_t", "z_t", "w", "a", "uu", "vv", "ww", "wv", "sq", "z_1")


@triton.jit
def finite_max(m):
    """The maximum to subtract: 0 in place of −inf, so that exp(−inf − m) is 0 and never NaN."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit
def farthest(ACC: tl.constexpr):
    """How far from zero c m may be so that 2^(c z − c m), c m rounded, is near 1 at z = m."""
    return tl.full((), 2.0**58 if ACC == tl.float64 else 2.0**29, ACC)


@triton.jit
def settle(state, c, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """A part's state, in which a side that is all too far below zero has nothing to say.

    Its powers of two mean nothing then. If the row has a larger logit elsewhere, they are 0 beside
    that one's. If it has not, nothing is left of the row: NaN. But for kl the student's maximum
    stays where there is a teacher, since how far below it is belongs to a (infinitely, if c m
    overflows); reverse_kl likewise.
    """
    m_s, z_s, m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1 = state
    low = -farthest(z_s.dtype)
    if HARD:
        z_1 = tl.where(m_s * LOG2_E < low, 0.0, z_1)
    if SOFT and DIVERGENCE != MSE_LOGITS:
        no_s = m_s * c < low
        no_t = m_t * c < low
        z_s = tl.where(no_s, 0.0, z_s)
        z_t = tl.where(no_t, 0.0, z_t)
        w = tl.where(no_s, z_t, tl.where(no_t, -z_s, w))
        inf = float("inf")
        if DIVERGENCE == KL:
            overflow = m_s * c == -inf
            a = tl.where(overflow, inf, a)
            a = tl.where(no_t, 0.0, a)
            m_s = tl.where((no_s & no_t) | overflow, -inf, m_s)
            m_t = tl.where(no_t, -inf, m_t)
        elif DIVERGENCE == REVERSE_KL:
            a = tl.where(m_t * c == -inf, inf, a)
            a = tl.where(no_s, 0.0, a)
            m_t = tl.where((no_s & no_t) | (m_t * c == -inf), -inf, m_t)
            m_s = tl.where(no_s, -inf, m_s)
        else:
            m_s = tl.where(no_s, -inf, m_s)
            m_t = tl.where(no_t, -inf, m_t)
        if DIVERGENCE == MSE:
            a = tl.where(no_s | no_t, 0.0, a)
            uu = tl.where(no_t, 0.0, uu)
            vv = tl.where(no_s, 0.0, vv)
            ww = tl.where(no_s, uu, tl.where(no_t, vv, ww))
            wv = tl.where(no_s, 0.0, tl.where(no_t, -vv, wv))
    return m_s, z_s, m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def in_reach(state, c, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """A row's state, with NaN for its normalisers where a maximum is too far from zero: by half of
    what a part may be, so that no part that counts was left out."""
    m_s, z_s, m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1 = state
    limit = 0.5 * farthest(z_s.dtype)
    if HARD:
        z_1 = tl.where(tl.abs(finite_max(m_s) * LOG2_E) > limit, float("nan"), z_1)
    if SOFT and DIVERGENCE != MSE_LOGITS:
        far = tl.abs(finite_max(m_s) * c) > limit
        far = far | (tl.abs(finite_max(m_t) * c) > limit)
        z_s = tl.where(far, float("nan"), z_s)
        z_t = tl.where(far, float("nan"), z_t)
    return m_s, z_s, m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def empty(LANES: tl.constexpr, ACC: tl.constexpr):
    """The state of no classes at all, in each lane: `combine(empty, x)` is x."""
    zero = tl.zeros((LANES,), ACC)
    low = zero - float("inf")
    return low, zero, low, zero, zero, zero, zero, zero, zero, zero, zero, zero


@triton.jit
def exponent(z, c, m, ONE_TILE: tl.constexpr):
    """c (z − m). In longer rows as c z − c m, one instruction, for which m stands for (c m) / c as
    rounded; where the row is one tile, exactly 0 at its maximum, so that what follows from a
    probability of 1 does too."""
    c = tl.full((), c, z.dtype)
    if ONE_TILE:
        out = c * (z - m)
    else:
        out = tl.fma(z, c, -(m * c))
    return out


@triton.jit
def minus(x, y):
    """x − y, and 0 where a class is masked in both (−∞); NaN where both are +∞."""
    return tl.where((x == y) & (x < float("inf")), 0.0, x - y)


@triton.jit
def weighted(weight, x, y, CAREFUL: tl.constexpr):
    """Σ weight (x − y), weight = 2^x. CAREFUL: what the first never says (x = −∞) contributes
    nothing, and what only the second never says is infinitely far; else either may be NaN."""
    gap = weight * (x - y)
    if CAREFUL:
        gap = tl.where(y == float("-inf"), float("inf"), gap)
        gap = tl.where(x == float("-inf"), 0.0, gap)
    return tl.sum(gap, 1)


@triton.jit
def gather(
    x,
    s,
    t,
    m_s,
    m_t,
    c,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    CAREFUL: tl.constexpr,
    ONE_TILE: tl.constexpr,
):
    """Sums x, ten a lane, and a tile of logits more, (lanes, k), about m_s and m_t (not −∞).

    CAREFUL: logits may be −∞. Else a and sq may be NaN then; the other sums are right all the same.
    """
    z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1 = x
    if HARD:
        z_1 += tl.sum(tl.exp2(exponent(s, LOG2_E, m_s, ONE_TILE)), 1)
    if SOFT:
        if DIVERGENCE == MSE_LOGITS:
            gap = minus(t, s) if CAREFUL else t - s
            sq += tl.sum(gap * gap, 1)
        else:
            x_s = exponent(s, c, m_s, ONE_TILE)
            x_t = exponent(t, c, m_t, ONE_TILE)
            v = tl.exp2(x_s)
            u = tl.exp2(x_t)
            z_s += tl.sum(v, 1)
            z_t += tl.sum(u, 1)
            w += tl.sum(u - v, 1)
            if DIVERGENCE == KL:
                a += weighted(u, x_t, x_s, CAREFUL)
            elif DIVERGENCE == REVERSE_KL:
                a += weighted(v, x_s, x_t, CAREFUL)
            elif DIVERGENCE == MSE:
                a += tl.sum(u * v, 1)
                uu += tl.sum(u * u, 1)
                vv += tl.sum(v * v, 1)
                ww += tl.sum((u - v) * (u - v), 1)
                wv += tl.sum((u - v) * v, 1)
    return z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def maxima(s, t):
    """The largest logit of a tile, (lanes, k), of each side."""
    return largest(tl.max(s, 1), tl.max(t, 1))


@triton.jit
def largest(a, b):
    """The largest of each over the lanes; at once, as in `across`."""
    if a.shape[0] > 32:
        a, b = tl.split(tl.max(tl.join(a, b), 0))
    else:
        a, b = tl.max(a, 0), tl.max(b, 0)
    return a, b


@triton.jit
def no_sums(LANES: tl.constexpr, ACC: tl.constexpr):
    zero = tl.zeros((LANES,), ACC)
    return zero, zero, zero, zero, zero, zero, zero, zero, zero, zero


@triton.jit
def single(s, t, c, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """The state of a row that is one tile, (lanes, k): its maxima are known before the sums."""
    m_s, m_t = maxima(s, t)
    sums = gather(no_sums(s.shape[0], s.dtype), s, t, finite_max(m_s), finite_max(m_t), c,
                  DIVERGENCE, SOFT, HARD, True, True)  # fmt: skip
    return with_maxima(m_s, m_t, total(sums, DIVERGENCE, SOFT, HARD))


@triton.jit
def plain(state, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """Whether sums that were not gathered with care, and not about the largest logits, will do.

    About a logit that is not the largest they are as exact, until something overflows: squares do
    above 2¹²⁷. What −∞ does to them is NaN in a; where there is no a, nothing needs care.
    """
    m_s, z_s, m_t, z_t, _w, a, _uu, _vv, _ww, _wv, sq, z_1 = state
    good = True
    if HARD:
        good = (m_s > float("-inf")) & (z_1 < LIMIT)
    if SOFT:
        if DIVERGENCE == MSE_LOGITS:
            good = good & (sq == sq)
        else:
            good = good & (m_s > float("-inf")) & (m_t > float("-inf"))
            good = good & (z_s < LIMIT) & (z_t < LIMIT) & (a == a)
    return good


@triton.jit
def with_maxima(m_s, m_t, sums):
    """A state from its maxima and its ten sums."""
    z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1 = sums
    return m_s, z_s, m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def total(sums, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """The ten sums over all lanes (in a tree); those that nobody asks for are 0."""
    z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1 = sums
    none = tl.zeros((), z_s.dtype)
    if SOFT and DIVERGENCE != MSE_LOGITS:
        z_s, z_t, w, a = across(z_s, z_t, w, a)
    else:
        z_s, z_t, w, a = none, none, none, none
    if SOFT and DIVERGENCE == MSE:
        uu, vv, ww, wv = across(uu, vv, ww, wv)
    else:
        uu, vv, ww, wv = none, none, none, none
    if SOFT and DIVERGENCE == MSE_LOGITS:
        sq = tl.sum(sq, 0)
    else:
        sq = none
    if HARD:
        z_1 = tl.sum(z_1, 0)
    else:
        z_1 = none
    return z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def across(a, b, c, d):
    """Four sums over the lanes; at once, where warps would wait for each other for every sum."""
    if a.shape[0] > 32:
        ab, cd = tl.split(tl.sum(tl.join(tl.join(a, b), tl.join(c, d)), 0))
        a, b = tl.split(ab)
        c, d = tl.split(cd)
    else:
        a, b, c, d = tl.sum(a, 0), tl.sum(b, 0), tl.sum(c, 0), tl.sum(d, 0)
    return a, b, c, d


@triton.jit
def rescaled(x, m_s, m_t, c, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """The sums of state x about the new maxima m_s ≥ x's and m_t ≥ x's (neither −inf)."""
    x_m_s, z_s, x_m_t, z_t, w, a, uu, vv, ww, wv, sq, z_1 = x
    if HARD:
        shift = x_m_s * LOG2_E - m_s * LOG2_E
        shift = tl.where(x_m_s == float("-inf"), x_m_s, shift)
        z_1 = z_1 * tl.exp2(tl.where(x_m_s == m_s, 0.0, shift))  # lowest numbers overflow
    if SOFT and DIVERGENCE != MSE_LOGITS:
        shift_s = c * x_m_s - c * m_s
        shift_t = c * x_m_t - c * m_t
        c_s = tl.exp2(shift_s)
        c_t = tl.exp2(shift_t)
        slip = c_t - c_s
        if DIVERGENCE == KL or DIVERGENCE == REVERSE_KL:
            # A part that one side masks whole has no shift to speak of: its a is 0 or +inf already.
            # Nor has one of which nothing is left, however far the other side's maximum is.
            masked = (x_m_s == float("-inf")) | (x_m_t == float("-inf"))
            if DIVERGENCE == KL:
                masked = masked | (c_t == 0)
                moved = c_t * (a + tl.where(masked, 0.0, (shift_t - shift_s) * z_t))
            else:
                masked = masked | (c_s == 0)
                moved = c_s * (a + tl.where(masked, 0.0, (shift_s - shift_t) * z_s))
            a = tl.where(a == float("inf"), a, moved)
        elif DIVERGENCE == MSE:
            # As for w below; Σ (u − v) u = uu − a. But a − vv has fewer digits than wv unless v is
            # so large that they are far apart.
            large = vv > 4 * uu
            by_v = c_t * c_t * ww + 2 * c_t * slip * wv + slip * slip * vv
            by_u = c_s * c_s * ww + 2 * c_s * slip * (uu - a) + slip * slip * uu
            ww = tl.where(large, by_u, by_v)
            wv = c_s * tl.where(large, c_t * a - c_s * vv, c_t * wv + slip * vv)
            a = c_s * c_t * a
            uu = c_t * c_t * uu
            vv = c_s * c_s * vv
        # c_t u − c_s v = c_t (u − v) + slip v = c_s (u − v) + slip u: by the smaller of the two, so
        # that nothing large cancels.
        w = tl.where(z_s > z_t, c_s * w + slip * z_t, c_t * w + slip * z_s)
        z_s = c_s * z_s
        z_t = c_t * z_t
    return z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1


@triton.jit
def combine(x, y, c, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """The state of two disjoint sets of classes together, from the state of each, lane by lane."""
    m_s = tl.maximum(x[0], y[0])
    m_t = tl.maximum(x[2], y[2])
    f_s = finite_max(m_s)
    f_t = finite_max(m_t)
    z_s, z_t, w, a, uu, vv, ww, wv, sq, z_1 = rescaled(x, f_s, f_t, c, DIVERGENCE, SOFT, HARD)
    z_s2, z_t2, w2, a2, uu2, vv2, ww2, wv2, sq2, z_12 = rescaled(
        y, f_s, f_t, c, DIVERGENCE, SOFT, HARD
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
def collapse(x, c, DIVERGENCE: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr):
    """One state from many, in lanes, which are joined in a tree."""
    m_s, m_t = largest(x[0], x[2])
    sums = rescaled(x, finite_max(m_s), finite_max(m_t), c, DIVERGENCE, SOFT, HARD)
    return with_maxima(m_s, m_t, total(sums, DIVERGENCE, SOFT, HARD))


@triton.jit
def log1p(x):
    """log(1 + x) without losing a small x: what rounding y = 1 + x cut off is added again, over y.

    2 − y stands for 1/y: near 1 it is that, below ½ nothing was cut off, above 2 it hardly counts.
    """
    y = 1.0 + x
    return tl.log(y) + (x - (y - 1.0)) * tl.maximum(2.0 - y, 0.0)


@triton.jit
def log_ratio(state):
    """log(Z_t / Z_s); from w, unless the two are far from each other."""
    z_s, z_t, w = state[1], state[3], state[4]
    near = -log1p(-w / z_t)
    return tl.where(close(w, z_t), near, tl.log(z_t) - tl.log(z_s))


@triton.jit
def close(w, z_t):
    return (w < 0.5 * z_t) & (-w < 0.5 * z_t)


@triton.jit
def finish(state, DIVERGENCE: tl.constexpr):
    """D(p, q) of a whole row, Σ q ∂D/∂q and Σ p ∂D/∂p, which the gradients subtract.

    Not for js and tv: their sums are those of `softened.spread`.
    """
    _m_s, z_s, _m_t, z_t, w, a, uu, vv, ww, wv, sq, _z_1 = state
    dot_s = z_s * 0
    dot_t = z_s * 0
    if DIVERGENCE == MSE_LOGITS:
        soft = sq
    else:
        if DIVERGENCE == MSE:
            near_row = close(w, z_t)
            r = w / z_s
            near = (ww - 2 * wv * r + vv * r * r) / (z_t * z_t)
            apart = uu / (z_t * z_t) - 2 * a / (z_t * z_s) + vv / (z_s * z_s)
            soft = tl.where(near_row, near, apart)
            soft = tl.where(soft < 0, 0.0, soft)
            dot_s = tl.where(
                near_row, (vv * r - wv) / (z_s * z_t), vv / (z_s * z_s) - a / (z_s * z_t)
            )
            # Σ p (p − q)
            dot_t = tl.where(
                near_row,
                ((ww + wv) - r * a) / (z_t * z_t),
                uu / (z_t * z_t) - a / (z_t * z_s),
            )
        else:
            if DIVERGENCE == KL:
                soft = a * LN_2 / z_t - log_ratio(state)
            else:
                soft = a * LN_2 / z_s + log_ratio(state)
            soft = tl.where(soft < 0, 0.0, soft)  # rounding, where p = q; keeps NaN
            if DIVERGENCE == KL:
                dot_t = soft
            else:
                dot_s = soft
        soft = tl.where((z_s == 0) | (z_t == 0), float("nan"), soft)  # nothing finite in the row
    return soft, dot_s, dot_t
