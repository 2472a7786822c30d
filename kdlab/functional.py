"""`distillation_loss` and `soften`: check the arguments, call the operator, reduce."""

import importlib.util
import os
import re
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from kdlab import ops
from kdlab.arguments import (
    as_rows,
    beta_of_rows,
    check_beta,
    check_denominator,
    check_device,
    check_logits,
    check_settings,
    check_transforms,
    classes_compared,
    labels_of_rows,
    ordinary,
    rows_that_count,
)


def triton_version() -> tuple[int, ...] | None:
    """(major, minor) of the Triton that is installed, which PyTorch's nightlies call otherwise."""
    if importlib.util.find_spec("triton") is None:
        return None
    for name in ("triton", "pytorch-triton"):
        try:
            return tuple(map(int, re.findall(r"\d+", version(name))[:2]))
        except PackageNotFoundError:
            continue
    return None


OLDEST_TRITON = (3, 4)  # the kernels index tuples
_TRITON = triton_version()  # once: torch.compile cannot trace this
_HAS_TRITON = _TRITON is not None and _TRITON >= OLDEST_TRITON


def soften(logits: Tensor, beta: float | Tensor = 1.0) -> Tensor:
    """Temperature-softened probabilities, softmax(β z) = softmax(z / T) with T = 1/β.

    Args:
        logits: (..., V), floating point, any device.
        beta: inverse temperature β > 0; a float, a 0-dim tensor, or one value a row, shaped (...).

    Returns:
        (..., V) probabilities; float32, or float64 for float64 logits. Differentiable.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or shape, or a float β as in
            `distillation_loss`.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, eq. 1.

    >>> soften(torch.tensor([2.0, 0.0]), beta=0.5)
    tensor([0.7311, 0.2689])
    """
    check_logits("logits", logits)
    check_beta(beta)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    scale = beta_of_rows(beta, logits)
    if isinstance(scale, Tensor) and scale.dim():
        scale = scale.unsqueeze(-1)
    z = logits.to(dtype)
    largest = z.detach().amax(-1, keepdim=True)  # first, or β z might overflow
    return torch.softmax((z - largest) * scale, dim=-1)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    beta: float | Tensor = 1.0,
    divergence: str = "kl",
    mix: float = 0.5,
    label_weight: float = 0.0,
    temperature_scaling: bool = True,
    mask: Tensor | None = None,
    ignore_index: int = -100,
    num_classes: int | None = None,
    reduction: str = "mean",
    denominator: float | Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """How far the student's softened outputs are from the teacher's, plus the hard-label term.

    One row's value is (1 − α) · T² · D(p, q) + α · CE(z_s, label), with p = softmax(β z_t),
    q = softmax(β z_s), T = 1/β, and the cross-entropy at T = 1. D is

    ============  ===================  ==========================================================
    divergence    D                    source
    ============  ===================  ==========================================================
    "kl"          Σ p (log p − log q)  Hinton, Vinyals, Dean 2015 (with the teacher's entropy)
    "reverse_kl"  Σ q (log q − log p)  MiniLLM (Gu et al. 2024)
    "js"          see below            GKD (Agarwal et al. 2024), generalised Jensen-Shannon
    "mse"         Σ (p − q)²           the article's L_teach on softened outputs
    "mse_logits"  Σ (z_t − z_s)²       L_teach on raw outputs; Ba and Caruana 2014 (β, T² unused)
    "tv"          ½ ‖p − q‖₁           total variation (Wen et al. 2023)
    ============  ===================  ==========================================================

    and js = mix · KL(p ‖ m) + (1 − mix) · KL(q ‖ m) with m = mix · p + (1 − mix) · q. Numbers are
    computed in float32, whatever mix of half precisions comes, and in float64 where an input is.

    Args:
        student_logits: (..., V), float16, bfloat16, float32 or float64. Never written to. Rows may
            have any one stride; ``logits[:, :-1]`` of (B, L, V) has two, and is copied. To predict
            the next token, shift the labels instead: ``F.pad(labels[:, 1:], (0, 1), value=-100)``.
        teacher_logits: the same shape and device; the dtype may differ.
        labels: (...) int64 in [0, V); needed where label_weight > 0.
        beta: β, a float from 10⁻¹⁸ to 10¹⁸, a 0-dim tensor, or a tensor shaped (...), whose values
            outside of that give NaN for their rows. May require grad: a temperature can be learnt.
            Under torch.compile a float that changes compiles anew; a tensor does not.
        divergence: see the table.
        mix: the teacher's share of the mixture, for "js": strictly between 0 and 1, where js is 0
            for every student ("kl" and "reverse_kl" are what 0 and 1 mean elsewhere).
        label_weight: α in [0, 1]. Under torch.compile each value of it compiles anew.
        temperature_scaling: multiply the soft term by T² = β⁻², which keeps the size of its
            gradient about the same for every β (Hinton et al. 2015, section 2.1).
        mask: (...) bool; rows that are False count for nothing, whatever they hold.
        ignore_index: rows with this label count for nothing.
        num_classes: compare only the first n classes, without a copy of logits or gradients.
        reduction: "mean" over the rows that count, "sum", or "none" for shape (...).
        denominator: divides the sum in "mean" in place of the number of rows that count; for
            gradient accumulation over unequal micro-batches. A tensor under torch.compile, which
            compiles anew for each float.
        backend: None picks Triton for CUDA tensors and PyTorch otherwise; "triton" or "torch"
            insists.

    Returns:
        A scalar, or (...) for reduction="none": float32, or float64 if an input is float64. With no
        row that counts it is 0, and so is the gradient. Gradients go to the student, and to
        teacher_logits and beta where they require them, in the dtype of each. Nothing of the size
        of the logits is kept for backward but the logits, and the gradient itself where
        `gradient_in_forward` says so. A second derivative raises RuntimeError.

    Raises:
        RuntimeError: inside a `torch.func` transform, or in forward-mode differentiation (use
            `torch.autograd.grad`, or `kdlab.reference`).
        TypeError, ValueError: the message names the argument, what came and what was expected.
            Labels out of range raise ValueError on the CPU and stop the device on CUDA.

    Classes with logit −inf are masked: in both, no contribution; in the teacher only, p = 0;
    in the student only, "kl" is +inf ("reverse_kl" the other way round). NaN in a row that counts
    gives NaN, and so does a row without a finite logit (of "mse_logits", which normalises nothing,
    0 where both sides are masked whole, +inf where one is). In "triton", where a row is longer than
    a tile, so does one whose largest logit is so far from 0 that it, times β or (with labels) as it
    is, passes ±1.8 · 10⁸: float32 has steps of 16 there. Masks like −10⁹ beside larger logits are
    no trouble. One so low that β log₂ e times it is not a float32 any more, as
    ``torch.finfo(torch.float32).min`` is for β above 0.69, is taken for −inf.

    D falls with β², and float32 rounds it before T² makes it larger again. With 1,000 classes and
    logits of size 1, kl and reverse_kl lose 10⁻⁴ of their value at β = 10⁻³, a twentieth at 10⁻⁴
    and all of it at 10⁻⁵, and gradients 2 · 10⁻⁵, 2 · 10⁻⁴ and 2 · 10⁻³. Float64 logits lose no
    more at a ten-thousandth of these β.

    >>> student = torch.tensor([[0.0, 0.0], [3.0, 1.0]], requires_grad=True)
    >>> teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    >>> loss = distillation_loss(student, teacher, beta=0.5)
    >>> loss.detach()
    tensor(0.2219)
    >>> loss.backward()
    >>> student.grad
    tensor([[-0.2311,  0.2311],
            [ 0.0000,  0.0000]])
    """
    check_settings(
        beta,
        divergence,
        mix,
        label_weight,
        temperature_scaling,
        ignore_index,
        num_classes,
        reduction,
        backend,
    )
    check_logits("student_logits", student_logits)
    check_logits("teacher_logits", teacher_logits)
    check_transforms(
        student_logits=student_logits,
        teacher_logits=teacher_logits,
        labels=labels,
        beta=beta,
        mask=mask,
        denominator=denominator,
    )
    check_device("teacher_logits", teacher_logits, student_logits)
    row_shape = student_logits.shape[:-1]
    classes = classes_compared(student_logits, teacher_logits, num_classes)
    whole = classes == student_logits.shape[-1] == teacher_logits.shape[-1]

    dtype = torch.promote_types(
        torch.promote_types(student_logits.dtype, teacher_logits.dtype), torch.float32
    )
    scale = beta_of_rows(beta, student_logits)
    if not isinstance(scale, Tensor):
        scale = torch.full((), scale, dtype=dtype, device=student_logits.device)
    keep = rows_that_count(student_logits, labels, mask, ignore_index)
    row_labels = labels_of_rows(labels, keep, label_weight, classes)
    if denominator is not None:
        check_denominator(denominator, reduction, student_logits)

    operands = (
        as_rows(student_logits),
        as_rows(teacher_logits),
        row_labels,
        None if keep is None else ordinary(keep.reshape(-1).contiguous()),
        scale.to(dtype).expand(row_shape).reshape(-1),
    )
    settings = (
        divergence,
        float(mix),
        float(label_weight),
        temperature_scaling,
        None if whole else classes,
        _choose_backend(backend, student_logits),
    )
    if reduction == "none":
        return ops.call(ops.rows, *operands, *settings)[0].reshape(row_shape)
    share = _share(reduction, denominator, keep, operands[0].shape[0], dtype, student_logits.device)
    if gradient_in_forward(*operands[:2], operands[4], share, divergence):
        return ops.call(ops.total, *operands, share, *settings)[0]
    return ops.call(ops.rows, *operands, *settings)[0].sum() * share


