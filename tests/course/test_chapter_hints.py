"""Typical wrong answers to the exercises of notebooks 01 to 06, and the hint that each must get."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlab import course, models, reference, soften

Q = soften


def mse_gradient(z_s, z_t, beta, factor=1.0):
    q, p = Q(z_s, beta), Q(z_t, beta)
    return factor * 2 * beta * q * ((q - p) - (q * (q - p)).sum(-1, keepdim=True))


def loss(z_s, z_t, labels, beta, alpha, *, scale=True, hard_beta=1.0, swap=False):
    soft = reference.kl(*((z_t, z_s) if swap else (z_s, z_t)), beta) / (beta**2 if scale else 1)
    return ((1 - alpha) * soft + alpha * reference.cross_entropy(hard_beta * z_s, labels)).mean()


def step(student, teacher, optimizer, x, beta, *, clear=True, ask_in_eval=True, scale=True,
         reduction="batchmean", swap=False):  # fmt: skip
    mode = teacher.training
    teacher.train(mode and not ask_in_eval)
    with torch.no_grad():
        log_p = F.log_softmax(beta * teacher(x), -1)
    teacher.train(mode)
    pair = F.log_softmax(beta * student(x), -1), log_p
    value = F.kl_div(*(pair[::-1] if swap else pair), log_target=True, reduction=reduction)
    value = value / beta**2 if scale else value
    if clear:
        optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.item()


def transposed(teacher):
    answers = teacher(torch.cat([torch.zeros(1, 10), torch.eye(10)])).detach()
    one = nn.Linear(10, 10)
    one.bias.data, one.weight.data = answers[0], answers[1:] - answers[0]
    return one


def shares_on_front(cost, runs, *, cheaper=True, strict=True):
    def beats(a, b):  # (cost, accuracy) each
        no_worse = a[0] <= b[0] and a[1] >= b[1]
        return no_worse and (not strict or (cheaper and a[0] < b[0]) or a[1] > b[1])

    def on(run, i):
        models_ = list(zip(cost, run, strict=True))
        return not any(beats(m, models_[i]) for j, m in enumerate(models_) if j != i)

    return torch.tensor(
        [[float(on(run, i)) for i in range(len(cost))] for run in runs.tolist()]
    ).mean(0)


@pytest.mark.parametrize(
    ("name", "answer", "hint"),
    [
        ("1.1", 113_192, "float32"),
        ("1.1", 28_298, "number of parameters"),
        ("1.2", lambda w: sum(a * b for a, b in pairwise(w)), "half"),
        ("1.3", lambda parameters: 17, "nearer"),
        ("1.4", lambda t, s, n, m: 1, "what does an answer save"),
        ("1.5", lambda c, a: list(range(len(c))), "model 1 costs more"),
        ("2.1", lambda z: z.argmax(-1), "first guess"),
        ("2.2", lambda y, c, s: F.one_hot(y, c) * (1 - s) + s / c, "exactly 1 − share"),
        ("2.3", lambda p, y: (2, 5), "both directions"),
        ("2.4", lambda z: z.argsort(-1) + 1.0, "the place of each class"),
        ("2.5", lambda s, x, t, b: None, "does the optimizer hold them"),
        ("3.1", lambda s, t: (t - s).square().sum(-1) / 100, "subtract the mean"),
        ("3.1", lambda s, t: (t - s).var(-1, correction=0) / 2, "limit for KL"),
        ("3.2", lambda s, t, b: 2 * b * Q(s, b) * (Q(s, b) - Q(t, b)), "sum to zero"),
        ("3.2", lambda s, t, b: mse_gradient(s, t, b, 1 / b), "inner derivative"),
        ("3.2", partial(mse_gradient, factor=-1), "sign"),
        ("3.2", partial(mse_gradient, factor=0.5), "brings a 2"),
        ("3.3", partial(loss, scale=False), "lacks its factor T²"),
        ("3.3", partial(loss, swap=True), "KL(q‖p)"),
        ("3.3", partial(loss, hard_beta=0.5), "at T = 1"),
        ("3.4", lambda z, y: 1.0, "has a lower NLL"),
        ("3.5", lambda t, k: models.MLP(12, [4], 5), "silenced"),
        ("4.1", lambda o, m: True, "expected False"),
        ("4.2", lambda layers: nn.Linear(4, 3), "in which order"),
        ("4.3", transposed, "transposed"),
        ("4.4", partial(step, clear=False), "old gradients"),
        ("4.4", partial(step, ask_in_eval=False), "batch statistics"),
        ("4.4", partial(step, reduction="mean"), "divides by the classes"),
        ("4.4", partial(step, scale=False), "T² is missing"),
        ("4.4", partial(step, swap=True), "log q first"),
        ("4.5", lambda s, t, x, beta, epochs, seed: [1.0], "one an epoch"),
        ("5.4", lambda c, runs: shares_on_front(c, runs.mean(0, keepdim=True)), "mean accuracies"),
        ("5.4", lambda c, runs: len(runs) * shares_on_front(c, runs), "counts"),
        ("5.4", partial(shares_on_front, cheaper=False), "the dearer one is dominated"),
        ("5.4", partial(shares_on_front, strict=False), "neither is strictly better"),
        ("5.4", lambda c, runs: shares_on_front(c, runs[:2]), "mean taken over"),
        ("6.1", 4.6 / 1.0 + 0.4, "is not free either"),
        ("6.1", 4.6 / (1.0 - 0.25), "come whole"),
        ("6.1", 6, "not yet paid"),
    ],
)
def test_a_typical_mistake_gets_its_hint(name, answer, hint):
    verdict = course.check(name, answer)
    assert not verdict.passed
    assert hint in verdict.words
