"""The loss of each row and its gradients, in PyTorch: what `distillation_loss` runs without a GPU.

The same two functions as the Triton kernels in `kernels/`, over a few rows at a time, so that what
is computed between reading the logits and writing the result stays in the processor's cache. The
chunks go to a thread each: PyTorch would otherwise split every small operation over the cores and
wait for all of them each time, which costs more than the operation.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from kdlab.divergences import Pair, slope, slope_teacher, value

# 2¹⁵ float32 values are 128 KB: the handful of buffers that a chunk needs fit in a core's L2, and
# PyTorch does not split an operation of this size over the cores.
CHUNK_ELEMENTS = 1 << 15
# Below this many elements in all, starting threads costs more than they save.
THREADED_ELEMENTS = 1 << 18

# What the backward pass needs of a row, saved by the forward pass: maxima and normalisers of both
# sides, the dot products that their gradients subtract, D itself, and the normaliser at T = 1.
STATS = ("m_s", "z_s", "m_t", "z_t", "dot_s", "dot_t", "soft", "z_1")


class Settings(NamedTuple):
    """What is the same for every row."""

    divergence: str
    mix: float
    label_weight: float
    temperature_scaling: bool

    @property
    def soft(self) -> bool:
        return self.label_weight < 1

    @property
    def hard(self) -> bool:
        return self.label_weight > 0


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32: half precision is only for storage."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _for_each_chunk(work: Callable[[int, int], None], rows: int, classes: int) -> None:
    step = max(1, CHUNK_ELEMENTS // classes)
    starts = range(0, rows, step)
    threads = torch.get_num_threads() if rows * classes >= THREADED_ELEMENTS else 1

    def run(first: int) -> None:
        with torch.no_grad():  # a new thread starts with gradients on
            for start in starts[first::threads]:
                work(start, min(start + step, rows))

    if min(threads, len(starts)) <= 1:
        threads = 1
        run(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, range(threads)))


def _centre(logits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """z − m and m for each row; a row of nothing but −inf keeps m = 0, so that exp gives 0."""
    m = logits.amax(-1, keepdim=True).to(dtype)
    m = m.masked_fill_(m == -torch.inf, 0.0)
    return logits - m, m  # promoted to m's dtype


def _pair(y_s: Tensor, y_t: Tensor, b: Tensor | None) -> Pair:
    x_s, x_t = (y_s, y_t) if b is None else (y_s * b, y_t * b)
    v, u = x_s.exp(), x_t.exp()
    return Pair(x_s, x_t, v, u, v.sum(-1, keepdim=True), u.sum(-1, keepdim=True))


def _difference(s: Tensor, t: Tensor, dtype: torch.dtype) -> Tensor:
    """z_t − z_s, 0 where both are −inf (or the same infinity)."""
    return (t.to(dtype) - s.to(dtype)).masked_fill_(t == s, 0.0)


def _hard_slope(y_s: Tensor, z_1: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """scale · (softmax(z_s) − onehot(label))."""
    out = y_s.exp().mul_(scale / z_1)
    return out.scatter_add_(-1, labels[:, None], -scale)


def forward(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    settings: Settings,
    gradient_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row losses (N,), the statistics (8, N) of `STATS`, and the student's gradient.

    student, teacher: (N, V). labels: (N,) int64 in [0, V). keep: (N,) bool. beta: (N,). With a
    0-dim `gradient_scale` the third result is ∂(gradient_scale · Σ row loss)/∂z_s, typed like
    `student`, made while the row is still in cache; without, it is empty.
    """
    rows, classes = student.shape
    dtype = compute_dtype(student, teacher)
    divergence, mix, alpha, scaled = settings
    student, teacher = student.detach(), teacher.detach()
    loss = student.new_zeros(rows, dtype=dtype)
    stats = student.new_zeros(len(STATS), rows, dtype=dtype)
    wanted = gradient_scale is not None
    gradient = student.new_empty(student.shape if wanted else 0)
    is_one = bool((beta == 1).all())

    def chunk(i: int, j: int) -> None:
        b = beta[i:j, None].to(dtype)
        s, t = student[i:j], teacher[i:j]
        y_s, m_s = _centre(s, dtype)
        zero = torch.zeros_like(m_s)
        total, found, pair = zero, [m_s] + [zero] * 7, None
        if settings.soft and divergence == "mse_logits":
            found[6] = _difference(s, t, dtype).square_().sum(-1, keepdim=True)
            total = (1 - alpha) * found[6]
        elif settings.soft:
            y_t, m_t = _centre(t, dtype)
            pair = _pair(y_s, y_t, None if is_one else b)
            d, dot_s, dot_t = value(pair, divergence, mix)
            d = d.masked_fill_((pair.z_s == 0) | (pair.z_t == 0), torch.nan)
            found[1:7] = pair.z_s, m_t, pair.z_t, dot_s, dot_t, d
            total = (1 - alpha) * (d / b.square() if scaled else d)
        if settings.hard:
            assert labels is not None
            found[7] = y_s.exp().sum(-1, keepdim=True) if pair is None or not is_one else pair.z_s
            hard = found[7].log() - y_s.gather(-1, labels[i:j, None])
            total = total + alpha * hard.masked_fill_(found[7] == 0, torch.nan)
        stats[:, i:j] = torch.cat(found, -1).T
        if keep is not None:
            total = total.masked_fill(~keep[i:j, None], 0.0)
        loss[i:j] = total[:, 0]
        if gradient_scale is not None:
            g = gradient_scale.to(dtype).expand(j - i, 1)
            y = None if labels is None else labels[i:j]
            gradient[i:j] = _student_gradient(
                s, t, y_s, y, pair, b, g, found[4], found[7], settings
            )
            if keep is not None:
                gradient[i:j].masked_fill_(~keep[i:j, None], 0.0)

    if rows:
        _for_each_chunk(chunk, rows, classes)
    return loss, stats, gradient


