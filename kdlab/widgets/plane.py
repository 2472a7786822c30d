"""A plane in weight space through three students: every point of it is a student."""

import copy
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdlab import data, models
from kdlab.training import distill, predict, train


class Plane:
    """The students θ(a, b) = θ₀ + a e₁ + b e₂, through three students of the same shape.

    e₁ points from the first student to the second; e₂ is orthogonal to it and points to the third
    side. Both have length 1, so a and b are distances in weight space, and gradient descent on
    (a, b) is gradient descent on all weights, projected onto the plane.

    Args:
        students: three models of the same class and size, with different weights.

    Raises:
        ValueError: not three models, shapes that differ, or three students on one line.

    Source: the plane through three weight vectors is that of Garipov et al., "Loss Surfaces, Mode
    Connectivity, and Fast Ensembling of DNNs", NeurIPS 2018; training in a random plane or larger
    subspace is in Li, Farkhoor, Liu, Yosinski, "Measuring the Intrinsic Dimension of Objective
    Landscapes", ICLR 2018.

    >>> _ = torch.manual_seed(0)
    >>> plane = Plane([models.MLP(4, [3], 2) for _ in range(3)])
    >>> plane.logits(torch.zeros(5, 2), torch.randn(7, 4)).shape
    torch.Size([5, 7, 2])
    """

    def __init__(self, students: Sequence[nn.Module]) -> None:
        if len(students) != 3 or not all(isinstance(s, nn.Module) for s in students):
            raise ValueError(f"students: got {len(students)} things; expected three models")
        self._model = copy.deepcopy(students[0]).eval().cpu()
        shapes = {name: p.shape for name, p in self._model.named_parameters()}
        for student in students[1:]:
            if {name: p.shape for name, p in student.named_parameters()} != shapes:
                raise ValueError("students: got parameters of different shapes; expected the same")
        self._shapes = shapes
        origin, second, third = (_weights(student) for student in students)
        across = second - origin
        up = third - origin
        first = across / across.norm()
        up = up - (up @ first) * first
        if not up.norm() > 1e-6 * (third - origin).norm():  # NaN where two of them are the same
            raise ValueError("students: got three on one line; expected three that span a plane")
        self._origin, self._axes = origin, torch.stack((first, up / up.norm()))
        self.corners = torch.stack([(w - origin) @ self._axes.T for w in (origin, second, third)])

    def logits(self, points: Tensor, x: Tensor) -> Tensor:
        """Logits (P, N, V) of the students at points (P, 2) for inputs x (N, ...).

        Differentiable in the points; in the points' dtype.
        """
        weights = self._origin.to(points.dtype) + points @ self._axes.to(points.dtype)
        parts = weights.split([shape.numel() for shape in self._shapes.values()], dim=1)
        named = {
            name: part.reshape(len(points), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        x = x.to(points.dtype)
        return torch.vmap(lambda one: functional_call(self._model, one, (x,)))(named)

    def student(self, a: float, b: float) -> nn.Module:
        """The student at one point, as a model of its own."""
        model = copy.deepcopy(self._model)
        weights = self._origin + torch.tensor([a, b], dtype=torch.float64) @ self._axes
        nn.utils.vector_to_parameters(weights.to(_weights(model, None).dtype), model.parameters())
        return model


def _weights(model: nn.Module, dtype: torch.dtype | None = torch.float64) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().cpu().to(dtype)


@lru_cache
def digits_plane(seed: int = 0) -> tuple[Plane, Tensor, Tensor, Tensor]:
    """A plane through three students of 16 hidden units on the digits, trained here in seconds.

    They are: the weights at the start; trained from there on the labels of 100 examples; distilled
    from there on a teacher's outputs for all training examples. Returns the plane, and of 50 test
    examples the inputs, the teacher's logits and the labels.
    """
    digits = data.digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        teacher = models.MLP(64, [64], 10)
        start = models.MLP(64, [16], 10)
    train(teacher, digits, epochs=20, seed=seed, progress=False)
    labelled, distilled = copy.deepcopy(start), copy.deepcopy(start)
    train(labelled, digits.subset(100, seed), epochs=60, seed=seed, progress=False)
    distill(distilled, teacher, digits, beta=0.25, epochs=15, seed=seed, progress=False)
    x, labels = digits.x_test[:50], digits.y_test[:50]
    return Plane([start, labelled, distilled]), x, predict(teacher, x), labels
