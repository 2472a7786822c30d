"""The error of a loss and its gradient against float64, far from the teacher and close to it.

"random" is a student that knows nothing of its teacher, "near" one that has nearly learned it
(z_s = z_t + 0.02 noise, as far as the dtype can hold that): there p − q is a small difference, and
losses that make p and q first lose their digits.
"""

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers import MIX, TEMPERATURE, Loss
from kdlab import reference

GRADIENT_ROWS = 256  # rows whose gradient is compared, evenly spaced over the batch
CHUNK_ELEMENTS = 1 << 22


def near_student(teacher: Tensor) -> Tensor:
    generator = torch.Generator(teacher.device).manual_seed(1)
    noise = torch.empty_like(teacher).normal_(0, 0.02, generator=generator)
    return (teacher + noise).detach().requires_grad_()


def _rows(z_s: Tensor, z_t: Tensor, divergence: str) -> Tensor:
    """T² D of each row in float64, by the definition."""
    beta = 1 / TEMPERATURE
    s, t = z_s.double(), z_t.double()
    if divergence == "mse_logits":
        return reference.mse_logits(s, t)
    settings = {"mix": MIX} if divergence == "js" else {}
    return getattr(reference, divergence)(s, t, beta, **settings) * TEMPERATURE**2


class Exact:
    """The float64 loss over all rows and gradient of some, and how far a peer is from them."""

    def __init__(self, case: Case, student: Tensor, teacher: Tensor) -> None:
        self.student, self.teacher = student, teacher
        rows = len(student)
        step = max(1, CHUNK_ELEMENTS // case.classes)
        with torch.no_grad():
            pairs = zip(student.split(step), teacher.split(step), strict=True)
            total = sum(_rows(s, t, case.divergence).sum() for s, t in pairs)
        self.loss = (total / rows).item()
        self.rows = torch.linspace(0, rows - 1, min(rows, GRADIENT_ROWS)).long().to(student.device)
        gradients = []
        for part in self.rows.split(step):
            z = student.detach()[part].double().requires_grad_()
            value = _rows(z, teacher[part], case.divergence).sum()
            gradients.append(torch.autograd.grad(value, z)[0])
        self.gradient = torch.cat(gradients)

    def error(self, loss: Loss) -> dict[str, float]:
        """Relative errors of the value and of the gradient (2-norm over the rows compared)."""
        value = loss(self.student, self.teacher)
        # The gradient of the sum: that of the mean is below what float16 can hold.
        upstream = torch.full_like(value, len(self.student))
        (gradient,) = torch.autograd.grad(value, self.student, upstream)
        gap = gradient[self.rows].double() - self.gradient
        return {
            "loss": abs(value.item() - self.loss) / abs(self.loss),
            "gradient": (gap.norm() / self.gradient.norm()).item(),
        }

    def rounding(self) -> float:
        """The gradient's error if it were exact and only stored in the student's dtype."""
        stored = self.gradient.to(self.student.dtype).double()
        return ((stored - self.gradient).norm() / self.gradient.norm()).item()
