"""The two operators of the library, forward and backward, registered with PyTorch.

`torch.ops.kdlab.rows` and `torch.ops.kdlab.rows_backward` have a CPU and a CUDA implementation
behind one name, shapes for tracing (`register_fake`) and an autograd formula, so that autograd,
`torch.compile` and the profiler see one opaque step. `backend` says who computes: "torch"
(`kdlab.rows`, any device) or "triton" (`kdlab.kernels`: CUDA, or the CPU under TRITON_INTERPRET=1).
"""

import torch
from torch import Tensor

from kdlab import rows as torch_rows


def _implementation(backend: str):
    if backend == "triton":
        from kdlab.kernels import launch  # Triton loads where it is used

        return launch
    return torch_rows


@torch.library.custom_op("kdlab::rows", mutates_args=(), device_types=("cpu", "cuda"))
def rows(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    divergence: str,
    label_weight: float,
    temperature_scaling: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Row losses (N,) and what the backward pass needs (6, N)."""
    forward = _implementation(backend).forward
    return forward(
        student, teacher, labels, keep, beta, divergence, label_weight, temperature_scaling
    )


@torch.library.custom_op("kdlab::rows_backward", mutates_args=(), device_types=("cpu", "cuda"))
def rows_backward(
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
    backend: str,
) -> Tensor:
    """The gradient for the student's logits (N, V)."""
    return _implementation(backend).backward(
        grad_loss,
        student,
        teacher,
        labels,
        keep,
        beta,
        stats,
        divergence,
        label_weight,
        temperature_scaling,
    )


@rows.register_fake
def _(student, teacher, labels, keep, beta, divergence, label_weight, temperature_scaling, backend):
    dtype = torch_rows.compute_dtype(student, teacher)
    n = student.shape[0]
    return student.new_empty(n, dtype=dtype), student.new_empty(
        len(torch_rows.STATS), n, dtype=dtype
    )


@rows_backward.register_fake
def _(grad_loss, student, *_):
    return torch.empty_like(student, memory_format=torch.contiguous_format)


def _save(ctx, inputs, output):
    student, teacher, labels, keep, beta, *ctx.settings = inputs
    ctx.save_for_backward(student, teacher, labels, keep, beta, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad_loss, _grad_stats):
    student, teacher, labels, keep, beta, stats = ctx.saved_tensors
    grad = None
    if grad_loss is not None and ctx.needs_input_grad[0]:
        grad = rows_backward(grad_loss, student, teacher, labels, keep, beta, stats, *ctx.settings)
    return (grad,) + (None,) * 8


rows.register_autograd(_backward, setup_context=_save)
