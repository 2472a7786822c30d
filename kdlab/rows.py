"""The loss of each row and its gradient, in PyTorch: what `distillation_loss` runs without a GPU.

The same sums as the Triton kernels in `kernels/`, over a few rows at a time, so that what is
computed between reading the logits and writing the result stays in the processor's cache.
Softmax is taken about each row's maximum m, with v = exp(β(z_s − m_s)), u = exp(β(z_t − m_t)) and
w = u − v. A student that has nearly learned its teacher has w ≈ 0; writing p − q and log(Z_s/Z_t)
through w keeps the digits that subtracting two nearly equal probabilities would lose.
"""

import torch
from torch import Tensor

# Elements of one chunk: 2¹⁷ float32 values are half a megabyte a buffer, so that the handful of
# buffers that a chunk needs fit in a typical L2/L3 slice.
CHUNK_ELEMENTS = 1 << 17

# What the backward pass needs of a row, saved by the forward pass: the maxima and normalisers of
# student and teacher, the dot product that the gradient subtracts, and the normaliser at T = 1.
STATS = ("m_s", "z_s", "m_t", "z_t", "dot", "z_1")


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32: half precision is only for storage."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _chunks(rows: int, classes: int):
    step = max(1, CHUNK_ELEMENTS // max(1, classes))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _centre(logits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """z − m and m for each row; a row of nothing but −inf keeps m = 0, so that exp gives 0."""
    z = logits.to(dtype)
    m = z.amax(-1, keepdim=True)
    m = m.masked_fill(m == -torch.inf, 0.0)
    return z - m, m


def _kl(x_s: Tensor, x_t: Tensor, v: Tensor, u: Tensor, z_s: Tensor, z_t: Tensor) -> Tensor:
    """KL(p ‖ q) = (Σ u (x_t − x_s)) / Z_t + log(Z_s / Z_t), the x being β(z − m)."""
    a = torch.linalg.vecdot(u, x_t - x_s).unsqueeze(-1)
    if a.isnan().any():  # 0 · inf, where a class is masked: only then is the slow way needed
        terms = (u * (x_t - x_s)).masked_fill(x_t == -torch.inf, 0.0)
        student_only = (x_s == -torch.inf) & (x_t > -torch.inf)
        a = terms.masked_fill(student_only, torch.inf).sum(-1, keepdim=True)
    w = (u - v).sum(-1, keepdim=True)
    close = w.abs() < 0.5 * z_t
    log_ratio = torch.where(close, torch.log1p(-w / z_t), z_s.log() - z_t.log())
    return (a / z_t + log_ratio).clamp_min(0.0)


def _mse(v: Tensor, u: Tensor, z_s: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:
    """Σ (p − q)² and Σ q (q − p), with p − q = (w − v Σw / Z_s) / Z_t."""
    w = u - v
    gap = (w - v * (w.sum(-1, keepdim=True) / z_s)) / z_t
    return gap.square().sum(-1, keepdim=True), -(v * gap).sum(-1, keepdim=True) / z_s


def forward(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    divergence: str,
    label_weight: float,
    temperature_scaling: bool,
) -> tuple[Tensor, Tensor]:
    """Row losses (N,) and the statistics (6, N) of `STATS` that `backward` reads.

    student, teacher: (N, V). labels: (N,) int64 in [0, V). keep: (N,) bool. beta: (N,).
    """
    rows, classes = student.shape
    dtype = compute_dtype(student, teacher)
    loss = student.new_zeros(rows, dtype=dtype)
    stats = student.new_zeros(len(STATS), rows, dtype=dtype)
    for i, j in _chunks(rows, classes):
        b = beta[i:j, None].to(dtype)
        y_s, m_s = _centre(student[i:j], dtype)
        total = torch.zeros_like(m_s)
        dot = z_s = z_t = m_t = z_1 = torch.zeros_like(m_s)
        if label_weight < 1:
            if divergence == "mse_logits":
                z, t = student[i:j].to(dtype), teacher[i:j].to(dtype)
                soft = (t - z).masked_fill_(t == z, 0.0).square_().sum(-1, keepdim=True)
            else:
                y_t, m_t = _centre(teacher[i:j], dtype)
                x_s, x_t = y_s * b, y_t * b
                v, u = x_s.exp(), x_t.exp()
                z_s, z_t = v.sum(-1, keepdim=True), u.sum(-1, keepdim=True)
                if divergence == "kl":
                    soft = _kl(x_s, x_t, v, u, z_s, z_t)
                else:
                    soft, dot = _mse(v, u, z_s, z_t)
                soft = soft.masked_fill((z_s == 0) | (z_t == 0), torch.nan)
                if temperature_scaling:
                    soft = soft / b.square()
            total = total + (1 - label_weight) * soft
        if label_weight > 0:
            assert labels is not None
            z_1 = y_s.exp().sum(-1, keepdim=True)
            hard = z_1.log() - y_s.gather(-1, labels[i:j, None])
            total = total + label_weight * hard.masked_fill(z_1 == 0, torch.nan)
        if keep is not None:
            total = total.masked_fill(~keep[i:j, None], 0.0)
        loss[i:j] = total[:, 0]
        stats[:, i:j] = torch.cat((m_s, z_s, m_t, z_t, dot, z_1), dim=-1).T
    return loss, stats


def backward(
    grad_loss: Tensor,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    stats: Tensor,
    divergence: str,
    label_weight: float,
    temperature_scaling: bool,
) -> Tensor:
    """∂(Σ grad_loss · row loss)/∂z_s, shaped and typed like `student`.

    kl: β (q − p).   mse: 2β q ((q − p) − Σ q (q − p)).   mse_logits: 2 (z_s − z_t).
    cross-entropy: softmax(z_s) − onehot(label).
    """
    rows, classes = student.shape
    dtype = stats.dtype
    grad = torch.empty_like(student, memory_format=torch.contiguous_format)
    for i, j in _chunks(rows, classes):
        b = beta[i:j, None].to(dtype)
        g = grad_loss[i:j, None].to(dtype)
        m_s, z_s, m_t, z_t, dot, z_1 = stats[:, i:j].unsqueeze(-1)
        s = student[i:j].to(dtype)
        out = None
        if label_weight < 1:
            t = teacher[i:j].to(dtype)
            if divergence == "mse_logits":
                out = (s - t).masked_fill_(s == t, 0.0).mul_((1 - label_weight) * 2 * g)
            else:
                scale = (1 - label_weight) * g * (1 / b if temperature_scaling else b)
                q = ((s - m_s) * b).exp_().mul_(1 / z_s)
                p = ((t - m_t) * b).exp_().mul_(1 / z_t)
                if divergence == "kl":
                    out = q.sub_(p).mul_(scale)
                else:
                    out = p.neg_().add_(q).sub_(dot).mul_(q).mul_(2 * scale)
        if label_weight > 0:
            assert labels is not None
            hard_scale = label_weight * g
            hard = (s - m_s).exp_().mul_(hard_scale / z_1)
            hard.scatter_add_(-1, labels[i:j, None], -hard_scale)
            out = hard if out is None else out.add_(hard)
        assert out is not None
        if keep is not None:
            out.masked_fill_(~keep[i:j, None], 0.0)
        grad[i:j] = out
    return grad
