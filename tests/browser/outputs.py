"""A real teacher's and student's outputs on digits, for the page and for the test alike."""

from pathlib import Path

import torch
from torch import Tensor

import kdlab
from kdlab import data, models
from kdlab.training import predict


def digits_outputs() -> tuple[Tensor, Tensor]:
    """(student_logits, teacher_logits), each (450, 10), after a few seconds of training."""
    digits = data.digits()
    torch.manual_seed(0)
    teacher, student = models.MLP(64, [256], 10), models.MLP(64, [8], 10)
    kdlab.train(teacher, digits, epochs=15, lr=5e-3, progress=False)
    kdlab.distill(student, teacher, digits, beta=0.25, epochs=10, progress=False)
    return predict(student, digits.x_test), predict(teacher, digits.x_test)


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells, as a reader would type them."""
    import nbformat

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, path)
