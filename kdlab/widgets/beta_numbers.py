"""What the β explorer shows of one example, as numbers."""

from typing import Any

import torch
from torch import Tensor

from kdlab.arguments import DIVERGENCES
from kdlab.functional import distillation_loss, soften
from kdlab.metrics import effective_classes, entropy

# Every widget offers what the library computes.
__all__ = ["DIVERGENCES", "FORMULAS", "loss_name", "measure"]

FORMULAS = {
    "kl": "KL(p‖q)",
    "reverse_kl": "KL(q‖p)",
    "js": "JS(p, q)",
    "mse": "Σ (p − q)²",
    "mse_logits": "Σ (z_t − z_s)²",
    "tv": "½ Σ |p − q|",
}


def measure(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: float = 1.0,
    divergence: str = "kl",
    mix: float = 0.5,
    temperature_scaling: bool = True,
) -> dict[str, Any]:
    """Everything the explorer shows of one example: logits (V,) in, plain Python numbers out.

    p = softmax(β z_t), q = softmax(β z_s), `distillation_loss` of the row, and its gradient
    ∂loss/∂z_s by autograd.

    >>> numbers = measure(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 0.0]), beta=0.5)
    >>> [round(g, 4) for g in numbers["gradient"]]
    [-0.4621, 0.4621]
    """
    z = student_logits.detach().requires_grad_()
    with torch.enable_grad():
        loss = distillation_loss(
            z,
            teacher_logits.detach(),
            beta=beta,
            divergence=divergence,
            mix=mix,
            temperature_scaling=temperature_scaling,
        )
        (gradient,) = torch.autograd.grad(loss, z)
    p, q = soften(teacher_logits, beta), soften(z.detach(), beta)
    return {
        "loss": loss.item(),
        "teacher_entropy": entropy(p).item(),
        "student_entropy": entropy(q).item(),
        "teacher_effective_classes": effective_classes(p).item(),
        "student_effective_classes": effective_classes(q).item(),
        "teacher_probabilities": p.tolist(),
        "student_probabilities": q.tolist(),
        "gradient": gradient.tolist(),
    }


def loss_name(divergence: str, temperature_scaling: bool) -> str:
    """The loss in symbols, with the T² where it enters.

    >>> loss_name("kl", True), loss_name("mse_logits", True)
    ('T² · KL(p‖q)', 'Σ (z_t − z_s)²')
    """
    formula = FORMULAS.get(divergence, divergence)
    scaled = temperature_scaling and divergence != "mse_logits"
    return f"T² · {formula}" if scaled else formula
