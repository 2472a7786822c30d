"""Exercises of 11_the_missing_digit."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdlab import data, metrics, models
from kdlab.course.exercises import Hint, exercise
from kdlab.functional import distillation_loss, soften
from kdlab.training import predict, train


def _logits(rows: int, seed: int) -> Tensor:
    return 3 * torch.randn(rows, 10, generator=torch.Generator().manual_seed(seed))


def _tensor(answer: Any, shape: tuple[int, ...]) -> Tensor:
    if answer is None or answer is ...:
        raise Hint("the function returns nothing yet; begin with the shapes that come in")
    if not isinstance(answer, Tensor):
        raise Hint(f"it returns {type(answer).__name__}; a tensor was expected")
    if tuple(answer.shape) != shape:
        raise Hint(f"it returns the shape {tuple(answer.shape)}; expected {shape}")
    return answer


@exercise("11.1", "A higher bias, without touching the model")
def _(add_to_class) -> None:
    logits = _logits(6, 0)
    given = logits.clone()
    answer = _tensor(add_to_class(given, 3, 2.5), (6, 10))
    if not torch.equal(given, logits):
        raise Hint("the logits that came in were changed; add to a copy, or build a new tensor")
    change = answer - logits
    others = [k for k in range(10) if k != 3]
    if not torch.allclose(change[:, others], torch.zeros(6, 9), atol=1e-5):
        raise Hint("other classes moved too; only column k should")
    if not torch.allclose(change[:, 3], torch.full((6,), 2.5), atol=1e-5):
        raise Hint("column k should rise by the constant, in every row alike")


@exercise("11.2", "The correction without a label")
def _(constant_for_share) -> None:
    logits = _logits(1000, 1)
    for k, share in ((3, 0.1), (7, 0.3), (0, 0.02)):
        constant = constant_for_share(logits.clone(), k, share)
        if constant is None or constant is ...:
            raise Hint("the function returns nothing yet; compute each row's margin first")
        moved = logits.clone()
        moved[:, k] += float(constant)
        got = (moved.argmax(-1) == k).double().mean().item()
        if abs(got - (1 - share)) < 0.01:
            raise Hint("the share of rows that are *not* predicted as k comes out: turn it round")
        if abs(got - share) > 0.005:
            raise Hint(
                f"asked for {share:.0%} of the rows, {got:.1%} are predicted as k; the largest "
                "*other* logit is what class k has to beat, and the share is a quantile"
            )


@exercise("11.3", "The pictures that carried it")
def _(carriers) -> None:
    logits = _logits(200, 2)
    labels = torch.randint(0, 10, (200,), generator=torch.Generator().manual_seed(3))
    logits[torch.arange(200), labels] += 4.0
    answer = _tensor(carriers(logits.clone(), labels.clone(), 3, 12, 0.25), (12,)).long()
    if (labels[answer] == 3).any():
        raise Hint("some of these rows carry the label k; they are not in the transfer set")
    mass = soften(logits, 0.25)[:, 3]
    if (mass[answer].diff() > 0).any():
        raise Hint("the largest mass should come first")
    best = mass[labels != 3].topk(12).values
    raw = logits[:, 3].masked_fill(labels == 3, -torch.inf).topk(12).indices
    if not torch.allclose(mass[answer], best) and torch.equal(answer, raw):
        raise Hint("ranked by the raw logit; the softened mass depends on the other classes too")
    if not torch.allclose(mass[answer], best):
        raise Hint("these are not the rows with the largest softmax(β z)[k]; is β used?")


@exercise("11.4", "The gradient of the bias")
def _(bias_gradient) -> None:
    for beta in (1.0, 0.25):
        student, teacher = _logits(50, 4), _logits(50, 5)
        bias = torch.zeros(10, requires_grad=True)
        distillation_loss(student + bias, teacher, beta=beta).backward()
        expected = bias.grad
        assert expected is not None
        answer = _tensor(bias_gradient(student, teacher, beta), (10,))
        if torch.allclose(answer, -expected, atol=1e-5):
            raise Hint("the sign is turned round: the gradient points uphill")
        if beta != 1 and torch.allclose(answer, expected * beta, atol=1e-5):
            raise Hint("right at β = 1 only: a factor of T is missing (T² from the loss, β from z)")
        if beta != 1 and torch.allclose(answer, expected / beta, atol=1e-5):
            raise Hint("one factor of T too many: the softened logits bring a β of their own")
        if torch.allclose(answer, 50 * expected, atol=1e-4):
            raise Hint("the loss is a mean over rows")
        if not torch.allclose(answer, expected, atol=1e-5):
            raise Hint("write ∂KL/∂z_s for one row first; the bias adds the same to every row")


@exercise("11.5", "Only 7s and 8s")
def _(distil_on) -> None:
    digits = data.digits()
    torch.manual_seed(1)
    teacher = models.MLP(64, [256], 10)
    train(teacher, digits, epochs=15, lr=5e-3, progress=False)
    seen = (digits.y_train == 7) | (digits.y_train == 8)
    poisoned = digits.x_train.masked_fill(~seen[:, None], torch.nan)
    student = distil_on([7, 8], teacher, replace(digits, x_train=poisoned))
    if student is None or student is ...:
        raise Hint("the function returns nothing yet; build the transfer set first")
    if metrics.parameter_count(student) > 10_000:
        raise Hint(f"{metrics.parameter_count(student)} parameters; at most 10,000 are allowed")
    logits = predict(student, digits.x_test)
    if logits.shape != (len(digits.x_test), 10):
        raise Hint(f"on the test set it returns {tuple(logits.shape)}; ten logits a row, please")
    if not logits.isfinite().all():
        raise Hint("the student's outputs are NaN: it was shown a picture outside `classes`")
    lowered = torch.zeros(10)
    lowered[[7, 8]] = 1.0
    best = max(
        metrics.accuracy(logits - c * lowered, digits.y_test) for c in torch.linspace(0, 40, 81)
    )
    if best < 0.6:
        raise Hint(f"{best:.0%} of all digits at the best bias; try a smaller β, or more epochs")
