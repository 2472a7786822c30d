"""Exercises of 02_core_concepts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdlab import models
from kdlab.course.exercises import Hint, exercise
from kdlab.functional import soften


def a_tensor(value: object, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value, Tensor):
        raise Hint(f"expected a tensor of shape {shape}; your function gives {value!r} so far")
    if value.shape != shape:
        raise Hint(f"expected shape {shape}; got {tuple(value.shape)}")
    return value


def some_logits(rows: int, classes: int) -> Tensor:
    return 3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(5))


@exercise("2.1", "The second guess")
def _(second_guess: Callable[[Tensor], Tensor]) -> None:
    z = some_logits(50, 10)
    got = a_tensor(second_guess(z), (50,))
    if torch.equal(got, z.argmax(-1)):
        raise Hint("that is the first guess; torch.topk gives more than one")
    if torch.equal(got, z.argsort(-1)[:, 1]):
        raise Hint("second from below: argsort sorts upwards")
    if not torch.equal(got, z.argsort(-1)[:, -2]):
        raise Hint("try it on a row that you can check by eye, as [[3., 1., 2.]]: class 2")


@exercise("2.2", "Label smoothing")
def _(smooth_labels: Callable[[Tensor, int, float], Tensor]) -> None:
    labels = torch.tensor([0, 3, 1])
    got = a_tensor(smooth_labels(labels, 4, 0.3), (3, 4))
    if not torch.allclose(got.sum(-1), torch.ones(3)):
        raise Hint(f"each row must sum to 1; yours sum to {got.sum(-1).tolist()}")
    at_label = got.gather(1, labels.unsqueeze(1)).squeeze(1)
    if torch.allclose(at_label, torch.full((3,), 0.7 + 0.3 / 4)):
        raise Hint("here the label keeps exactly 1 − share; the share goes to the other classes")
    if not torch.allclose(at_label, torch.full((3,), 0.7)):
        raise Hint(f"the labels {labels.tolist()} should get 0.7; they get {at_label.tolist()}")
    if not torch.allclose(got.scatter(1, labels.unsqueeze(1), 0.1), torch.full((3, 4), 0.1)):
        raise Hint("the share is to be spread evenly over the other classes")


@exercise("2.3", "Lookalikes")
def _(most_alike: Callable[[Tensor, Tensor], tuple[int, int]]) -> None:
    labels = torch.arange(6).repeat(20)
    p = torch.full((120, 6), 0.02)
    p[range(120), labels] = 0.9
    p[labels == 4, 1] = 0.08  # 4 looks like 1, and 1 like 4
    p[labels == 1, 4] = 0.08
    p[labels == 2, 5] = 0.12  # 2 looks more like 5, but 5 not like 2
    got = most_alike(p, labels)
    if got is None or got is ...:
        raise Hint("begin with a table: for each label the mean of p over its examples")
    pair = tuple(int(c) for c in got)
    if len(pair) != 2 or pair[0] == pair[1]:
        raise Hint(f"expected two different classes; got {pair}: leave out the diagonal")
    if pair == (2, 5):
        raise Hint("2 is taken for 5, but 5 hardly for 2: add up both directions")
    if pair == (4, 1):
        raise Hint("the right classes; give the smaller one first")
    if pair != (1, 4):
        raise Hint(f"got {pair}; on a case made by hand, 1 and 4 are taken for each other most")


@exercise("2.4", "Another control")
def _(ranks_only: Callable[[Tensor], Tensor]) -> None:
    z = some_logits(50, 10)
    got = a_tensor(ranks_only(z), (50, 10))
    if torch.equal(got, z.argsort(-1) + 1):
        raise Hint(
            "argsort says which class stands at each place; you want the place of each class"
        )
    if not torch.equal(got.sort(-1).values, torch.arange(1.0, 11.0).expand(50, 10)):
        raise Hint("each row must hold the numbers 1 to V, each once, as floats")
    if torch.equal(got.argmax(-1), z.argmin(-1)):
        raise Hint("the largest logit is to become V, not 1")
    if not torch.equal(got.argsort(-1), z.argsort(-1)):
        raise Hint("the order of the classes in a row must stay what it was")


@exercise("2.5", "A student that never met its teacher")
def _(learn: Callable[[nn.Module, Tensor, Tensor, float], object]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(200, 12)
        teacher, student = models.MLP(12, [32], 5), models.MLP(12, [32], 5)
    beta = 0.5
    with torch.no_grad():
        targets = soften(4 * teacher(x), beta)
        before = distance(targets, soften(student(x), beta))
    start = [p.detach().clone() for p in student.parameters()]
    learn(student, x, targets, beta)
    if all(torch.equal(a, b) for a, b in zip(start, student.parameters(), strict=True)):
        raise Hint("the student's weights are what they were: does the optimizer hold them?")
    with torch.no_grad():
        after = distance(targets, soften(student(x), beta))
        sharp = distance(targets, soften(student(x), 1.0))
    if after > 0.15 * before:
        if sharp < 0.15 * before:
            raise Hint("the targets are probabilities at β: soften the student at the same β")
        raise Hint(
            f"the mean KL to the targets went from {before:.3f} to {after:.3f}; less than "
            f"{0.15 * before:.3f} is wanted: more steps, another learning rate?"
        )


def distance(p: Tensor, q: Tensor) -> float:
    return (p * (p / q).log()).sum(-1).mean().item()
