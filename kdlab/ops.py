"""The operators of the library, registered with PyTorch: CPU and CUDA behind one name each.

    kdlab::rows            row losses, and the statistics that the gradients need
    kdlab::rows_backward   the gradients for student, teacher and β, from logits and statistics
    kdlab::total           scale · Σ row losses, with the student's gradient made on the way
    kdlab::scale_          multiply that gradient by what arrives from above, in place

They have shapes for tracing (`register_fake`) and autograd formulas, so that autograd,
`torch.compile` and the profiler see opaque steps. Where none of these looks on, `call` does the
same without the dispatcher, whose way to Python and back is a fifth of the time of a small batch
(200 × 10, loss and gradient on one core: 0.47 ms and 0.38 ms). `backend` says who computes:
"torch" (`kdlab.rows`, any device) or "triton" (`kdlab.kernels`: CUDA, or the CPU with
TRITON_INTERPRET=1).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kdlab import rows as torch_rows
from kdlab.rows import STATS, Settings, compute_dtype

_DEVICES = ("cpu", "cuda")


def _implementation(backend: str):
    if backend == "triton":
        from kdlab.kernels import launch  # Triton loads where it is used

        return launch
    return torch_rows


def _rows(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    divergence: str,
    mix: float,
    label_weight: float,
    temperature_scaling: bool,
    classes: int | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Row losses (N,) and statistics (9, N)."""
    settings = Settings(divergence, mix, label_weight, temperature_scaling, classes)
    forward = _implementation(backend).forward
    loss, stats, _ = forward(student, teacher, labels, keep, beta, settings)
    return loss, stats


