"""The loss of each row and its gradients, in PyTorch: what `distillation_loss` runs without a GPU.

The same two functions as the Triton kernels in `kernels/`, over a few rows at a time, so that what
is computed between reading the logits and writing the result stays in the processor's cache. The
chunks go to a thread each: PyTorch would otherwise split every small operation over the cores and
wait for all of them each time, which costs more than the operation.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from kdlab.divergences import Pair, slope, slope_teacher, value

# Elements of one chunk: 2¹⁸ float32 values are 1 MB, long enough to hide what Python does between
# two operations, short enough for the handful of buffers to stay in cache. All threads' buffers
# together hold no more than BUFFERED_ELEMENTS each: 6 · 4 bytes · 2²¹ = 50 MB.
CHUNK_ELEMENTS = 1 << 18
BUFFERED_ELEMENTS = 1 << 21
# Below this many elements in all, starting threads costs more than they save.
THREADED_ELEMENTS = 1 << 20
# For a GPU without Triton: six buffers of 256 MB at most.
GPU_ELEMENTS = 1 << 26

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


@dataclass
class Buffers:
    """Memory for one chunk after another: malloc would hand it back and fetch it anew each time."""

    x_s: Tensor
    x_t: Tensor
    v: Tensor
    u: Tensor
    scratch: Tensor
    scratch_2: Tensor

    def rows(self, n: int) -> "Buffers":
        return Buffers(*(buffer[:n] for buffer in vars(self).values()))


def _for_each_chunk(
    work: Callable[[int, int, Buffers], None], rows: int, classes: int, like: Tensor
) -> None:
    """work(i, j, buffers) for chunks of rows [i, j), each thread with one core and its buffers."""
    cores = torch.get_num_threads()
    on_cpu = like.device.type == "cpu"  # a GPU wants large operations, all on the caller's stream
    threads = min(cores, rows) if on_cpu and rows * classes >= THREADED_ELEMENTS else 1
    elements = min(CHUNK_ELEMENTS, BUFFERED_ELEMENTS // threads) if on_cpu else GPU_ELEMENTS
    step = max(1, min(elements // classes, -(-rows // threads)))
    starts = range(0, rows, step)

    # From the caller's heap: that of a thread goes back to the system with the thread.
    memory = like.new_empty(threads, 6, step, classes)

    def run(first: int) -> None:
        buffers = Buffers(*memory[first])
        with torch.no_grad():  # a new thread starts with gradients on
            for start in starts[first::threads]:
                end = min(start + step, rows)
                work(start, end, buffers.rows(end - start))

    def run_alone(first: int) -> None:
        torch.set_num_threads(1)  # of this thread, and of threads that start after it
        run(first)

    if threads == 1:
        run(0)
        return
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run_alone, range(threads)))
    finally:
        torch.set_num_threads(cores)


def _maximum(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """m of each row; a row of nothing but −inf gets m = 0, so that exp gives 0."""
    m = logits.amax(-1, keepdim=True).to(dtype)
    return m.masked_fill_(m == -torch.inf, 0.0)


def _pair(s: Tensor, t: Tensor, m_s: Tensor, m_t: Tensor, b: Tensor | None, use: Buffers) -> Pair:
    """x = β(z − m), exp(x) and their sums, for both sides; b is None where β = 1."""
    for z, m, x in ((s, m_s, use.x_s), (t, m_t, use.x_t)):
        torch.sub(z, m, out=x)
        if b is not None:
            x.mul_(b)
    v, u = torch.exp(use.x_s, out=use.v), torch.exp(use.x_t, out=use.u)
    z_s, z_t = v.sum(-1, keepdim=True), u.sum(-1, keepdim=True)
    return Pair(use.x_s, use.x_t, v, u, z_s, z_t, use.scratch, use.scratch_2)


def _difference(s: Tensor, t: Tensor, out: Tensor) -> Tensor:
    """z_t − z_s, 0 where both are −inf (or the same infinity), in `out`."""
    torch.sub(t.to(out.dtype), s, out=out)
    # inf − inf = NaN: only then the slow way (asking a GPU is slower still)
    if out.is_cuda or out.sum().isnan():
        out.masked_fill_(t == s, 0.0)
    return out


def _hard_slope(y_s: Tensor, z_1: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """scale · (softmax(z_s) − onehot(label))."""
    out = y_s.exp_().mul_(scale / z_1)
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
    is_one = beta.device.type == "cpu" and bool((beta == 1).all())

    def chunk(i: int, j: int, use: Buffers) -> None:
        b = beta[i:j, None].to(dtype)
        s, t = student[i:j], teacher[i:j]
        m_s = _maximum(s, dtype)
        zero = torch.zeros_like(m_s)
        total, found, pair = zero, [m_s] + [zero] * 7, None
        if settings.soft and divergence == "mse_logits":
            gap = _difference(s, t, use.scratch)
            found[6] = torch.mul(gap, gap, out=use.scratch_2).sum(-1, keepdim=True)
            total = (1 - alpha) * found[6]
        elif settings.soft:
            m_t = _maximum(t, dtype)
            pair = _pair(s, t, m_s, m_t, None if is_one else b, use)
            d, dot_s, dot_t = value(pair, divergence, mix)
            d = d.masked_fill_((pair.z_s == 0) | (pair.z_t == 0), torch.nan)
            found[1:7] = pair.z_s, m_t, pair.z_t, dot_s, dot_t, d
            total = (1 - alpha) * (d / b.square() if scaled else d)
        if settings.hard:
            assert labels is not None
            found[7] = (s - m_s).exp_().sum(-1, keepdim=True)
            hard = found[7].log() - (s.gather(-1, labels[i:j, None]) - m_s)
            total = total + alpha * hard.masked_fill_(found[7] == 0, torch.nan)
        stats[:, i:j] = torch.cat(found, -1).T
        if keep is not None:
            total = total.masked_fill(~keep[i:j, None], 0.0)
        loss[i:j] = total[:, 0]
        if gradient_scale is not None:
            g = gradient_scale.to(dtype).expand(j - i, 1)
            y = None if labels is None else labels[i:j]
            gradient[i:j] = _student_gradient(
                s, t, m_s, y, pair, b, g, found[4], found[7], settings, use
            )
            if keep is not None:
                gradient[i:j].masked_fill_(~keep[i:j, None], 0.0)

    if rows:
        _for_each_chunk(chunk, rows, classes, stats)
    return loss, stats, gradient


def _student_gradient(
    s: Tensor,
    t: Tensor,
    m_s: Tensor,
    labels: Tensor | None,
    pair: Pair | None,
    b: Tensor,
    g: Tensor,
    dot: Tensor,
    z_1: Tensor,
    settings: Settings,
    use: Buffers,
) -> Tensor:
    """g · ∂(row loss)/∂z_s for a chunk; β comes from the chain rule, and T² makes it T."""
    divergence, mix, alpha, scaled = settings
    out = None
    if pair is not None:
        out = slope(pair, divergence, mix, dot, (1 - alpha) * g * (1 / b if scaled else b))
    elif settings.soft:
        out = _difference(s, t, use.scratch).mul_(-2 * (1 - alpha) * g)
    if settings.hard:
        assert labels is not None
        hard = _hard_slope(s - m_s, z_1, labels, alpha * g)
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
    is_one = beta.device.type == "cpu" and bool((beta == 1).all())

    def chunk(i: int, j: int, use: Buffers) -> None:
        b = beta[i:j, None].to(dtype)
        g = grad_loss[i:j, None].to(dtype)
        m_s, z_s, m_t, z_t, dot_s, dot_t, d, z_1 = stats[:, i:j].unsqueeze(-1)
        s, t = student[i:j], teacher[i:j]
        drop = None if keep is None else ~keep[i:j, None]
        pair = None
        if settings.soft and divergence != "mse_logits":
            pair = replace(_pair(s, t, m_s, m_t, None if is_one else b, use), z_s=z_s, z_t=z_t)
        if for_student:
            y = None if labels is None else labels[i:j]
            out = _student_gradient(s, t, m_s, y, pair, b, g, dot_s, z_1, settings, use)
            grad_student[i:j] = out if drop is None else out.masked_fill_(drop, 0.0)
        if for_teacher and not settings.soft:
            grad_teacher[i:j] = 0.0
        elif for_teacher:
            if pair is not None:
                scale = (1 - alpha) * g * (1 / b if scaled else b)
                out = slope_teacher(pair, divergence, mix, dot_t, scale)
            else:
                out = _difference(s, t, use.scratch).mul_(2 * (1 - alpha) * g)
            grad_teacher[i:j] = out if drop is None else out.masked_fill_(drop, 0.0)
        if for_beta and pair is not None:
            one = torch.ones_like(b)
            towards = slope(pair, divergence, mix, dot_s, one).mul(pair.x_s)
            towards.masked_fill_(pair.x_s == -torch.inf, 0.0)
            other = slope_teacher(pair, divergence, mix, dot_t, one).mul_(pair.x_t)
            other.masked_fill_(pair.x_t == -torch.inf, 0.0)
            total = towards.add_(other).sum(-1, keepdim=True)
            out = (total - 2 * d) / b.pow(3) if scaled else total / b
            out = (1 - alpha) * g * out
            grad_beta[i:j] = (out if drop is None else out.masked_fill_(drop, 0.0))[:, 0]

    if rows:
        _for_each_chunk(chunk, rows, classes, stats)
    return grad_student, grad_teacher, grad_beta
