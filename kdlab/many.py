"""Many students at once: an experiment over seeds for the price of a few.

A claim about distillation is a claim about many runs. The students of this course are so small that
PyTorch spends its time between the matrix products, not in them; here S students of one shape share
every operation, one slice each. No number passes from one to another: the loss is a sum over
students, so each gets its own gradient, and Adam works element by element.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MLPs(nn.Module):
    """`count` perceptrons with ReLU: (N, in) or (count, N, in) → logits (count, N, out).

    Weights start as `torch.nn.Linear` draws them, uniform in ±1/√fan_in.
    Raises ValueError for a width or a count below 1.

    >>> MLPs(3, 64, [16], 10)(torch.zeros(5, 64)).shape
    torch.Size([3, 5, 10])
    """

    def __init__(
        self, count: int, in_features: int, hidden: Sequence[int], out_features: int
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden, out_features]
        if count < 1:
            raise ValueError(f"count: got {count}; expected at least 1")
        if min(widths) < 1:
            raise ValueError(f"hidden: got layer widths {widths}; expected each to be at least 1")
        self.count = count
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in pairwise(widths):
            bound = before**-0.5
            self.weights.append(torch.empty(count, before, after).uniform_(-bound, bound))
            self.biases.append(torch.empty(count, 1, after).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.expand(self.count, *x.shape[-2:])
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, F.relu(hidden) if i else hidden, weight)
        return hidden


def train_many(
    students: MLPs,
    x: Tensor,
    row_losses: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int = 30,
    batch_size: int = 100,
    lr: float = 1e-2,
    seed: int = 0,
) -> MLPs:
    """Adam with a cosine schedule, as `kdlab.train`; each student shuffles for itself.

    `row_losses(rows, logits)` gets the examples' numbers (S, B) and the logits (S, B, V), and
    returns a loss for each, (S, B): `kdlab.distillation_loss(..., reduction="none")` for soft
    targets. x is (N, in), or (S, N, in) where each student has its own examples. Returns
    `students`, trained.

    >>> y = torch.tensor([0, 1])
    >>> def of_labels(rows, logits):
    ...     return F.cross_entropy(logits.mT, y[rows], reduction="none")
    >>> pair = train_many(MLPs(2, 2, [8], 2), torch.eye(2), of_labels, epochs=100)
    >>> pair(torch.eye(2)).argmax(-1)
    tensor([[0, 1],
            [0, 1]])
    """
    examples, each = x.shape[-2], torch.arange(students.count).unsqueeze(-1)
    x = x.expand(students.count, *x.shape[-2:])
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(students.parameters(), lr=lr, fused=True)
    steps = max(1, epochs * -(-examples // batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for _ in range(epochs):
        shuffled = torch.rand(students.count, examples, generator=order).argsort(-1)
        for rows in shuffled.split(batch_size, dim=-1):
            loss = row_losses(rows, students(x[each, rows])).mean(-1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return students