def _rows_backward(
    grad_loss: Tensor,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    stats: Tensor,
    for_student: bool,
    for_teacher: bool,
    for_beta: bool,
    divergence: str,
    mix: float,
    label_weight: float,
    temperature_scaling: bool,
    classes: int | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for z_s (N, V), z_t (N, V) and β (N,); empty where not asked for."""
    settings = Settings(divergence, mix, label_weight, temperature_scaling, classes)
    wanted = (for_student, for_teacher, for_beta)
    backward = _implementation(backend).backward
    return backward(grad_loss, student, teacher, labels, keep, beta, stats, settings, wanted)


def _total(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    scale: Tensor,
    divergence: str,
    mix: float,
    label_weight: float,
    temperature_scaling: bool,
    classes: int | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """scale · Σ row losses (0-dim), the statistics, and its gradient for z_s (N, V)."""
    settings = Settings(divergence, mix, label_weight, temperature_scaling, classes)
    forward = _implementation(backend).forward
    loss, stats, gradient = forward(student, teacher, labels, keep, beta, settings, scale)
    return loss.sum() * scale, stats, gradient


def _scale_(gradient: Tensor, factor: Tensor, backend: str) -> None:
    """gradient *= factor (0-dim), untouched where the factor is 1, as it mostly is.

    What is 0 stays 0: rows that don't count, also for a loss scale that has become infinite.
    """
    if backend == "triton":
        _implementation(backend).scale_(gradient, factor)
        return
    known = factor.item() if gradient.device.type == "cpu" else math.nan  # don't wait for a GPU
    if known == 1:
        return
    zero = None if math.isfinite(known) else gradient == 0
    gradient.mul_(factor)
    if zero is not None:
        gradient.masked_fill_(zero, 0.0)


def _register(name: str, function, mutates: tuple[str, ...] = ()):
    return torch.library.custom_op(name, function, mutates_args=mutates, device_types=_DEVICES)


rows = _register("kdlab::rows", _rows)
rows_backward = _register("kdlab::rows_backward", _rows_backward)
total = _register("kdlab::total", _total)
scale_ = _register("kdlab::scale_", _scale_, mutates=("gradient",))


def _fake_stats(student: Tensor, teacher: Tensor) -> Tensor:
    dtype = compute_dtype(student, teacher)
    return student.new_empty(len(STATS), student.shape[0], dtype=dtype)


def _fake_gradient(logits: Tensor, wanted: bool = True) -> Tensor:
    return logits.new_empty(logits.shape if wanted else 0)


@rows.register_fake
def _(student, teacher, *_):
    stats = _fake_stats(student, teacher)
    return stats.new_empty(student.shape[0]), stats


@rows_backward.register_fake
def _(
    grad_loss, student, teacher, labels, keep, beta, stats, for_student, for_teacher, for_beta, *_
):
    return (
        _fake_gradient(student, for_student),
        _fake_gradient(teacher, for_teacher),
        beta.new_empty(beta.shape[0] if for_beta else 0),
    )


@total.register_fake
def _(student, teacher, *_):
    stats = _fake_stats(student, teacher)
    return stats.new_empty(()), stats, _fake_gradient(student)


def _save_rows(ctx, inputs, output):
    student, teacher, labels, keep, beta, *ctx.settings = inputs
    ctx.save_for_backward(student, teacher, labels, keep, beta, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _rows_gradients(ctx, grad_loss, _grad_stats):
    nothing = (None,) * 11
    student, teacher, labels, keep, beta, stats = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 4)]
    if grad_loss is None or not any(needs):
        return nothing
    found = rows_backward(
        grad_loss, student, teacher, labels, keep, beta, stats, *needs, *ctx.settings
    )
    for_student, for_teacher, for_beta = (
        g if n else None for g, n in zip(found, needs, strict=True)
    )
    return for_student, for_teacher, None, None, for_beta, *nothing[5:]


rows.register_autograd(_rows_gradients, setup_context=_save_rows)


def _no_second_derivative(ctx, *_):
    raise RuntimeError(
        "kdlab.distillation_loss has no second derivative; kdlab.reference has the plain formulas"
    )


rows_backward.register_autograd(_no_second_derivative)


def _save_total(ctx, inputs, output):
    student, teacher, labels, keep, beta, scale, *ctx.settings = inputs
    _, stats, gradient = output
    ctx.save_for_backward(student, teacher, labels, keep, beta, scale, stats)
    ctx.mark_non_differentiable(stats, gradient)
    # A tracer's stand-in cannot be given away; the traced backward makes the gradient itself.
    ctx.gradient = gradient if type(gradient) is Tensor else None
    ctx.set_materialize_grads(False)


def _total_gradient(ctx, grad_total, *_):
    """Give away the gradient that forward made; a second backward makes its own from the logits,
    and both multiply by what arrives from above last, so that they are the same."""
    nothing = (None,) * 12
    if grad_total is None or not ctx.needs_input_grad[0]:
        return nothing
    gradient, ctx.gradient = ctx.gradient, None
    if gradient is None or torch.is_grad_enabled():  # or a second derivative is asked for
        student, teacher, labels, keep, beta, scale, stats = ctx.saved_tensors
        grad_loss = scale.to(stats.dtype).expand(student.shape[0])
        operands = grad_loss, student, teacher, labels, keep, beta, stats
        gradient, _, _ = rows_backward(*operands, True, False, False, *ctx.settings)
    compiling = torch.compiler.is_compiling()  # the backward pass, by compiled autograd
    batched = not compiling and torch._C._functorch.is_legacy_batchedtensor(grad_total)
    if torch.is_grad_enabled() or batched or torch._C._are_functorch_transforms_active():
        return gradient * grad_total, *nothing[1:]
    scale = scale_ if watched(gradient, grad_total) else _scale_
    scale(gradient, grad_total, ctx.settings[-1])
    return gradient, *nothing[1:]


total.register_autograd(_total_gradient, setup_context=_save_total)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        output = _rows(*inputs)
        _save_rows(ctx, inputs, output)
        return output

    backward = staticmethod(_rows_gradients)


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        output = _total(*inputs)
        _save_total(ctx, inputs, output)
        return output

    backward = staticmethod(_total_gradient)


_FUNCTION = {rows: _Rows, total: _Total}


def call(op: Any, *arguments: Any) -> tuple[Tensor, ...]:
    """op(*arguments) for `rows` or `total`, by the shorter way where nothing but autograd sees; the
    losses alone where autograd does not either."""
    if watched(*arguments):
        return op(*arguments)
    if op is rows and not _differentiated(*arguments):
        return (_row_losses(*arguments),)
    return _FUNCTION[op].apply(*arguments)


def _differentiated(*arguments: Any) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in arguments
    )


def _row_losses(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    *settings: Any,
) -> Tensor:
    *same, backend = settings
    operands = student, teacher, labels, keep, beta, Settings(*same)
    if backend == "torch":
        return torch_rows.forward(*operands, for_gradients=False)[0]
    return _implementation(backend).forward(*operands)[0]


def watched(*arguments: Any) -> bool:
    """Whether something wants to see the operator: a compiler or tracer, a transform of
    `torch.func`, a mode (of FLOP counters, say), a subclass of Tensor, the profiler."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.autograd.profiler._is_profiler_enabled
        or any(isinstance(x, Tensor) and type(x) not in (Tensor, nn.Parameter) for x in arguments)
    )
