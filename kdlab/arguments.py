"""The arguments of `distillation_loss`: checked, each by its name, and brought to one form.

An error says what came and what was expected. Nothing here waits for a GPU.
"""

import numbers
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kdlab import ops

DIVERGENCES = ("kl", "reverse_kl", "js", "mse", "mse_logits", "tv")
REDUCTIONS = ("none", "sum", "mean")
BACKENDS = (None, "triton", "torch")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
CLASSES_LAST = "(classes are the logits' last dimension: logits.movedim(1, -1) of (N, V, H, W))"
SMALLEST_BETA, LARGEST_BETA = 1e-18, 1e18  # β² and T² are float32 numbers


def check_settings(
    beta: Any,
    divergence: Any,
    mix: Any,
    label_weight: Any,
    temperature_scaling: Any,
    ignore_index: Any,
    num_classes: Any,
    reduction: Any,
    backend: Any,
) -> None:
    """What can be said of the settings without logits, as `distillation_loss` says it."""
    _check_choice("divergence", divergence, DIVERGENCES)
    _check_choice("reduction", reduction, REDUCTIONS)
    _check_choice("backend", backend, BACKENDS)
    _check_unit("mix", mix)
    if divergence == "js" and mix in (0, 1):
        other = "'kl' or 'reverse_kl'"
        raise ValueError(f"mix: got {mix}; expected 0 < mix < 1, since js is 0 there (use {other})")
    _check_unit("label_weight", label_weight)
    if not isinstance(temperature_scaling, bool):
        raise TypeError(
            f"temperature_scaling: got {_describe(temperature_scaling)}; expected True or False"
        )
    _check_int("ignore_index", ignore_index)
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index: got {ignore_index}; expected a 64-bit integer")
    if num_classes is not None:
        _check_int("num_classes", num_classes)
        if num_classes < 1:
            raise ValueError(f"num_classes: got {num_classes}; expected at least 1")
    check_beta(beta)


def _describe(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"a tensor of shape {tuple(x.shape)} and dtype {x.dtype}"
    if x is None or isinstance(x, (bool, int, float, str)):
        return f"{type(x).__name__} {x!r}"
    of = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
    return f"{type(x).__name__}{of}" + (" (pass its .logits)" if hasattr(x, "logits") else "")


def _check_choice(name: str, value: Any, choices: tuple) -> None:
    known_kind = value is None or isinstance(value, str)  # a NumPy array has no one truth value
    if not known_kind or value not in choices:
        known = ", ".join(map(repr, choices))
        hint = " ('mean' divides by the rows)" if known_kind and value == "batchmean" else ""
        raise ValueError(f"{name}: got {value!r}; expected one of {known}{hint}")


def _is_number(x: Any) -> bool:
    if isinstance(x, (bool, int, float)):
        return not isinstance(x, bool)
    return not torch.compiler.is_compiling() and isinstance(x, numbers.Real)  # NumPy's, say


def _check_int(name: str, value: Any) -> None:
    compiling = torch.compiler.is_compiling()  # knows no abstract classes
    of = int if compiling else numbers.Integral
    if isinstance(value, bool) or not isinstance(value, of):
        raise TypeError(f"{name}: got {_describe(value)}; expected an int")


# Tuples of types below: the compiler of PyTorch 2.8 knows no unions.
def _check_unit(name: str, value: Any) -> None:
    if not _is_number(value):
        raise TypeError(f"{name}: got {_describe(value)}; expected a float in [0, 1]")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}; expected a float in [0, 1]")


def check_logits(name: str, logits: Any) -> None:
    if not isinstance(logits, Tensor):
        raise TypeError(f"{name}: got {_describe(logits)}; expected a tensor (..., V)")
    if logits.dtype not in FLOATS:
        expected = "float16, bfloat16, float32 or float64"
        raise TypeError(f"{name}: got {_describe(logits)}; expected {expected}")
    if logits.is_nested or logits.layout is not torch.strided:
        kind = "a nested tensor" if logits.is_nested else f"a tensor of layout {logits.layout}"
        raise TypeError(f"{name}: got {kind}; expected a dense one")
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{name}: got {_describe(logits)}; expected (..., V) with V at least 1")


def check_transforms(**arguments: Any) -> None:
    if torch.compiler.is_compiling():
        return
    for name, x in arguments.items():
        if not isinstance(x, Tensor):
            continue
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            seen = "inside a torch.func transform (grad, vmap, ...)"
        elif forward_ad.unpack_dual(x).tangent is not None:
            seen = "with a tangent, of forward-mode differentiation"
        else:
            continue
        raise RuntimeError(
            f"{name}: {seen}, which kdlab's operators do not have; use torch.autograd.grad, or the "
            "plain formulas of kdlab.reference"
        )


def check_device(name: str, tensor: Tensor, student: Tensor) -> None:
    if tensor.device != student.device:
        raise ValueError(
            f"{name}: on {tensor.device}; expected {student.device}, where student_logits is"
        )


def classes_compared(student: Tensor, teacher: Tensor, n: int | None) -> int:
    """How many classes both sides have, or n of them."""
    expected = tuple(student.shape)
    if n is not None:
        most = min(student.shape[-1], teacher.shape[-1])
        if not 1 <= n <= most:
            raise ValueError(f"num_classes: got {n}; expected 1 to {most}, what the logits have")
        expected = (*student.shape[:-1], teacher.shape[-1])
    if tuple(teacher.shape) != expected:
        raise ValueError(
            f"teacher_logits: got shape {tuple(teacher.shape)}; expected {expected}, "
            "the shape of student_logits (num_classes cuts padded vocabularies)"
        )
    return student.shape[-1] if n is None else n


