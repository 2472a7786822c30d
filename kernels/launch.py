"""Tile sizes, warps and launches: the same two functions as `kdlab.rows`, through Triton."""

import torch
import triton
import triton.language as tl
from kdlab.kernels.backward import backward_kernel
from kdlab.kernels.forward import forward_kernel
from kdlab.kernels.row_state import KL, MSE, MSE_LOGITS
from torch import Tensor

from kdlab.rows import STATS, compute_dtype

DIVERGENCE = {"kl": KL, "mse": MSE, "mse_logits": MSE_LOGITS}

# Sixteen elements a thread keep two fp32 tiles and their exponentials in registers, and are two
# 128-bit loads a tensor in half precision, four in single: tests/test_compile.py holds it to that.
MAX_BLOCK = 8192
ELEMENTS_A_THREAD = 16


def tile_shape(classes: int) -> tuple[int, int]:
    """(BLOCK, num_warps) for rows of this many classes.

    >>> tile_shape(10), tile_shape(1000), tile_shape(128_256)
    ((16, 1), (1024, 2), (8192, 16))
    """
    block = min(MAX_BLOCK, max(16, triton.next_power_of_2(classes)))
    return block, max(1, block // (32 * ELEMENTS_A_THREAD))


def accumulate_dtype(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


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
    """Row losses (N,) and statistics (6, N); arguments as `kdlab.rows.forward`."""
    rows, classes = student.shape
    dtype = compute_dtype(student, teacher)
    loss = student.new_empty(rows, dtype=dtype)
    stats = student.new_empty(len(STATS), rows, dtype=dtype)
    if rows == 0:
        return loss, stats
    block, warps = tile_shape(classes)
    with _device_of(student):
        forward_kernel[(rows,)](
            student,
            teacher,
            labels,
            keep,
            beta,
            loss,
            stats,
            student.stride(0),
            teacher.stride(0),
            beta.stride(0),
            rows,
            classes,
            label_weight,
            DIVERGENCE=DIVERGENCE[divergence],
            SOFT=label_weight < 1,
            HARD=label_weight > 0,
            HAS_KEEP=keep is not None,
            TEMPERATURE_SCALING=temperature_scaling,
            ACC=accumulate_dtype(dtype),
            BLOCK=block,
            num_warps=warps,
        )
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
    """The gradient for the student's logits; arguments as `kdlab.rows.backward`."""
    rows, classes = student.shape
    grad = torch.empty_like(student, memory_format=torch.contiguous_format)
    if rows == 0:
        return grad
    block, warps = tile_shape(classes)
    tiles = triton.cdiv(classes, block)
    with _device_of(student):
        backward_kernel[(rows * tiles,)](
            grad_loss,
            student,
            teacher,
            labels,
            keep,
            beta,
            stats,
            grad,
            grad_loss.stride(0),
            student.stride(0),
            teacher.stride(0),
            beta.stride(0),
            grad.stride(0),
            rows,
            classes,
            tiles,
            label_weight,
            DIVERGENCE=DIVERGENCE[divergence],
            SOFT=label_weight < 1,
            HARD=label_weight > 0,
            HAS_KEEP=keep is not None,
            TEMPERATURE_SCALING=temperature_scaling,
            ACC=accumulate_dtype(stats.dtype),
            BLOCK=block,
            num_warps=warps,
        )
    return grad


def _device_of(tensor: Tensor):
    """Triton launches on the current device: make that the tensor's (nothing to do on the CPU)."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)
