"""The loss of each row and its gradients, in PyTorch: what `distillation_loss` runs without a GPU.

The same two functions as the Triton kernels in `kernels/`, over a few rows at a time (see
`kdlab.chunks`), so that what is computed on the way from the logits to the result stays in cache.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from kdlab.chunks import for_each_chunk
from kdlab.divergences import LN_2, TAKES_X, Pair, slope, value

LOG2_E = 1 / LN_2

# What the backward pass needs of a row, saved by the forward pass: maxima and normalisers of both
# sides, the dot products that their gradients subtract, D itself, the normaliser at T = 1, and for
# tv log(Z_t / Z_s), which the kernels keep for kl and reverse_kl as well.
STATS = ("m_s", "z_s", "m_t", "z_t", "dot_s", "dot_t", "soft", "z_1", "log_ratio")


class Settings(NamedTuple):
    """What is the same for every row."""

    divergence: str
    mix: float
    label_weight: float
    temperature_scaling: bool
    classes: int | None = None  # that are compared, of those that the logits have; None: all

    @property
    def soft(self) -> bool:
        return self.label_weight < 1

    @property
    def hard(self) -> bool:
        return self.label_weight > 0

    def compared(self, logits: Tensor) -> Tensor:
        return logits if self.classes is None else logits[:, : self.classes]


def room(logits: Tensor, settings: Settings, wanted: bool = True) -> Tensor:
    """Memory for the logits' gradient: 0 for classes that are not compared; empty if not wanted."""
    out = logits.new_empty(logits.shape if wanted else 0)
    if wanted and settings.classes is not None:
        out[:, settings.classes :] = 0
    return out


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32: half precision is only for storage."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


class Buffers(NamedTuple):
    """Memory for a chunk, (rows, V) each."""

    x_s: Tensor
    x_t: Tensor
    v: Tensor
    u: Tensor
    scratch: Tensor
    scratch_2: Tensor
    out: Tensor  # only touched where a gradient is kept in another dtype

    def out_or(self, place: Tensor) -> Tensor:
        """Where to make a gradient that belongs into `place`: right there, if the dtypes agree."""
        return place if place.dtype == self.out.dtype else self.out


def _soften(z: Tensor, m: Tensor | None, c: Tensor | float, x: Tensor, out: Tensor) -> Tensor:
    """x = c (z − m) and 2^x in `out`, which may be x; returns m, each row's maximum if not given.

    A row of nothing but −inf gets the lowest finite m, so that 2^x is 0.
    """
    z = _widened(z, x)
    if m is None:
        m = z.amax(-1, keepdim=True).clamp_min_(torch.finfo(z.dtype).min)
    torch.exp2(torch.sub(z, m, out=x).mul_(c), out=out)
    return m


def _widened(z: Tensor, out: Tensor) -> Tensor:
    """Logits in the dtype of `out`, for which they are written there if they have another."""
    return z if z.dtype == out.dtype else out.copy_(z)


