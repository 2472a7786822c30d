"""Exercises of 04_code."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kdlab import models, reference
from kdlab.course.exercises import Hint, exercise
from kdlab.metrics import agreement


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """make(), with torch's random numbers from a seed, and left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def unchanged(model: nn.Module, before: nn.Module) -> None:
    """Raise a hint unless the teacher came out as it went in."""
    now, then = model.state_dict(), before.state_dict()
    if not all(torch.equal(now[name], then[name]) for name in then):
        raise Hint("the teacher's weights (or its batch statistics) have changed")
    if any(p.grad is not None for p in model.parameters()):
        raise Hint("the teacher has collected gradients: ask it without a graph")
    if model.training != before.training:
        raise Hint("the teacher's mode is another than before: put it back")


@exercise("4.1", "The missing check")
def _(trains: Callable[[torch.optim.Optimizer, nn.Module], bool]) -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())  # the same numbers, other parameters
    in_groups: list[dict[str, Any]] = [{"params": [one.weight]}, {"params": [one.bias]}]
    cases = [
        (torch.optim.SGD(one.parameters(), lr=0.1), one, True, "an optimizer made for the model"),
        (torch.optim.SGD(other.parameters(), lr=0.1), one, False, "another model of equal numbers"),
        (torch.optim.SGD([one.weight], lr=0.1), one, False, "an optimizer that lacks the bias"),
        (torch.optim.SGD(in_groups, lr=0.1), one, True, "weight and bias in two groups"),
    ]
    for optimizer, model, expected, what in cases:
        got = trains(optimizer, model)
        if got is None or got is ...:
            raise Hint("look into optimizer.param_groups: a list of dictionaries")
        if bool(got) != expected:
            raise Hint(f"{what}: got {got}; expected {expected}")


def linears(widths: Sequence[int]) -> list[nn.Linear]:
    return [nn.Linear(before, after) for before, after in pairwise(widths)]


@exercise("4.2", "Collapse any tower")
def _(collapse_all: Callable[[Sequence[nn.Linear]], nn.Linear]) -> None:
    x = seeded(lambda: torch.randn(20, 4))
    for widths in ([4, 3], [4, 6, 5], [4, 2, 7, 3]):
        layers = seeded(partial(linears, widths))
        got = seeded(partial(collapse_all, layers))
        if not isinstance(got, nn.Linear):
            raise Hint(f"expected an nn.Linear; got {got!r} so far")
        if got.weight.shape != (widths[-1], widths[0]):
            raise Hint(
                f"for widths {widths}: weight of shape {tuple(got.weight.shape)}; in which order "
                "do the matrices multiply?"
            )
        with torch.no_grad():
            expected = nn.Sequential(*layers)(x)
            if torch.allclose(x @ got.weight.T, expected - expected.mean(0), atol=1e-4):
                raise Hint("the weight may be right; look at the bias")
            if not torch.allclose(got(x), expected, atol=1e-4):
                raise Hint(
                    f"for widths {widths}: other outputs than the layers one after another. Two "
                    "layers first, on paper; the first bias passes through the second weight"
                )


@exercise("4.3", "Eleven questions")
def _(clone: Callable[[Callable[[Tensor], Tensor]], nn.Linear]) -> None:
    teacher = seeded(models.LargeModel, 7)
    asked: list[int] = []

    def answer(x: Tensor) -> Tensor:
        asked.append(1 if x.dim() == 1 else len(x))
        return teacher(x)

    got = seeded(lambda: clone(answer))
    if not isinstance(got, nn.Module):
        raise Hint("expected an nn.Linear; what does the teacher answer to zero?")
    if sum(asked) > 11:
        raise Hint(f"you asked {sum(asked)} questions; eleven are enough")
    x = seeded(lambda: 3 * torch.randn(100, 10), 8)
    with torch.no_grad():
        wrong = (got(x) - teacher(x)).abs().max().item()
        turned = isinstance(got, nn.Linear) and torch.allclose(
            nn.functional.linear(x, got.weight.T, got.bias), teacher(x), atol=1e-3
        )
        if wrong > 1e-3 and turned:
            raise Hint("the weight is transposed: nn.Linear stores (out, in)")
    if wrong > 1e-3:
        raise Hint(
            f"off by up to {wrong:.2g} on new inputs; f(0) = b, and f(e₁) − f(0) is a column of W"
        )


