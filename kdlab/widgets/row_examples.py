"""Rows of logits for the kernel stepper, made up to show one thing each."""

import math

import torch
from torch import Tensor

CLASSES = 32


def example_rows() -> dict[str, tuple[Tensor, Tensor]]:
    """Name → (student_logits, teacher_logits), both (32,), float64, the same every time."""
    generator = torch.Generator().manual_seed(5)
    teacher = 2.5 * torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    student = teacher + 1.5 * torch.randn(CLASSES, generator=generator, dtype=torch.float64)
    masked_s, masked_t = student.clone(), teacher.clone()
    masked_s[:8] = masked_t[:8] = -math.inf
    far_s, far_t = student.clone(), teacher.clone()
    far_s[-2:] = torch.tensor([110.0, 109.0], dtype=torch.float64)
    far_t[-2:] = torch.tensor([120.0, 119.3], dtype=torch.float64)
    near = teacher + 1e-4 * (student - teacher)
    return {
        "a row of 32 classes": (student, teacher),
        "first classes all −∞": (masked_s, masked_t),
        "far maximum in the last tile": (far_s, far_t),
        "student almost its teacher": (near, teacher),
    }
