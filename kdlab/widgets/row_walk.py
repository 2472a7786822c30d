"""The online row state of `kernels/row_state.py` for kl, in plain Python: to be watched, not fast.

With m_s, m_t the maxima of the classes seen so far, v = exp(β(z_s − m_s)), u = exp(β(z_t − m_t)):

    z_s = Σ v    z_t = Σ u    w = Σ (u − v)    a = Σ u (β(z_t − m_t) − β(z_s − m_s))

`tile` makes the state of a few classes and `combine` joins two states: when a maximum moves to m',
v shrinks by c_s = exp(β(m_s − m_s')), u by c_t, and the sums follow. `finish` gives KL(p ‖ q).
All in float64. Triton is not needed; the names are the kernel's.

Online softmax: Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018, algorithm 3.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

INF = math.inf


class RowState(NamedTuple):
    """Maxima and sums of some classes of a row."""

    m_s: float
    z_s: float
    m_t: float
    z_t: float
    w: float
    a: float


class Factors(NamedTuple):
    """What a state's v and u shrink by when the maxima move."""

    c_s: float
    c_t: float


EMPTY = RowState(-INF, 0.0, -INF, 0.0, 0.0, 0.0)


def finite_max(m: float) -> float:
    """The maximum to subtract: 0 in place of −inf, so that exp(−inf − m) is 0 and never NaN."""
    return 0.0 if m == -INF else m


def tile(student: Tensor, teacher: Tensor, beta: float) -> RowState:
    """The state of one tile's logits, both (n,)."""
    s, t = student.double(), teacher.double()
    m_s, m_t = s.max().item(), t.max().item()
    x_s, x_t = beta * (s - finite_max(m_s)), beta * (t - finite_max(m_t))
    v, u = x_s.exp(), x_t.exp()
    # p = 0 contributes nothing; p > 0 where the student says never is infinitely far.
    far = torch.where(s == -INF, INF, u * (x_t - x_s))
    a = torch.where(t == -INF, 0.0, far).sum().item()
    return RowState(m_s, v.sum().item(), m_t, u.sum().item(), (u - v).sum().item(), a)


def factors(state: RowState, m_s: float, m_t: float, beta: float) -> Factors:
    """c_s and c_t for a move of the maxima to m_s and m_t, which are not below the state's."""
    return Factors(
        math.exp(beta * (state.m_s - finite_max(m_s))),
        math.exp(beta * (state.m_t - finite_max(m_t))),
    )


def rescaled(state: RowState, m_s: float, m_t: float, beta: float) -> RowState:
    """The same classes, summed about the maxima m_s and m_t."""
    c_s, c_t = factors(state, m_s, m_t, beta)
    a = state.a
    if a != INF:
        masked = -INF in (state.m_s, state.m_t)  # no shift to speak of: a is 0 already
        shift = 0.0 if masked else beta * ((state.m_t - m_t) - (state.m_s - m_s))
        a = c_t * (a + shift * state.z_t)
    w = c_t * state.w + (c_t - c_s) * state.z_s
    return RowState(m_s, c_s * state.z_s, m_t, c_t * state.z_t, w, a)


def combine(x: RowState, y: RowState, beta: float) -> RowState:
    """The state of two disjoint sets of classes together. `EMPTY` changes nothing.

    >>> row = torch.tensor([0.0, 3.0, 1.0, 2.0])
    >>> halves = [tile(row[i : i + 2], -row[i : i + 2], 0.5) for i in (0, 2)]
    >>> together, whole = combine(*halves, 0.5), tile(row, -row, 0.5)
    >>> all(math.isclose(*pair) for pair in zip(together, whole))
    True
    """
    m_s, m_t = max(x.m_s, y.m_s), max(x.m_t, y.m_t)
    x, y = rescaled(x, m_s, m_t, beta), rescaled(y, m_s, m_t, beta)
    return RowState(m_s, x.z_s + y.z_s, m_t, x.z_t + y.z_t, x.w + y.w, x.a + y.a)


def finish(state: RowState) -> float:
    """KL(p ‖ q) = A/Z_t + log(Z_s/Z_t), the logarithm through W = Z_t − Z_s where they are close.

    NaN where one side has nothing finite.
    """
    if state.z_s == 0 or state.z_t == 0:
        return math.nan
    close = abs(state.w) < 0.5 * state.z_t
    log_ratio = math.log1p(-state.w / state.z_t) if close else math.log(state.z_s / state.z_t)
    return max(state.a / state.z_t + log_ratio, 0.0)


def without_maximum(student: Tensor, teacher: Tensor, beta: float) -> tuple[float, float, float]:
    """Σ exp(βz_s), Σ exp(βz_t) and the KL from them, in float32 and with nothing subtracted.

    What is wrong with it: exp overflows float32 above 88.7, and underflows below −103.

    >>> without_maximum(torch.tensor([0.0, 100.0]), torch.tensor([0.0, 100.0]), 1.0)
    (inf, inf, nan)
    """
    x_s, x_t = beta * student.float(), beta * teacher.float()
    v, u = x_s.exp(), x_t.exp()
    a = torch.where(u == 0, 0.0, u * (x_t - x_s)).sum()
    divergence = a / u.sum() - u.sum().log() + v.sum().log()
    return v.sum().item(), u.sum().item(), divergence.item()


def without_guard(student: Tensor, teacher: Tensor, beta: float, size: int) -> tuple[float, float]:
    """Z_s and Z_t summed tile by tile about the running maximum, with no guard for −inf.

    What is wrong with it: exp(−inf − −inf) is NaN, and NaN stays.

    >>> masked = torch.tensor([-INF, -INF, 0.0, 1.0])
    >>> without_guard(masked, masked, 1.0, 2)
    (nan, nan)
    """
    sums = []
    for row in (student.double(), teacher.double()):
        m, total = torch.tensor(-INF, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for start in range(0, len(row), size):
            part = row[start : start + size]
            moved = torch.maximum(m, part.max())
            total = total * (beta * (m - moved)).exp() + (beta * (part - moved)).exp().sum()
            m = moved
        sums.append(total.item())
    return sums[0], sums[1]