def check_beta(beta: Any) -> None:
    if isinstance(beta, Tensor):
        if not beta.is_floating_point():
            raise TypeError(f"beta: got {_describe(beta)}; expected a floating-point tensor")
    elif not _is_number(beta):
        raise TypeError(f"beta: got {_describe(beta)}; expected a float or a tensor")
    elif not SMALLEST_BETA <= beta <= LARGEST_BETA:
        limits = f"{SMALLEST_BETA} to {LARGEST_BETA}"
        raise ValueError(f"beta: got {beta}; expected a number above 0, from {limits}")


def beta_of_rows(beta: float | Tensor, logits: Tensor) -> float | Tensor:
    """β as a float, or a tensor () or shaped like the rows, NaN where a float would be refused."""
    if not isinstance(beta, Tensor):
        return float(beta)
    row_shape = logits.shape[:-1]
    if beta.dim():
        if beta.shape != row_shape:
            raise ValueError(
                f"beta: got shape {tuple(beta.shape)}; expected () or {tuple(row_shape)}, one a "
                f"row {CLASSES_LAST}"
            )
        check_device("beta", beta, logits)
    beta = beta.to(logits.device)
    # Added, so that a gradient that is NaN, too, comes through.
    allowed = (beta >= SMALLEST_BETA) & (beta <= LARGEST_BETA)
    return beta + torch.where(allowed, 0.0, torch.nan)


def rows_that_count(student: Tensor, labels: Any, mask: Any, ignore_index: int) -> Tensor | None:
    row_shape = student.shape[:-1]
    if mask is not None:
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            hint = " (mask.bool(); for weights, reduction='none' and multiply)"
            hint = hint if isinstance(mask, Tensor) else ""
            raise TypeError(f"mask: got {_describe(mask)}; expected a bool tensor{hint}")
        if mask.shape != row_shape:
            raise ValueError(
                f"mask: got shape {tuple(mask.shape)}; expected {tuple(row_shape)}, one a row "
                f"{CLASSES_LAST}"
            )
        check_device("mask", mask, student)
    if labels is None:
        return mask
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.int32):
        hint = " (of class numbers; soft labels' cross-entropy is F.cross_entropy's)"
        hint = hint if isinstance(labels, Tensor) else ""
        raise TypeError(f"labels: got {_describe(labels)}; expected an int64 or int32 tensor{hint}")
    if labels.shape != row_shape:
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}; expected {tuple(row_shape)}, one a row "
            f"{CLASSES_LAST}"
        )
    check_device("labels", labels, student)
    keep = labels.long() != ignore_index  # which need not be an int32
    if mask is not None:
        keep = mask & keep
    # Mostly all of them do: then there is nothing to leave out. (Not asked of a GPU, which would
    # have to be waited for, nor where the answer would go into a graph that sees other labels.)
    return None if keep.device.type == "cpu" and not ops.watched(keep) and keep.all() else keep


def labels_of_rows(
    labels: Tensor | None, keep: Tensor | None, label_weight: float, classes: int
) -> Tensor | None:
    """Labels of the rows that count, flat; the others become 0, a class that always exists."""
    if labels is None:
        if label_weight > 0:
            raise ValueError(f"labels: got None; label_weight={label_weight} needs them")
        return None
    counted = labels if keep is None else torch.where(keep, labels, 0)
    flat = ordinary(counted.reshape(-1).long().contiguous())
    # (Without values, as in FakeTensorMode, there is nothing to compare.)
    values = not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() == 0
    if labels.device.type == "cpu" and values:
        for worst in flat.aminmax() if len(flat) else ():
            if not 0 <= worst.item() < classes:
                raise ValueError(
                    f"labels: got {worst}; expected values in [0, {classes}), or ignore_index"
                )
    else:  # a device-side assert: no synchronisation
        inside = ((flat >= 0) & (flat < classes)).all()
        torch._assert_async(inside, f"labels: expected values in [0, {classes})")
    return flat if label_weight > 0 else None


def check_denominator(denominator: Any, reduction: str, student: Tensor) -> None:
    if reduction != "mean":
        raise ValueError(f"denominator: given with reduction={reduction!r}; expected 'mean'")
    if isinstance(denominator, Tensor):
        if denominator.dim() != 0:
            raise ValueError(
                f"denominator: got shape {tuple(denominator.shape)}; expected a 0-dim tensor"
            )
        if denominator.dtype == torch.bool or denominator.is_complex():
            raise TypeError(f"denominator: got {_describe(denominator)}; expected a real number")
        if denominator.is_cuda and denominator.device != student.device:
            check_device("denominator", denominator, student)
    elif not _is_number(denominator):
        raise TypeError(f"denominator: got {_describe(denominator)}; expected a float or a tensor")
    elif not 0 < denominator < float("inf"):
        raise ValueError(f"denominator: got {denominator}; expected a finite number above 0")


def as_rows(logits: Tensor) -> Tensor:
    """(..., V) as (N, V). One copy, where the last dimension is not dense or the others are not
    evenly spaced, as those of logits[:, :-1] are not."""
    rows = logits
    if logits.dim() != 2:
        rows = logits.reshape(logits.shape[:-1].numel(), logits.shape[-1])
    return ordinary(rows if rows.stride(-1) == 1 else rows.contiguous())


def ordinary(x: Tensor) -> Tensor:
    """x as its memory has it, which a kernel reads: not only marked as negated. And where it was
    made in inference mode, another tensor on the same memory, since autograd saves none that was.
    """
    if torch.compiler.is_compiling():
        return x
    x = x.resolve_neg()
    if x.is_inference() and not torch.is_inference_mode_enabled():
        x = x.new_empty(0).set_(x)  # type: ignore[call-overload]
    return x
