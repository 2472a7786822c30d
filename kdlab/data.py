"""The data of the course, all of it here without a download.

article_tensors  the article's ten random inputs and targets
digits           1,797 handwritten digits scanned at 8 × 8 (scikit-learn's copy of the UCI set)
mnist1d          5,000 signals of 40 samples, made here by the package `mnist1d` in a second
"""

import contextlib
import io
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kdlab.extras import needed_by


@dataclass(frozen=True)
class Dataset:
    """Inputs (N, features) float32 and labels (N,) int64, already split into train and test."""

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_features(self) -> int:
        return self.x_train.shape[1]

    def subset(self, examples: int, seed: int = 0) -> "Dataset":
        """The same test set, and this many training examples, drawn at random."""
        total = len(self.x_train)
        if not 1 <= examples <= total:
            raise ValueError(f"examples: got {examples}; expected 1 to {total}")
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:examples]
        return Dataset(
            self.name,
            self.x_train[order],
            self.y_train[order],
            self.x_test,
            self.y_test,
            self.class_names,
            self.image_shape,
        )

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name}: {len(self.x_train)} train, {len(self.x_test)} test, "
            f"{self.num_features} features, {self.num_classes} classes)"
        )


def article_tensors(seed: int = 0) -> tuple[Tensor, Tensor]:
    """The article's training data (section 4.1): x and y, both (10, 10), standard normal.

    >>> x, y = article_tensors()
    >>> x.shape, y.shape
    (torch.Size([10, 10]), torch.Size([10, 10]))
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(10, 10, generator=generator), torch.randn(10, 10, generator=generator)


@lru_cache
def digits(seed: int = 0) -> Dataset:
    """Handwritten digits, 8 × 8 pixels in [0, 1], a quarter of each class held out.

    Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.

    >>> digits()
    Dataset(digits: 1347 train, 450 test, 64 features, 10 classes)
    """
    with needed_by("kdlab.data.digits"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    parts = train_test_split(x / 16.0, y, test_size=0.25, random_state=seed, stratify=y)
    x_train, x_test = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
    y_train, y_test = (torch.tensor(part, dtype=torch.int64) for part in parts[2:])
    names = tuple(str(i) for i in range(10))
    return Dataset("digits", x_train, y_train, x_test, y_test, names, (8, 8))


@lru_cache
def mnist1d() -> Dataset:
    """MNIST-1D: ten hand-drawn digit shapes as 1-D signals, moved, stretched, sheared and noisy.

    Made locally with the package's own fixed seed: the same 4,000 training and 1,000 test signals
    every time. Source: Greydanus, Kobak, "Scaling Down Deep Learning with MNIST-1D", ICML 2024.

    >>> mnist1d()
    Dataset(mnist1d: 4000 train, 1000 test, 40 features, 10 classes)
    """
    with needed_by("kdlab.data.mnist1d"):
        from mnist1d.data import get_dataset_args, make_dataset

    with contextlib.redirect_stdout(io.StringIO()):
        made = make_dataset(get_dataset_args())
    x_train, x_test = (torch.tensor(made[k], dtype=torch.float32) for k in ("x", "x_test"))
    y_train, y_test = (torch.tensor(made[k], dtype=torch.int64) for k in ("y", "y_test"))
    names = tuple(str(i) for i in range(10))
    return Dataset("mnist1d", x_train, y_train, x_test, y_test, names, (40,))