def a_pair(mode: bool) -> tuple[nn.Module, nn.Module, Tensor]:
    """A teacher with dropout and batch normalisation, a student, inputs."""

    def make() -> nn.Sequential:
        first, last = nn.Linear(8, 32), nn.Linear(32, 5)
        return nn.Sequential(first, nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), last)

    teacher = seeded(make, 3)
    student, x = seeded(lambda: (models.MLP(8, [16], 5), torch.randn(40, 8)), 4)
    with torch.no_grad():
        teacher[-1].weight.mul_(8)
    return teacher.train(mode), student, x


@exercise("4.4", "Mend the step")
def _(step: Callable[..., float]) -> None:
    for mode in (False, True):
        teacher, student, x = a_pair(mode)
        before, beta = copy.deepcopy(teacher), 0.5
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        with torch.no_grad():
            z_t = copy.deepcopy(teacher).eval()(x)
        for attempt in range(3):
            with torch.no_grad():
                z_s = student(x)
            old = [p.detach().clone() for p in student.parameters()]
            expected = reference.kl(z_s, z_t, beta).mean().item() / beta**2
            got = step(student, teacher, optimizer, x, beta)
            if got is None or got is ...:
                raise Hint("begin with the two softmaxes: over which dimension do they run?")
            if isinstance(got, Tensor):
                raise Hint("return a float: a tensor would keep its graph alive")
            unchanged(teacher, before)
            for factor, what in (
                (5, "a fifth: reduction='mean' divides by the classes too"),
                (1 / beta**2, "the factor T² is missing"),
            ):
                if abs(got * factor - expected) < 1e-4 * expected:
                    raise Hint(f"the loss is too small by {factor:g}: {what}")
            reverse = reference.kl(z_t, z_s, beta).mean().item() / beta**2
            if abs(got - reverse) < 1e-4 * reverse:
                raise Hint("that is KL(q‖p): kl_div takes the student's log q first")
            if abs(got - expected) > 1e-3 * expected:
                raise Hint(
                    f"loss {got:.4f}; expected {expected:.4f}"
                    + (" (does the teacher answer in eval mode?)" if mode else "")
                )
            copy_of = copy.deepcopy(student)
            for p, q in zip(copy_of.parameters(), old, strict=True):
                p.data.copy_(q)
            loss = reference.kl(copy_of(x), z_t, beta).mean() / beta**2
            gradients = torch.autograd.grad(loss, list(copy_of.parameters()))
            for p, q, g in zip(student.parameters(), old, gradients, strict=True):
                if not torch.allclose(p, q - 0.1 * g, atol=1e-5):
                    raise Hint(
                        "the student's weights have not moved"
                        if torch.equal(p, q)
                        else f"update {attempt + 1} is not that of this loss's gradient: "
                        "are old gradients cleared?"
                    )


@exercise("4.5", "Your own distill")
def _(my_distill: Callable[..., list[float]]) -> None:
    teacher, _student, _x = a_pair(True)
    student, x = seeded(lambda: (models.MLP(8, [64], 5), torch.randn(1010, 8)), 6)
    before, again = copy.deepcopy(teacher), copy.deepcopy(student)
    first = my_distill(student, teacher, x, beta=0.5, epochs=30, seed=0)
    if first is None or first is ...:
        raise Hint("return the list of the epochs' mean losses")
    if len(first) != 30:
        raise Hint(f"expected 30 losses, one an epoch; got {len(first)}")
    unchanged(teacher, before)
    with torch.no_grad():
        share = agreement(student(x), copy.deepcopy(teacher).eval()(x))
    if share <= 0.9:
        raise Hint(
            f"it agrees with its teacher on {share:.0%} of the inputs; more than 90 % wanted"
        )
    if not float(first[-1]) < 0.5 * float(first[0]):
        raise Hint(f"the mean loss goes from {first[0]:.3f} to {first[-1]:.3f}; it should halve")
    torch.rand(3)  # a run must not depend on what others draw
    my_distill(again, teacher, x, beta=0.5, epochs=30, seed=0)
    for p, q in zip(student.parameters(), again.parameters(), strict=True):
        if not torch.allclose(p, q, atol=1e-4):
            raise Hint(
                "the same seed gives another student: draw the order from your own generator"
            )
