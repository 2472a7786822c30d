"""The models of the course: the article's two, and what its real data needs."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class LargeModel(nn.Module):
    """The article's large model (section 4.1), as it stands: 10 → 20 → 10, no nonlinearity."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(10, 20)
        self.layer2 = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(x))


class SmallModel(nn.Module):
    """The article's sub-model (section 4.1), as it stands: 10 → 10 → 10, no nonlinearity."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Linear(10, 10)
        self.layer2 = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(x))


class MLP(nn.Sequential):
    """Linear layers with ReLU between them: (N, in_features) → logits (N, out_features).

    `hidden` lists the widths of the hidden layers. Raises ValueError for a width below 1.

    >>> import torch
    >>> MLP(40, [32, 32], 10)(torch.zeros(5, 40)).shape
    torch.Size([5, 10])
    """

    def __init__(self, in_features: int, hidden: Sequence[int], out_features: int) -> None:
        widths = [in_features, *hidden, out_features]
        if min(widths) < 1:
            raise ValueError(f"hidden: got layer widths {widths}; expected each to be at least 1")
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers[:-1])


class ConvNet1d(nn.Module):
    """Three strided 1-D convolutions and a linear layer: signals (N, in_length) → logits.

    The kind of model that Greydanus and Kobak, "Scaling Down Deep Learning with MNIST-1D", 2024,
    train on these signals: weights shared along the signal know that a shifted shape is the same.

    >>> import torch
    >>> ConvNet1d()(torch.zeros(5, 40)).shape
    torch.Size([5, 10])
    """

    def __init__(self, out_features: int = 10, width: int = 32, in_length: int = 40) -> None:
        super().__init__()
        if in_length < 8:
            raise ValueError(f"in_length: got {in_length}; expected at least 8 samples")
        self.convolutions = nn.Sequential(
            nn.Conv1d(1, width, kernel_size=5, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
        )
        length = in_length
        for kernel in (5, 3, 3):
            length = (length + 2 - kernel) // 2 + 1
        self.classifier = nn.Linear(width * length, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.convolutions(x.unsqueeze(1)).flatten(1))