def _difference(
    s: Tensor, t: Tensor, out: Tensor, squares: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """z_t − z_s, 0 where both are −inf, in `out`, and its sums.

    The sums are of its squares where there is a buffer to make them in.
    """

    def total() -> Tensor:
        terms = out if squares is None else torch.mul(out, out, out=squares)
        return terms.sum(-1, keepdim=True)

    torch.sub(t.to(out.dtype), s, out=out)
    sums = total()
    # inf − inf = NaN: only then the slow way (asking a GPU is slower still)
    if sums.is_cuda or sums.isnan().any():
        out.masked_fill_((t == s) & (t < torch.inf), 0.0)
        sums = total()
    return out, sums


def _dot(slopes: Tensor, x: Tensor) -> Tensor:
    """Σ slope · x, of which a class with x = −inf contributes 0. `slopes` is overwritten."""
    total = slopes.mul_(x).sum(-1, keepdim=True)
    if total.is_cuda or total.isnan().any():
        total = slopes.masked_fill_(x == -torch.inf, 0.0).sum(-1, keepdim=True)
    return total


def forward(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    settings: Settings,
    gradient_scale: Tensor | None = None,
    for_gradients: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row losses (N,), the statistics (9, N) of `STATS`, and the student's gradient.

    student, teacher: (N, V), or wider where `settings.classes` is V. labels: (N,) int64 in [0, V).
    keep: (N,) bool. beta: (N,). With a 0-dim `gradient_scale` the third result is
    ∂(gradient_scale · Σ row loss)/∂z_s, shaped and typed like `student`, made while the row is
    still in cache; without, it is empty. With `for_gradients` false, what only `backward` needs of
    the statistics may be left out.
    """
    dtype = compute_dtype(student, teacher)
    gradient = room(student, settings, gradient_scale is not None)
    student, teacher = (settings.compared(z.detach()) for z in (student, teacher))
    b_all = beta.detach().to(dtype)[:, None]
    rows, classes = student.shape
    stats = student.new_empty(len(STATS), rows, dtype=dtype)
    g = None if gradient_scale is None else gradient_scale.to(dtype).expand(rows, 1)
    takes_x = settings.divergence in TAKES_X

    def chunk(i: int, j: int, memory: Tensor) -> None:
        use = Buffers(*memory.unbind())
        s, t, b = student[i:j], teacher[i:j], b_all[i:j]
        zero = stats.new_zeros(j - i, 1)
        found = [zero] * len(STATS)
        soft: Pair | Tensor | None = None
        if settings.soft and settings.divergence == "mse_logits":
            soft, found[6] = _difference(s, t, use.scratch, use.scratch_2)
        elif settings.soft:
            x_s, x_t = (use.x_s, use.x_t) if takes_x else (use.v, use.u)
            if settings.divergence == "tv":
                s, t = _widened(s, use.x_s), _widened(t, use.x_t)
            c = b * LOG2_E
            found[0] = _soften(s, None, c, x_s, use.v)
            found[2] = _soften(t, None, c, x_t, use.u)
            found[1], found[3] = (x.sum(-1, keepdim=True) for x in (use.v, use.u))
            soft = _pair(settings, use, b, s, t, found)
            found[6], found[4], found[5] = value(
                soft, for_student=for_gradients, for_teacher=for_gradients and g is None
            )
            if settings.divergence == "tv":
                found[8] = soft.log_ratio
        if settings.hard:
            found[0] = _soften(s, None, LOG2_E, use.out, use.out)
            found[7] = use.out.sum(-1, keepdim=True)
        stats[:, i:j] = torch.cat(found).view(len(STATS), -1)
        if g is not None:
            drop = None if keep is None else ~keep[i:j, None]
            y = None if labels is None else labels[i:j, None]
            place = settings.compared(gradient[i:j])
            out = _student_gradient(soft, s, y, b, g[i:j], found, settings, use, place)
            _store(place, out, drop)

    if rows:
        for_each_chunk(chunk, rows, classes, len(Buffers._fields), stats)
    return _loss(student, labels, keep, b_all, stats, settings), stats, gradient


def _pair(
    settings: Settings,
    use: Buffers,
    b: Tensor,
    s: Tensor,
    t: Tensor,
    stats: Sequence[Tensor],
    log_ratio: Tensor | None = None,
) -> Pair:
    """Logits s and t, and what has been made of them in the buffers, with its maxima and sums."""
    m_s, z_s, m_t, z_t, *_ = stats
    sides = s, t, m_s, m_t, use.x_s, use.x_t, use.v, use.u, z_s, z_t
    scratch = use.scratch, use.scratch_2
    mix = settings.mix, 1 - settings.mix
    return Pair(settings.divergence, *mix, b, *sides, *scratch, saved_log_ratio=log_ratio)


def _loss(
    student: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    b: Tensor,
    stats: Tensor,
    settings: Settings,
) -> Tensor:
    """The losses of all rows, from their statistics."""
    alpha, total = settings.label_weight, stats[6]
    if settings.soft:
        if settings.divergence != "mse_logits":
            z_s, z_t = stats[1], stats[3]
            total.masked_fill_((z_s == 0) | (z_t == 0), torch.nan)
            if settings.temperature_scaling:
                total = total / b[:, 0].square()
        total = (1 - alpha) * total
    if settings.hard:
        assert labels is not None
        m_s, z_1 = stats[0], stats[7]
        hard = z_1.log() - (student.gather(-1, labels[:, None])[:, 0] - m_s)
        hard = alpha * hard.masked_fill_(z_1 == 0, torch.nan)
        total = total + hard if settings.soft else hard
    return total if keep is None else total.masked_fill_(~keep, 0.0)


def _soft_scale(g: Tensor, b: Tensor, settings: Settings) -> Tensor:
    """What a slope for x = β z is multiplied by: β from the chain rule, which T² makes T."""
    scale = g * (b.reciprocal() if settings.temperature_scaling else b)
    return (1 - settings.label_weight) * scale if settings.hard else scale


def _student_gradient(
    soft: Pair | Tensor | None,
    s: Tensor,
    labels: Tensor | None,
    b: Tensor,
    g: Tensor,
    stats: Sequence[Tensor],
    settings: Settings,
    use: Buffers,
    place: Tensor,
) -> Tensor:
    """g · ∂(row loss)/∂z_s for a chunk, in `place` or, of another dtype, in `use.out`.

    `soft` is the softened pair, or z_t − z_s for mse_logits. Overwrites v.
    """
    out = use.out_or(place)
    if isinstance(soft, Pair):
        slope(soft, stats[4], _soft_scale(g, b, settings), out)
    elif soft is not None:
        torch.mul(soft, -2 * (1 - settings.label_weight) * g, out=out)
    if settings.hard:
        assert labels is not None
        scale = settings.label_weight * g
        _soften(s, stats[0], LOG2_E, use.v, use.v)  # softmax(z_s) − onehot(label)
        if soft is None:
            torch.mul(use.v, scale / stats[7], out=out)
        else:
            out.addcmul_(use.v, scale / stats[7])
        out.scatter_add_(-1, labels, -scale)
    return out


def _store(place: Tensor, made: Tensor, drop: Tensor | None) -> None:
    """Write what was made elsewhere into its place, with 0 in rows that count for nothing."""
    if made is not place:
        place.copy_(made)
    if drop is not None and (drop.is_cuda or drop.any()):
        place.masked_fill_(drop, 0.0)


def backward(
    grad_loss: Tensor,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    stats: Tensor,
    settings: Settings,
    wanted: tuple[bool, bool, bool] = (True, False, False),
) -> tuple[Tensor, Tensor, Tensor]:
    """∂(Σ grad_loss · row loss) with respect to z_s (N, V), z_t (N, V) and β (N,).

    What is not wanted comes back empty. The logits' gradients are shaped and typed like the logits.
    For β, with x = β(z − m):  ∂D/∂β = (Σ x_s ∂D/∂x_s + Σ x_t ∂D/∂x_t) / β, and T² D adds −2 T² D/β.
    """
    dtype = stats.dtype
    for_student, for_teacher, for_beta = wanted
    grad_student = room(student, settings, for_student)
    grad_teacher = room(teacher, settings, for_teacher)
    student, teacher = (settings.compared(z.detach()) for z in (student, teacher))
    b_all = beta.detach().to(dtype)[:, None]
    rows, classes = student.shape
    grad_beta = beta.new_zeros(rows if for_beta else 0)
    share = 1 - settings.label_weight
    takes_x = for_beta or settings.divergence in TAKES_X

    def chunk(i: int, j: int, memory: Tensor) -> None:
        use = Buffers(*memory.unbind())
        b = b_all[i:j]
        g = grad_loss[i:j, None].to(dtype)
        found = stats[:, i:j].unsqueeze(-1).unbind()
        m_s, _, m_t, _, dot_s, dot_t, d, _, log_ratio = found
        s, t = student[i:j], teacher[i:j]
        drop = None if keep is None else ~keep[i:j, None]
        soft: Pair | Tensor | None = None
        if settings.soft and settings.divergence == "mse_logits":
            soft, _ = _difference(s, t, use.scratch)
        elif settings.soft:
            x_s, x_t = (use.x_s, use.x_t) if takes_x else (use.v, use.u)
            if settings.divergence == "tv" and not takes_x:
                s, t = _widened(s, use.x_s), _widened(t, use.x_t)
            _soften(s, m_s, b * LOG2_E, x_s, use.v)
            _soften(t, m_t, b * LOG2_E, x_t, use.u)
            saved = log_ratio if settings.divergence == "tv" else None
            soft = _pair(settings, use, b, s, t, found, saved)

        if for_beta and isinstance(soft, Pair):
            one = torch.ones_like(b)
            total = _dot(slope(soft, dot_s, one, use.out), use.x_s)
            total = total + _dot(slope(soft.swapped(), dot_t, one, use.out), use.x_t)
            scaled = settings.temperature_scaling
            out = (LN_2 * total - 2 * d) / b / b / b if scaled else LN_2 * total / b
            _store(grad_beta[i:j, None], share * g * out, drop)
        if for_teacher:
            place = settings.compared(grad_teacher[i:j])
            out = use.out_or(place)
            if isinstance(soft, Pair):
                slope(soft.swapped(), dot_t, _soft_scale(g, b, settings), out)
            elif soft is not None:
                torch.mul(soft, 2 * share * g, out=out)
            else:
                out.zero_()
            _store(place, out, drop)
        if for_student:  # last, with a pair that has nothing in scratch: the others wrote there
            soft = replace(soft) if isinstance(soft, Pair) else soft
            place = settings.compared(grad_student[i:j])
            y = None if labels is None else labels[i:j, None]
            out = _student_gradient(soft, s, y, b, g, found, settings, use, place)
            _store(place, out, drop)

    if rows:
        for_each_chunk(chunk, rows, classes, len(Buffers._fields), stats)
    return grad_student, grad_teacher, grad_beta
