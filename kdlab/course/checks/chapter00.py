"""Exercises of 00_start_here."""

import torch

from kdlab.course.exercises import Hint, exercise
from kdlab.functional import soften


@exercise("0.1", "A β that makes the teacher sure")
def _(beta: float) -> None:
    confidence = soften(torch.tensor([6.0, 4.0, -2.0]), float(beta))[0].item()
    if confidence < 0.99:
        raise Hint(f"at that β the teacher is {confidence:.1%} sure; should β rise or fall?")
