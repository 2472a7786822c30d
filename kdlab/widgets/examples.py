"""The examples a widget shows: logits of both models, with pictures, labels and names, checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdlab.functional import soften
from kdlab.metrics import entropy


@dataclass(frozen=True)
class Examples:
    """N examples of V classes on the CPU; `inputs` are (N, *image_shape), a picture or a signal."""

    student_logits: Tensor
    teacher_logits: Tensor
    inputs: Tensor | None
    labels: Tensor | None
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.teacher_logits)

    @property
    def classes(self) -> int:
        return self.teacher_logits.shape[1]

    def by_hesitation(self) -> list[int]:
        """The examples' indices, from the highest entropy of the teacher at β = 1 to the lowest."""
        doubt = entropy(soften(self.teacher_logits))
        return doubt.argsort(descending=True, stable=True).tolist()


def check_examples(
    student_logits: Any,
    teacher_logits: Any,
    inputs: Any = None,
    labels: Any = None,
    class_names: Sequence[Any] | None = None,
    image_shape: Sequence[int] | None = None,
) -> Examples:
    """Examples that are safe to draw, or a ValueError that names the argument.

    >>> check_examples(torch.zeros(2, 3), torch.zeros(2, 4))
    Traceback (most recent call last):
        ...
    ValueError: student_logits: got shape (2, 3); expected (2, 4), the shape of teacher_logits
    """
    teacher = _logits("teacher_logits", teacher_logits)
    student = _logits("student_logits", student_logits)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student_logits: got shape {tuple(student.shape)}; "
            f"expected {tuple(teacher.shape)}, the shape of teacher_logits"
        )
    rows, classes = teacher.shape
    if inputs is None and image_shape is not None:
        raise ValueError(f"image_shape: got {tuple(image_shape)} without inputs; expected both")
    return Examples(
        student,
        teacher,
        None if inputs is None else _pictures(inputs, image_shape, rows),
        None if labels is None else _labels(labels, rows, classes),
        _names(class_names, classes),
    )


def _tensor(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    raise ValueError(f"{name}: got {type(value).__name__}; expected a tensor or a NumPy array")


def _finite(name: str, value: Tensor) -> Tensor:
    value = value if value.dtype == torch.float64 else value.float()
    bad = ~value.isfinite()
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{name}: got {value[where].item()} at {where}; expected finite numbers")
    return value


def _logits(name: str, value: Any) -> Tensor:
    logits = _tensor(name, value)
    shape = tuple(logits.shape)
    if not logits.is_floating_point():
        raise ValueError(f"{name}: got dtype {logits.dtype}; expected floating point")
    if len(shape) != 2 or shape[0] < 1 or shape[1] < 2:
        raise ValueError(
            f"{name}: got shape {shape}; expected (N, V) with at least one example, two classes"
        )
    return _finite(name, logits)


def _pictures(inputs: Any, image_shape: Sequence[int] | None, rows: int) -> Tensor:
    values = _tensor("inputs", inputs)
    if values.dim() < 2 or len(values) != rows or values[0].numel() < 2:
        raise ValueError(
            f"inputs: got shape {tuple(values.shape)}; expected ({rows}, ...), an input a row"
        )
    size = values[0].numel()
    if image_shape is None:
        shape = tuple(n for n in values.shape[1:] if n > 1)
        if len(shape) > 2:
            raise ValueError(
                f"inputs: got shape {tuple(values.shape)}; expected a signal (N, L) or a picture "
                "(N, H, W), or image_shape to say how to draw them"
            )
    else:
        shape = tuple(int(n) for n in image_shape)
        if len(shape) not in (1, 2) or min(shape) < 1 or math.prod(shape) != size:
            raise ValueError(
                f"image_shape: got {shape}; expected (L,) or (H, W) of {size} values in all, "
                "as many as an input has"
            )
    return _finite("inputs", values).reshape(rows, *shape)


def _labels(labels: Any, rows: int, classes: int) -> Tensor:
    values = _tensor("labels", labels)
    if values.shape != (rows,) or values.is_floating_point() or values.dtype == torch.bool:
        raise ValueError(
            f"labels: got shape {tuple(values.shape)} and dtype {values.dtype}; "
            f"expected ({rows},) integers"
        )
    outside = (values < 0) | (values >= classes)
    if outside.any():
        raise ValueError(f"labels: got {values[outside][0].item()}; expected 0 to {classes - 1}")
    return values.long()


def _names(class_names: Sequence[Any] | None, classes: int) -> tuple[str, ...]:
    names = tuple(str(name) for name in (range(classes) if class_names is None else class_names))
    if len(names) != classes or len(set(names)) != classes:
        raise ValueError(
            f"class_names: got {len(names)} names, {len(set(names))} of them different; "
            f"expected {classes}, one a class"
        )
    return names