def _student_gradient(
    s: Tensor,
    t: Tensor,
    y_s: Tensor,
    labels: Tensor | None,
    pair: Pair | None,
    b: Tensor,
    g: Tensor,
    dot: Tensor,
    z_1: Tensor,
    settings: Settings,
) -> Tensor:
    """g · ∂(row loss)/∂z_s for a chunk; β comes from the chain rule, and T² makes it T."""
    divergence, mix, alpha, scaled = settings
    out = None
    if pair is not None:
        out = slope(pair, divergence, mix, dot, (1 - alpha) * g * (1 / b if scaled else b))
    elif settings.soft:
        out = _difference(s, t, y_s.dtype).mul_(-2 * (1 - alpha) * g)
    if settings.hard:
        assert labels is not None
        hard = _hard_slope(y_s, z_1, labels, alpha * g)
        out = hard if out is None else out.add_(hard)
    assert out is not None
    return out


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
    rows, classes = student.shape
    dtype = stats.dtype
    divergence, mix, alpha, scaled = settings
    student, teacher = student.detach(), teacher.detach()
    for_student, for_teacher, for_beta = wanted
    grad_student = student.new_empty(student.shape if for_student else 0)
    grad_teacher = teacher.new_empty(teacher.shape if for_teacher else 0)
    grad_beta = beta.new_zeros(rows if for_beta else 0)
    is_one = bool((beta == 1).all())

    def chunk(i: int, j: int) -> None:
        b = beta[i:j, None].to(dtype)
        g = grad_loss[i:j, None].to(dtype)
        m_s, z_s, m_t, z_t, dot_s, dot_t, d, z_1 = stats[:, i:j].unsqueeze(-1)
        s, t = student[i:j], teacher[i:j]
        drop = None if keep is None else ~keep[i:j, None]
        y_s, pair = s - m_s, None
        if settings.soft and divergence != "mse_logits":
            y_t = t - m_t
            x_s, x_t = (y_s, y_t) if is_one else (y_s * b, y_t * b)
            pair = Pair(x_s, x_t, x_s.exp(), x_t.exp(), z_s, z_t)
        if for_student:
            y = None if labels is None else labels[i:j]
            out = _student_gradient(s, t, y_s, y, pair, b, g, dot_s, z_1, settings)
            grad_student[i:j] = out if drop is None else out.masked_fill_(drop, 0.0)
        if for_teacher:
            if pair is not None:
                scale = (1 - alpha) * g * (1 / b if scaled else b)
                out = slope_teacher(pair, divergence, mix, dot_t, scale)
            else:
                out = _difference(s, t, dtype).mul_(2 * (1 - alpha) * g)
            grad_teacher[i:j] = out if drop is None else out.masked_fill_(drop, 0.0)
        if for_beta and pair is not None:
            one = torch.ones_like(b)
            towards = slope(pair, divergence, mix, dot_s, one).mul_(pair.x_s)
            towards.masked_fill_(pair.x_s == -torch.inf, 0.0)
            other = slope_teacher(pair, divergence, mix, dot_t, one).mul_(pair.x_t)
            other.masked_fill_(pair.x_t == -torch.inf, 0.0)
            total = towards.add_(other).sum(-1, keepdim=True)
            out = (total - 2 * d) / b.pow(3) if scaled else total / b
            out = (1 - alpha) * g * out
            grad_beta[i:j] = (out if drop is None else out.masked_fill_(drop, 0.0))[:, 0]

    if rows:
        _for_each_chunk(chunk, rows, classes)
    return grad_student, grad_teacher, grad_beta