def _share(
    reduction: str,
    denominator: float | Tensor | None,
    keep: Tensor | None,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """What the sum of the row losses is multiplied by: 0-dim, without waiting for the device."""
    if reduction == "sum":
        return torch.ones((), dtype=dtype, device=device)
    if isinstance(denominator, Tensor):
        divisor = denominator.to(device, dtype)
        divisor = divisor + torch.where(divisor >= 0, 0.0, torch.nan)
        # With no row that counts 1/n is 0, since 0 · 1/0 would be NaN.
        if rows == 0:
            divisor = divisor + torch.inf
        elif keep is not None:
            divisor = divisor.masked_fill(~keep.any(), torch.inf)
        return 1 / divisor
    if denominator is None and keep is not None:
        return 1 / keep.sum().clamp(min=1).to(dtype)
    n = denominator or max(rows, 1)
    if not torch.compiler.is_compiling():
        n = float(n)  # NumPy's half, say, would round its quotient
    return torch.full((), 1 / n, dtype=dtype, device=device)


def gradient_in_forward(
    student: Tensor, teacher: Tensor, beta: Tensor, share: Tensor, divergence: str
) -> bool:
    """Whether the student's gradient is made in the forward pass, while its row is still near.

    It saves the backward pass's reads: 6 bytes a bf16 logit in all instead of 10. Only where nobody
    else wants a gradient, and not
    - in float16: upstream factors (a loss scale) come after rounding, too late for its small range
      (in bfloat16 such a factor, if it is not a power of two, rounds a second time);
    - under torch.compile, which cannot give the gradient away without a copy, or torch.jit.trace,
      which traces again without gradients and must find the same operators;
    - under hooks for saved tensors, which activation checkpointing sets in order that nothing is
      kept until the backward pass;
    - for js in half precision on CUDA, which is bound by its logarithms rather than by memory.
    On an H100 it took 0.51 to 0.75 of the time of two passes for the other divergences with many
    rows, 0.95 with 8, and for js 0.87 in float32, but 1.22 in bfloat16: `benchmarks/results`,
    "kdlab, gradient in forward" and "in backward". (js has half of the instructions since, and has
    not been timed again.)
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.is_grad_enabled():
        return False
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return False
    if divergence == "js" and student.is_cuda and student.element_size() < 4:
        return False
    others = teacher.requires_grad or beta.requires_grad or share.requires_grad
    return student.requires_grad and not others and student.dtype != torch.float16


def default_backend(device: torch.device) -> str:
    """Which backend `distillation_loss` takes by itself for tensors on this device."""
    # AMD's GPUs are "cuda" to PyTorch, too: parts of the kernels are written for NVIDIA's.
    nvidia = device.type == "cuda" and torch.version.hip is None
    return "triton" if nvidia and _HAS_TRITON else "torch"


def _choose_backend(backend: str | None, student: Tensor) -> str:
    if student.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"student_logits: on device {student.device}; expected a CPU or CUDA tensor"
        )
    if backend is None:
        return default_backend(student.device)
    if backend == "triton":
        if not _HAS_TRITON:
            found = "none" if _TRITON is None else ".".join(map(str, _TRITON))
            needed = ".".join(map(str, OLDEST_TRITON))
            raise ValueError(f"backend: 'triton' needs Triton {needed} or newer; found {found}")
        if student.device.type == "cpu" and not _interpreted():
            raise ValueError(
                "backend: 'triton' needs CUDA tensors, or TRITON_INTERPRET=1 set before Triton is "
                "imported; got tensors on the CPU"
            )
        if student.device.type == "cuda" and torch.version.hip is not None:
            raise ValueError("backend: 'triton' needs an NVIDIA GPU; this PyTorch is for AMD's")
    return backend


def _interpreted() -> bool:
    """Whether Triton's functions are those of its interpreter, as they were made at its import."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return False
    import triton.language

    return type(triton.language.sum).__name__ == "InterpretedFunction"
