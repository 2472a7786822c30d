"""Exercises of 06_faq."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlab import data, models, reference
from kdlab.course.exercises import Hint, exercise
from kdlab.functional import distillation_loss
from kdlab.many import MLPs, train_many
from kdlab.training import predict, train


def _begun(result: object, name: str) -> None:
    if result is None or result is ...:
        raise Hint(f"`{name}` returns nothing yet")


@exercise("6.1", "When has it paid?")
def _(answer: float) -> None:
    students = float(answer)
    if students == 5:
        raise Hint("a distilled student is not free either: what does each of them *save*?")
    if students == 6:
        raise Hint("after six the teacher is not yet paid for")
    if 6 < students < 7:
        raise Hint("students come whole")
    if students != 7:
        raise Hint("what was paid once, over what is saved with each student")


@exercise("6.2", "A gain with its error")
def _(paired_gain: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    labels = torch.tensor([0.50, 0.70, 0.60, 0.90], dtype=torch.float64)
    distilled = torch.tensor([0.56, 0.74, 0.65, 0.95], dtype=torch.float64)
    result = paired_gain(labels, distilled)
    _begun(result, "paired_gain")
    mean, error = (float(value) for value in result)
    if abs(mean - 0.05) > 1e-6:
        raise Hint(f"the mean gain of the example is 0.05; got {mean:.4f}")
    spread = (distilled - labels).std().item()
    if abs(error - spread) < 1e-6:
        raise Hint("that is the spread of one difference; the error of the *mean* is smaller")
    if abs(error - spread / 2) > 1e-4:
        raise Hint("take the differences first, pair by pair; their spread, over √n")


@exercise("6.3", "Fidelity, twice")
def _(fidelity: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    result = fidelity(10 * z_t, z_t)
    _begun(result, "fidelity")
    agree, divergence = (float(value) for value in result)
    if agree != 1.0:
        raise Hint(f"ten times the logits decide the same everywhere; you say {agree:.2f}")
    expected = reference.kl(10 * z_t, z_t).mean().item()
    if abs(divergence - reference.kl(z_t, 10 * z_t).mean().item()) < 1e-6:
        raise Hint("KL is not symmetric: the teacher's p stands first")
    if abs(divergence - expected) > 1e-6:
        raise Hint(f"the mean KL(p ‖ q) of the example is {expected:.3f}; got {divergence:.3f}")


@exercise("6.4", "A teacher that is many")
def _(ensemble_logits: Callable[[Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(4, 5, 6, generator=generator, dtype=torch.float64)
    together = ensemble_logits(z)
    _begun(together, "ensemble_logits")
    if together.shape != (5, 6):
        raise Hint(f"(M, N, V) → (N, V), here (5, 6); got {tuple(together.shape)}")
    p = together.softmax(-1)
    if torch.allclose(p, z.mean(0).softmax(-1)):
        raise Hint("that is the mean of the logits; wanted are the logits of mean probabilities")
    if torch.allclose(together, z.softmax(-1).mean(0)):
        raise Hint("those are the mean probabilities: of which logits are they the softmax?")
    if not torch.allclose(p, z.softmax(-1).mean(0)):
        raise Hint("softmax of your result should be the mean of the models' softmaxes")


@exercise("6.5", "Make it fail")
def _(settings: dict) -> None:
    hidden, examples, beta = (settings[k] for k in ("teacher_hidden", "examples", "beta"))
    if not (1 <= hidden <= 256 and 50 <= examples <= 1347 and 0.05 <= beta <= 2):
        raise Hint("teacher_hidden is 1 to 256, examples 50 to 1347, beta 0.05 to 2")
    digits = data.digits()
    some = digits.subset(examples)
    epochs = max(15, 10_000 // examples)
    torch.manual_seed(0)
    teacher = models.MLP(64, [hidden], 10)
    train(teacher, some, epochs=epochs, batch_size=50, progress=False)
    z_t = predict(teacher, some.x_train)

    def of_labels(rows: Tensor, z: Tensor) -> Tensor:
        return F.cross_entropy(z.movedim(-1, 1), some.y_train[rows], reduction="none")

    def of_teacher(rows: Tensor, z: Tensor) -> Tensor:
        return distillation_loss(z, z_t[rows], beta=beta, reduction="none")

    accuracies = []
    for row_losses in (of_labels, of_teacher):
        torch.manual_seed(1)
        students = MLPs(3, 64, [32], 10)
        train_many(students, some.x_train, row_losses, epochs=epochs, batch_size=50)
        with torch.no_grad():
            right = students(digits.x_test).argmax(-1) == digits.y_test
        accuracies.append(right.double().mean(-1))
    least = (accuracies[0] - accuracies[1]).min().item()
    if least < 0.02:
        raise Hint(
            f"labels {accuracies[0].mean():.1%}, distilled {accuracies[1].mean():.1%}: "
            "what would make the teacher worse than the labels it was trained on?"
        )
