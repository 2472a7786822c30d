"""The six divergences and their slopes in PyTorch, for a few rows at a time.

Softmax is taken about each row's maximum m: with x = β(z − m), v = exp(x_s) and u = exp(x_t), the
softened student is q = v / Z_s and the teacher p = u / Z_t. A student that has nearly learned its
teacher has q ≈ p, and the textbook formulas then subtract two nearly equal numbers. What is written
here keeps the digits: sums of w = u − v for kl and mse, log(m/p) from (q − p)/p for js.

kl and reverse_kl are each other with student and teacher exchanged; the other divergences are
symmetric (js with mix → 1 − mix). So one value and one slope, for the student, serve both sides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SWAPPED = {"kl": "reverse_kl", "reverse_kl": "kl"}


@dataclass
class Pair:
    """Softened student and teacher of a few rows: x, v, u are (rows, V), the sums (rows, 1).

    `scratch` and `scratch_2` are buffers like x, for whoever needs one for a moment.
    """

    x_s: Tensor
    x_t: Tensor
    v: Tensor
    u: Tensor
    z_s: Tensor
    z_t: Tensor
    scratch: Tensor
    scratch_2: Tensor

    def swapped(self) -> "Pair":
        """The same with student and teacher exchanged."""
        rest = self.scratch, self.scratch_2
        return Pair(self.x_t, self.x_s, self.u, self.v, self.z_t, self.z_s, *rest)

    def log_ratio(self) -> Tensor:
        """log q − log p, NaN where both are masked."""
        return self.x_s - self.x_t + (self.z_t.log() - self.z_s.log())

    def gap(self) -> Tensor:
        """p − q = (w − v Σw / Z_s) / Z_t = (w − u Σw / Z_t) / Z_s with w = u − v.

        The first where Z_t ≥ Z_s, the second where not: then both terms have the same sign. In
        `scratch`.
        """
        w = torch.sub(self.u, self.v, out=self.scratch)
        change = -w.sum(-1, keepdim=True) / (self.z_s * self.z_t)
        grows = self.z_t >= self.z_s
        out = w.div_(torch.maximum(self.z_s, self.z_t))
        out.addcmul_(self.v, change.masked_fill(~grows, 0.0))
        return out.addcmul_(self.u, change.masked_fill(grows, 0.0))


def _weighted(weight: Tensor, x: Tensor, y: Tensor, scratch: Tensor) -> Tensor:
    """Σ weight · (x − y), where weight = exp(x), so that a class with x = −inf contributes 0."""
    total = torch.sub(x, y, out=scratch).mul_(weight).sum(-1, keepdim=True)
    # 0 · inf = NaN where a class is masked: only then the slow way (asking a GPU is slower still)
    if weight.is_cuda or total.isnan().any():
        terms = (weight * (x - y)).masked_fill_(x == -torch.inf, 0.0)
        only_y = (y == -torch.inf) & (x > -torch.inf)
        total = terms.masked_fill_(only_y, torch.inf).sum(-1, keepdim=True)
    return total


def _kl(pair: Pair) -> Tensor:
    """KL(p ‖ q) = (Σ u (x_t − x_s)) / Z_t + log(Z_s / Z_t)."""
    a = _weighted(pair.u, pair.x_t, pair.x_s, pair.scratch)
    w = torch.sub(pair.u, pair.v, out=pair.scratch).sum(-1, keepdim=True)
    close = w.abs() < 0.5 * pair.z_t
    log_ratio = torch.where(close, torch.log1p(-w / pair.z_t), pair.z_s.log() - pair.z_t.log())
    return (a / pair.z_t + log_ratio).clamp_min(0.0)


def log_mixture(q: Tensor, p: Tensor, mix: float) -> Tensor:
    """log(m / q) for m = mix · p + (1 − mix) · q: log1p of the relative difference, in p's place.

    Finite where q = 0, which is what it will be multiplied by. `p` is overwritten.
    """
    tiny = torch.finfo(q.dtype).tiny
    return p.sub_(q).mul_(mix).div_(q.clamp_min(tiny)).log1p_()


def _log_mixture(pair: Pair, mix: float) -> Tensor:
    """log(m / q) of a pair, in `scratch`."""
    q = torch.div(pair.v, pair.z_s, out=pair.scratch_2)
    return log_mixture(q, torch.div(pair.u, pair.z_t, out=pair.scratch), mix)


def _dots(pair: Pair, x: Tensor) -> tuple[Tensor, Tensor]:
    """−Σ q x and Σ p x."""
    product = torch.mul(pair.u, x, out=pair.scratch_2)
    at_teacher = product.sum(-1, keepdim=True) / pair.z_t
    return -(x.mul_(pair.v)).sum(-1, keepdim=True) / pair.z_s, at_teacher


def value(pair: Pair, divergence: str, mix: float) -> tuple[Tensor, Tensor, Tensor]:
    """D(p, q), Σ q ∂D/∂q and Σ p ∂D/∂p (less constants): what the slopes below subtract."""
    zero = torch.zeros_like(pair.z_s)
    if divergence == "kl":
        d = _kl(pair)
        return d, zero, d
    if divergence == "reverse_kl":
        d = _kl(pair.swapped())
        return d, d, zero
    if divergence == "mse":
        gap = pair.gap()
        d = torch.mul(gap, gap, out=pair.scratch_2).sum(-1, keepdim=True)
        return d, *_dots(pair, gap)
    if divergence == "tv":
        gap = pair.gap()
        d = 0.5 * torch.abs(gap, out=pair.scratch_2).sum(-1, keepdim=True)
        return d, *_dots(pair, gap.sign_())
    dot_s = -_log_mixture(pair, mix).mul_(pair.v).sum(-1, keepdim=True) / pair.z_s
    dot_t = -_log_mixture(pair.swapped(), 1 - mix).mul_(pair.u).sum(-1, keepdim=True) / pair.z_t
    return (mix * dot_t + (1 - mix) * dot_s).clamp_min(0.0), dot_s, dot_t


def slope(pair: Pair, divergence: str, mix: float, dot: Tensor, scale: Tensor) -> Tensor:
    """scale · ∂D/∂x_s, for scale (rows, 1); `dot` is the student's, from `value`. May be `scratch`.

    kl: q − p.   reverse_kl: q (log(q/p) − KL(q‖p)).   js: (1 − mix) q (log(q/m) − KL(q‖m)).
    mse: 2 q ((q − p) − Σ q (q − p)).   tv: ½ q (sgn(q − p) − Σ q sgn(q − p)).
    """
    if divergence == "kl":
        # Two products and a difference, not a fused one: exactly 0 where p = q.
        q = torch.mul(pair.v, scale / pair.z_s, out=pair.scratch)
        return q.sub_(torch.mul(pair.u, scale / pair.z_t, out=pair.scratch_2))
    if divergence == "mse":
        return pair.gap().neg_().sub_(dot).mul_(pair.v).mul_(2 * scale / pair.z_s)
    if divergence == "tv":
        return pair.gap().sign_().neg_().sub_(dot).mul_(pair.v).mul_(0.5 * scale / pair.z_s)
    if divergence == "js":
        log_q_m = _log_mixture(pair, mix).neg_()
        return log_q_m.sub_(dot).mul_(pair.v).mul_((1 - mix) * scale / pair.z_s)
    out = pair.log_ratio().sub_(dot).mul_(pair.v).mul_(scale / pair.z_s)
    return out.masked_fill_(pair.x_s == -torch.inf, 0.0)


def slope_teacher(pair: Pair, divergence: str, mix: float, dot: Tensor, scale: Tensor) -> Tensor:
    """scale · ∂D/∂x_t: the student's slope with the two exchanged; `dot` is the teacher's."""
    return slope(pair.swapped(), SWAPPED.get(divergence, divergence), 1 - mix, dot, scale)
