"""The six divergences and their slopes in PyTorch, for a few rows at a time.

Softmax is taken about each row's maximum m, in powers of two, for which PyTorch has the faster
function: with x = β log₂e (z − m), v = 2^x_s and u = 2^x_t, the softened student is q = v / Z_s and
the teacher p = u / Z_t. A student that has nearly learned its teacher has q ≈ p, and the textbook
formulas then subtract two nearly equal numbers. What is written here keeps the digits: q − p and
log(Z_t / Z_s) come from w = v − u, and log(m/q) of js from (p − q)/q.

kl and reverse_kl are each other with student and teacher exchanged; the other divergences are
symmetric (js with mix → 1 − mix). So one value and one slope, for the student, serve both sides.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SWAPPED = {"kl": "reverse_kl", "reverse_kl": "kl"}
TAKES_X = tuple(SWAPPED)  # the others look at v and u alone; their x may hold anything
LN_2 = math.log(2)


@dataclass
class Pair:
    """Softened student and teacher of a few rows: the logits s and t, x, v and u are (rows, V),
    what a row has one of is (rows, 1): β, maxima, sums.

    `scratch` and `scratch_2` are buffers like x. What has been made in them is kept, so that the
    slope finds what the value has left: `gap` in the first, which `swapped` shares, so that its
    rounding is the same for both sides, and `product`, and `sign` before that, in the second, which
    `swapped` overwrites.
    """

    divergence: str
    mix: float
    rest: float  # 1 − mix, but not rounded twice where the sides are exchanged
    beta: Tensor
    s: Tensor
    t: Tensor
    m_s: Tensor
    m_t: Tensor
    x_s: Tensor
    x_t: Tensor
    v: Tensor
    u: Tensor
    z_s: Tensor
    z_t: Tensor
    scratch: Tensor
    scratch_2: Tensor
    mirror: "Pair | None" = None  # the one that this is the swapped of
    saved_log_ratio: Tensor | None = None

    def swapped(self) -> "Pair":
        """The same with student and teacher exchanged."""
        name = SWAPPED.get(self.divergence, self.divergence)
        logits = self.t, self.s, self.m_t, self.m_s
        sides = *logits, self.x_t, self.x_s, self.u, self.v, self.z_t, self.z_s
        buffers = self.scratch, self.scratch_2
        return Pair(name, self.rest, self.mix, self.beta, *sides, *buffers, self)

    @cached_property
    def w_sum(self) -> Tensor:
        """Σw, and w = v − u in `scratch`."""
        return _sum(torch.sub(self.v, self.u, out=self.scratch))

    @cached_property
    def log_ratio(self) -> Tensor:
        """log(Z_t / Z_s) = log(1 − Σw / Z_s) = −log(1 + Σw / Z_t), whichever adds to the 1."""
        if self.mirror is not None:
            return -self.mirror.log_ratio
        if self.saved_log_ratio is not None:
            return self.saved_log_ratio
        w_sum = self.w_sum
        size = torch.log1p(w_sum.abs() / torch.minimum(self.z_s, self.z_t))
        return torch.copysign(size, -w_sum)

    @cached_property
    def gap(self) -> tuple[Tensor, Tensor]:
        """G and f in q − p = G / f: G = w − v Σw / Z_s, f = Z_t, or G = w − u Σw / Z_t, f = Z_s.

        The first unless Σw > Z_s / 2, so that no class loses its digits. G takes w's place. For
        the swapped pair f is negative.
        """
        if self.mirror is not None:
            return self.mirror.gap[0], -self.mirror.gap[1]
        w_sum, w = self.w_sum, self.scratch
        far, f = w_sum > 0.5 * self.z_s, self.z_t
        if far.is_cuda or far.any():  # to ask a GPU is slower than to add zeros
            w.addcmul_(self.u, (w_sum / self.z_t).masked_fill(~far, 0.0), value=-1)
            w_sum, f = w_sum.masked_fill(far, 0.0), torch.where(far, self.z_s, self.z_t)
        return w.addcmul_(self.v, w_sum / self.z_s, value=-1), f

    @cached_property
    def sign(self) -> Tensor:
        """sgn(q − p) in `scratch_2`, by log(q/p) = β (s − t − (m_s − m_t)) + log(Z_t / Z_s).

        Logits that are near each other are subtracted without rounding, where v and u have been
        rounded already. If one side's are far from the other's, the side that is farther from zero
        is moved first, by a whole number, which mostly leaves nothing to round either. 0 where both
        are −inf, since that is PyTorch's sign of NaN.
        """
        shift = (self.m_s - self.m_t).round()
        shift = shift.masked_fill(shift.abs() < 2, 0.0)
        s, t, out = self.s.to(self.v.dtype), self.t, self.scratch_2
        m_s, m_t = self.m_s, self.m_t
        if shift.is_cuda or shift.any():
            of_s = shift.masked_fill(m_s.abs() < m_t.abs(), 0.0)
            of_t = shift - of_s
            m_s, m_t = m_s - of_s, m_t + of_t
            s = torch.sub(s, of_s, out=out)
            if of_t.is_cuda or of_t.any():
                t = t + of_t
        torch.sub(s, t, out=out)
        return out.sub_(m_s - m_t - self.log_ratio / self.beta).sign_()

    @cached_property
    def product(self) -> tuple[Tensor, Tensor]:
        """v · y and its sums: y of `slope`, or G for mse. Not for kl."""
        if self.divergence == "reverse_kl":
            return _times_difference(self.v, self.x_s, self.x_t, self.scratch_2)
        if self.divergence == "tv":
            out = self.sign.mul_(self.v)
        elif self.divergence == "mse":
            out = torch.mul(self.gap[0], self.v, out=self.scratch_2)
        else:
            out = _times_log_mixture(self, self.scratch_2)
        return out, _sum(out)


def _sum(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def _times_difference(weight: Tensor, x: Tensor, y: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """weight · (x − y) and its sums, where weight = 2^x, so that a class with x = −inf gives 0."""
    total = _sum(torch.sub(x, y, out=out).mul_(weight))
    # 0 · inf = NaN where a class is masked: only then the slow way (asking a GPU is slower still)
    if total.is_cuda or total.isnan().any():
        out.masked_fill_(x == -torch.inf, 0.0)
        total = _sum(out.masked_fill_((y == -torch.inf) & (x > -torch.inf), torch.inf))
    return out, total


def _times_log_mixture(pair: Pair, out: Tensor) -> Tensor:
    """v log(m/q) = v log1p(mix (p − q)/q).

    The logarithm stays finite where v = 0, and where p = 0 whatever is rounded. Where p is far
    below q, m/q is little more than 1 − mix: if that is small, it is made as a sum.
    """
    gap, f = pair.gap
    info = torch.finfo(gap.dtype)
    least = info.tiny / info.eps
    torch.clamp_min(pair.v, least, out=out)
    torch.div(gap, out, out=out).mul_(-pair.mix * pair.z_s / f)
    out.clamp_min_(-pair.mix).log1p_()
    if pair.rest < 0.1:
        ratio = (pair.u / pair.v.clamp_min(least)).mul_(pair.z_s / pair.z_t)
        small = (ratio * pair.mix).add_(pair.rest).log_()
        torch.where(ratio < 0.5, small, out, out=out)
    return out.mul_(pair.v)


def _relative_entropy(pair: Pair) -> Tensor:
    """KL(q ‖ p) = Σ v (ln v − ln u) / Z_s + log(Z_t / Z_s) of a pair for reverse_kl."""
    _, total = pair.product
    return torch.addcdiv(pair.log_ratio, total, pair.z_s, value=LN_2).clamp_min_(0.0)


def value(
    pair: Pair, for_student: bool = True, for_teacher: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """D(p, q), and what the slopes below subtract: Σ q ∂D/∂q and Σ p ∂D/∂p, less constants.

    The last two only for whose gradient will be asked for, or where they cost nothing.
    """
    zero = torch.zeros_like(pair.z_s)
    if pair.divergence == "kl":
        swapped = pair.swapped()
        d = _relative_entropy(swapped)
        return d, zero, swapped.product[1] / pair.z_t
    if pair.divergence == "reverse_kl":
        d = _relative_entropy(pair)
        return d, pair.product[1] / pair.z_s, zero
    (gap, f), scratch = pair.gap, pair.scratch_2
    dot_s = dot_t = zero
    if pair.divergence == "js":
        of_teacher = _times_log_mixture(pair.swapped(), scratch)
        dot_t = -_sum(of_teacher) / pair.z_t
        dot_s = -pair.product[1] / pair.z_s
        return (pair.mix * dot_t + pair.rest * dot_s).clamp_min(0.0), dot_s, dot_t
    if pair.divergence == "mse":
        d = _sum(torch.mul(gap, gap, out=scratch)) / f.square()
        if for_teacher:
            dot_t = -_sum(torch.mul(gap, pair.u, out=scratch)) / (pair.z_t * f)
        if for_student:
            dot_s = pair.product[1] / (pair.z_s * f)
        return d, dot_s, dot_t
    d = 0.5 * _sum(torch.abs(gap, out=scratch)) / f
    if for_teacher:  # in the place of G, which tv's slopes don't ask for
        dot_t = -_sum(torch.mul(pair.sign, pair.u, out=pair.scratch)) / pair.z_t
    if for_student:
        dot_s = pair.product[1] / pair.z_s
    return d, dot_s, dot_t


def slope(pair: Pair, dot: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """scale · ∂D/∂x_s in `out`, x_s = β z_s; scale is (rows, 1), `dot` the student's of `value`.

    kl: q − p.   reverse_kl: q (log(q/p) − KL(q‖p)).   js: (1 − mix) q (log(q/m) − KL(q‖m)).
    mse: 2 q ((q − p) − Σ q (q − p)).   tv: ½ q (sgn(q − p) − Σ q sgn(q − p)).
    Those of reverse_kl, js and tv are k q (y − dot), y = log₂ v − log₂ u, log(m/q), sgn(q − p); of
    log(q/p) log(Z_t / Z_s) is left out, which y and `dot` would both contain.
    """
    if pair.divergence == "kl":
        gap, f = pair.gap
        return torch.mul(gap, scale / f, out=out)
    if pair.divergence == "mse":  # for a sure student the two terms are close: subtract first
        gap, f = pair.gap
        return torch.sub(gap, f * dot, out=out).mul_(pair.v).mul_(2 * scale / (pair.z_s * f))
    product, _ = pair.product
    k = scale / pair.z_s
    if pair.divergence == "reverse_kl":
        k = LN_2 * k
    elif pair.divergence == "js":
        dot, k = -dot, -pair.rest * k
    else:
        # PyTorch's sign of NaN is 0: keep that of a row, or of one where a side is masked whole
        k = (0.5 + 0 * (1 / pair.z_s + 1 / pair.z_t)) * k
    # Of a sure student both are the same at its class: subtract first, so that nothing is left.
    torch.addcmul(product, pair.v, dot, value=-1, out=out).mul_(k)
    if pair.divergence == "reverse_kl" and (dot.is_cuda or dot.isinf().any()):
        out.masked_fill_(pair.x_s == -torch.inf, 0.0)  # 0 · inf where the divergence is infinite
    return out
