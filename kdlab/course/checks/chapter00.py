"""Exercises of 00_start_here."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdlab.course.exercises import Hint, attempt, exercise
from kdlab.functional import distillation_loss, soften

TEACHER = torch.tensor([6.0, 4.0, -2.0])


@exercise("0.1", "A β that makes the teacher sure")
def _(beta: float) -> None:
    beta = _number(beta)
    if beta <= 0:
        raise Hint("β is above 0: it divides by a temperature")
    confidence = soften(TEACHER, beta)[0].item()
    if confidence < 0.99:
        raise Hint(f"at that β the teacher is {confidence:.1%} sure; should β rise or fall?")
    if soften(TEACHER, beta - 0.1)[0] >= 0.99:
        raise Hint(f"{confidence:.2%} sure, but a β lower by 0.1 would do too: find the smallest")


@exercise("0.2", "softmax, by hand")
def _(softmax: Callable[[Tensor, float], Tensor]) -> None:
    for logits, beta in ((TEACHER, 0.25), (torch.tensor([[1.0, 2.0], [0.0, -3.0]]), 2.0)):
        p = _tensor(attempt(softmax, logits.clone(), beta), logits.shape)
        if (p < 0).any():
            raise Hint("a probability came out negative: what makes any number positive?")
        if not torch.allclose(p.sum(-1), torch.ones(p.shape[:-1])):
            raise Hint(
                "the probabilities of a row don't add up to 1: divide by what, over which dim?"
            )
        if torch.allclose(p, soften(logits, 1 / beta)):
            raise Hint("that is the softmax at T = β: β multiplies, T divides")
        if not torch.allclose(p, soften(logits, beta), atol=1e-6):
            raise Hint("each row adds up to 1, but the shares are off: where does β come in?")
    large = _tensor(attempt(softmax, torch.tensor([1000.0, 998.0]), 1.0), torch.Size([2]))
    if not large.isfinite().all():
        raise Hint("right so far, but exp(1000) overflows: softmax sees only differences, so what "
                   "may be subtracted from a row before exp?")  # fmt: skip
    if not torch.allclose(large, torch.tensor([0.8808, 0.1192]), atol=1e-4):
        raise Hint(f"the logits 1000 and 998 give {large.tolist()}; expected what 2 and 0 give")


@exercise("0.3", "What does not change the loss")
def _(invisible: Callable[[Tensor], Tensor]) -> None:
    student = torch.tensor([[6.0, 1.0, 1.0], [0.0, 2.0, 5.0]])
    teacher = TEACHER.expand(2, 3)
    moved = _tensor(attempt(invisible, student.clone()), student.shape)
    if torch.allclose(moved, student):
        raise Hint("these are the same logits: change every one of them")
    if torch.isclose(moved, student).any():
        raise Hint("some of the logits are as they were: change every one of them")
    before, after = (
        distillation_loss(z, teacher, beta=0.25, reduction="none") for z in (student, moved)
    )
    if not torch.allclose(before, after, rtol=1e-4):
        raise Hint(f"the losses moved from {_show(before)} to {_show(after)}; softmax sees only "
                   "the differences between a row's logits")  # fmt: skip


@exercise("0.4", "A student by hand")
def _(descend: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    start = torch.tensor([[6.0, 1.0, 1.0], [-1.0, 0.0, 4.0]])
    teacher = torch.stack([TEACHER, TEACHER.flip(0)])
    for beta in (0.25, 1.0):
        found = _tensor(attempt(descend, start.clone(), teacher.clone(), beta), start.shape)
        rows = distillation_loss(found.detach(), teacher, beta=beta, reduction="none")
        if not rows.isfinite().all():
            raise Hint(f"at β = {beta:g} the logits ran away: is the step too long?")
        first = distillation_loss(start, teacher, beta=beta, reduction="none")
        if (rows > first).any():
            raise Hint(f"at β = {beta:g} the loss rose: against the gradient, not along it")
        if (rows > 1e-3).any():
            raise Hint(f"at β = {beta:g} the losses fell from {_show(first)} to {_show(rows)}, and "
                       "should be below 0.001: more steps, or longer ones")  # fmt: skip


def _number(answer: Any) -> float:
    try:
        return float(answer)
    except (TypeError, ValueError):
        raise Hint(f"expected a number, got {type(answer).__name__}") from None


def _tensor(answer: Any, shape: torch.Size) -> Tensor:
    if not isinstance(answer, Tensor):
        raise Hint(f"expected a tensor, got {type(answer).__name__}")
    if answer.shape != shape:
        raise Hint(f"expected the shape {tuple(shape)}, got {tuple(answer.shape)}")
    return answer


def _show(losses: Tensor) -> str:
    return ", ".join(f"{x:.3g}" for x in losses.tolist())
