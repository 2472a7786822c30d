"""The loss as a function of two parameters: on a grid, its slope anywhere, its minimum."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdlab.functional import distillation_loss
from kdlab.widgets.plane import Plane
from kdlab.widgets.slices import single_threaded

# 31 × 31 students; margins around the three corners, as shares of what they span.
GRID, MARGIN = 31, 0.45


@dataclass(frozen=True)
class Minimum:
    """Where the loss is lowest on the map: (a, b), the loss, and the two curvatures there.

    The curvatures are the eigenvalues of the Hessian in (a, b), smaller first. Gradient descent
    with learning rate η shrinks the error along an eigenvector by 1 − ηλ a step, so it is stable
    for η < 2/λ of the larger one, and takes about λ_max/λ_min steps: a narrow valley is slow.
    """

    point: tuple[float, float]
    loss: float
    curvatures: tuple[float, float]


class Surface:
    """Mean `distillation_loss` of every student on a plane, over some examples.

    Student logits on the grid don't depend on β and are computed once. `settings` are keyword
    arguments of `distillation_loss`: beta, divergence, mix, temperature_scaling.
    """

    def __init__(self, plane: Plane, x: Tensor, teacher_logits: Tensor) -> None:
        self.plane, self.x = plane, x
        self._teacher = teacher_logits
        low, high = plane.corners.amin(0), plane.corners.amax(0)
        pad = MARGIN * (high - low)
        self.a, self.b = (
            torch.linspace(start, end, GRID, dtype=torch.float64)
            for start, end in zip((low - pad).tolist(), (high + pad).tolist(), strict=True)
        )
        points = torch.cartesian_prod(self.a, self.b).float()
        with torch.no_grad():
            chunks = [plane.logits(some, x) for some in points.split(128)]
        self._logits = torch.cat(chunks)

    def losses(self, **settings: Any) -> Tensor:
        """The loss on the grid: (A, B), rows along a."""
        with single_threaded():
            return self._mean_loss(self._logits, settings).reshape(len(self.a), len(self.b))

    def loss_and_slope(self, points: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
        """Loss (P,) and gradient (P, 2) at points (P, 2), in float64, by autograd."""
        leaf = points.detach().double().requires_grad_()
        with torch.enable_grad():
            loss = self._mean_loss(self.plane.logits(leaf, self.x), settings)
            (slope,) = torch.autograd.grad(loss.sum(), leaf)
        return loss.detach(), slope

    def curvature(self, point: Tensor, **settings: Any) -> Tensor:
        """The Hessian (2, 2) at a point (2,), by central differences of the gradient."""
        step = 1e-3 * (self.a[-1] - self.a[0])
        shifts = step * torch.eye(2, dtype=torch.float64)
        _, slopes = self.loss_and_slope(torch.cat((point + shifts, point - shifts)), **settings)
        hessian = (slopes[:2] - slopes[2:]) / (2 * step)
        return (hessian + hessian.T) / 2

    def minimum(self, losses: Tensor, **settings: Any) -> Minimum:
        """From the grid's lowest point by a few Newton steps that never climb, within the map."""
        row, column = divmod(int(losses.argmin()), len(self.b))
        point = torch.stack((self.a[row], self.b[column]))
        low = torch.stack((self.a[0], self.b[0]))
        high = torch.stack((self.a[-1], self.b[-1]))
        (loss,), (slope,) = self.loss_and_slope(point[None], **settings)
        for _ in range(4):
            values, vectors = torch.linalg.eigh(self.curvature(point, **settings))
            if values[0] <= 0:
                break
            newton = vectors @ ((vectors.T @ slope) / values)
            tried = (point - newton).clamp(low, high)
            (lower,), (next_slope,) = self.loss_and_slope(tried[None], **settings)
            if not lower < loss:
                break
            point, loss, slope = tried, lower, next_slope
        values = torch.linalg.eigvalsh(self.curvature(point, **settings)).tolist()
        return Minimum((point[0].item(), point[1].item()), loss.item(), (values[0], values[1]))

    def _mean_loss(self, logits: Tensor, settings: dict[str, Any]) -> Tensor:
        teacher = self._teacher.to(logits.dtype).expand_as(logits)
        return distillation_loss(logits, teacher, reduction="none", **settings).mean(-1)
