"""What is taught, to whom: the data, the teacher's outputs on it, and new students."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlab import data as course_data
from kdlab.data import Dataset
from kdlab.functional import distillation_loss
from kdlab.models import MLP
from kdlab.training import BatchLoss, predict, train
from kdlab.widgets.slices import threads_for


@dataclass(frozen=True)
class Settings:
    """What may change from one training step to the next."""

    lr: float
    label_weight: float
    divergence: str


@dataclass(frozen=True, eq=False)
class Classroom:
    """Data, the teacher's logits on its training and test inputs, and how a student is made."""

    data: Dataset
    train_targets: Tensor
    test_targets: Tensor
    make_student: Callable[[int], nn.Module]

    def student(self, width: int, seed: int) -> tuple[nn.Module, "Randomness"]:
        """A student of this size with weights from this seed, and its random numbers from there.

        The weights are those of `torch.manual_seed(seed)` followed by making the model.
        """
        random = Randomness(seed)
        with random.drawn():
            model = self.make_student(width)
        return model, random

    def fold(self, held_out: int) -> "Classroom":
        """`held_out` training examples, drawn at random (seeded), in the place of the test set."""
        order = torch.randperm(len(self.data.x_train), generator=torch.Generator().manual_seed(0))
        out, kept = order[:held_out], order[held_out:]
        x, y, z = self.data.x_train, self.data.y_train, self.train_targets
        data = replace(self.data, x_train=x[kept], y_train=y[kept], x_test=x[out], y_test=y[out])
        return replace(self, data=data, train_targets=z[kept], test_targets=z[out])

    def loss(self, beta: float | None, settings: Callable[[], Settings]) -> BatchLoss:
        """(1 − α) T² D(p, q) + α CE at this β with the settings of the moment; None: CE alone."""

        def loss(rows: Tensor, logits: Tensor) -> Tensor:
            labels = self.data.y_train[rows].to(logits.device)
            if beta is None:
                return F.cross_entropy(logits, labels)
            now = settings()
            return distillation_loss(
                logits,
                self.train_targets[rows].to(logits.device),
                labels,
                beta=beta,
                divergence=now.divergence,
                label_weight=now.label_weight,
            )

        return loss


class Randomness:
    """One student's own stream of PyTorch's random numbers (CPU).

    Students take turns with each other and with whatever else the kernel runs: with a stream each,
    none of them draws another's numbers.
    """

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._state = torch.get_rng_state()

    @contextmanager
    def drawn(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            yield
            self._state = torch.get_rng_state()


def check_classroom(
    teacher: nn.Module | None,
    data: Dataset | None,
    student: Callable[[int], nn.Module] | None,
    examples: int,
) -> Classroom:
    """A classroom that can be used, or a ValueError that names the argument.

    Without teacher and data: the course's, with that many examples to learn from (`handed_down`).

    >>> check_classroom(MLP(40, [8], 10), course_data.digits(), None, 100)
    Traceback (most recent call last):
        ...
    ValueError: teacher: it does not take the data's inputs (1347, 64): mat1 and mat2 ...
    """
    if (teacher is None) != (data is None):
        missing = "teacher" if teacher is None else "data"
        raise ValueError(f"{missing}: got None; expected a teacher and its data, or neither")
    if teacher is None or data is None:
        teacher, data = handed_down(examples)
    if not isinstance(teacher, nn.Module):
        raise ValueError(f"teacher: got {type(teacher).__name__}; expected a torch.nn.Module")
    if not isinstance(data, Dataset):
        raise ValueError(f"data: got {type(data).__name__}; expected a kdlab.data.Dataset")
    features, classes = data.num_features, data.num_classes
    make = student or (lambda width: MLP(features, [width], classes))
    if not callable(make) or isinstance(make, nn.Module):
        raise ValueError(
            f"student: got {type(student).__name__}; expected a function from a size (an integer) "
            "to a new torch.nn.Module"
        )
    room = Classroom(
        data, _logits("teacher", teacher, data.x_train, classes),
        _logits("teacher", teacher, data.x_test, classes), make,
    )  # fmt: skip
    return room


def check_student(room: Classroom, width: int) -> None:
    """A ValueError that names `student` unless it makes models for the data."""
    model, _ = room.student(width, 0)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"student: it made a {type(model).__name__} for size {width}; expected a "
            "torch.nn.Module"
        )
    _logits("student", model, room.data.x_test[:2], room.data.num_classes)


def _logits(name: str, model: nn.Module, x: Tensor, classes: int) -> Tensor:
    try:
        logits = predict(model, x)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: it does not take the data's inputs {tuple(x.shape)}: {error}"
        ) from error
    if logits.shape != (len(x), classes):
        raise ValueError(
            f"{name}: got outputs of shape {tuple(logits.shape)}; expected {(len(x), classes)}, "
            "a logit a class"
        )
    if not logits.isfinite().all():
        raise ValueError(f"{name}: got outputs that are not all finite; expected finite logits")
    return logits


@lru_cache
def handed_down(examples: int) -> tuple[nn.Module, Dataset]:
    """A trained teacher for the digits, and a few digits for its students.

    The students get `examples` of the training digits; the teacher, an MLP with 256 hidden units,
    had all the others, so that it has seen neither what they learn from nor what is held out of it.

    >>> teacher, few = handed_down(100)
    >>> few
    Dataset(digits: 100 train, 450 test, 64 features, 10 classes)
    """
    digits = course_data.digits()
    order = torch.randperm(len(digits.x_train), generator=torch.Generator().manual_seed(0))
    others = order[examples:]
    known = replace(digits, x_train=digits.x_train[others], y_train=digits.y_train[others])
    random = Randomness(0)
    with random.drawn():
        teacher = MLP(digits.num_features, [256], digits.num_classes)
        with threads_for(teacher):
            train(teacher, known, epochs=30, lr=5e-3, progress=False)
    return teacher, digits.subset(examples)
