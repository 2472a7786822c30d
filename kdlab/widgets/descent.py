"""A student going down the loss surface, step by step."""

import math
from typing import Any

import torch
from torch import Tensor

from kdlab.metrics import accuracy
from kdlab.widgets.surface import Surface

# A step shorter than this share of the map's width no longer shows: the student has arrived.
SHORTEST = 1e-5


class Descent:
    """Gradient descent on (a, b): θ ← θ − η ∇L, with the path so far. Empty until `drop`.

    `over` says why no further step is worth taking: "arrived", "left the map", or "".
    """

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self.path: list[tuple[float, float]] = []
        self.over = ""

    def __bool__(self) -> bool:
        return bool(self.path)

    @property
    def steps(self) -> int:
        return max(len(self.path) - 1, 0)

    def drop(self, a: float, b: float) -> None:
        self.path, self.over = [(float(a), float(b))], ""

    def clear(self) -> None:
        self.path, self.over = [], ""

    def step(self, learning_rate: float, settings: dict[str, Any]) -> None:
        """One step on the loss that `settings` give, which may change between steps."""
        surface, last = self._surface, self.path[-1]
        _, (slope,) = surface.loss_and_slope(torch.tensor([last], dtype=torch.float64), **settings)
        move_a, move_b = (learning_rate * slope).tolist()
        a, b = last[0] - move_a, last[1] - move_b
        if not (math.isfinite(a) and math.isfinite(b)):
            raise ArithmeticError(f"the gradient at {last} is {slope.tolist()}")
        self.path.append((a, b))
        width = (surface.a[-1] - surface.a[0]).item()
        inside = surface.a[0] <= a <= surface.a[-1] and surface.b[0] <= b <= surface.b[-1]
        self.over = "" if inside else "left the map"
        if inside and math.hypot(move_a, move_b) < SHORTEST * width:
            self.over = "arrived"

    def numbers(self, settings: dict[str, Any], labels: Tensor | None) -> dict[str, Any]:
        """Loss, gradient and accuracy of the student where it is now; None where there is none."""
        if not self.path:
            return {"point": None, "loss": None, "gradient": None, "accuracy": None}
        point = torch.tensor(self.path[-1:], dtype=torch.float64)
        (loss,), (slope,) = self._surface.loss_and_slope(point, **settings)
        right = None
        if labels is not None:
            with torch.no_grad():
                right = accuracy(self._surface.plane.logits(point, self._surface.x)[0], labels)
        return {
            "point": self.path[-1],
            "loss": loss.item(),
            "gradient": tuple(slope.tolist()),
            "accuracy": right,
        }
