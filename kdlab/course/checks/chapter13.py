"""Exercises of 13_errata."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdlab import data, metrics, models
from kdlab.course.exercises import Hint, attempt, exercise
from kdlab.training import predict

Compress = Callable[[models.LargeModel], nn.Sequential]
Distil = Callable[[models.LargeModel, Tensor], models.SmallModel]


@exercise("13.1", "The factor V")
def _(factor: float) -> None:
    try:
        factor = float(factor)
    except (TypeError, ValueError):
        raise Hint(f"expected a number, got {type(factor).__name__}") from None
    if math.isclose(factor, 1 / 32_000):
        raise Hint("which of the two gradients is the smaller one, and what makes up for it?")
    if not math.isclose(factor, 32_000):
        raise Hint("the norm sums over the classes, MSELoss takes the mean over them")


@exercise("13.2", "Compression without loss")
def _(compress: Compress) -> None:
    for seed, rank in ((0, 3), (1, 10), (2, 1)):
        large, x = _large(seed, rank)
        pair = attempt(compress, large)
        if not isinstance(pair, nn.Sequential):
            raise Hint(f"expected an nn.Sequential, got {type(pair).__name__}")
        shapes = [(m.in_features, m.out_features) for m in pair if isinstance(m, nn.Linear)]
        if len(shapes) != 2 or len(pair) != 2 or shapes[0][0] != 10 or shapes[1][1] != 10:
            raise Hint(f"expected two linear layers, 10 → r → 10, and nothing else; got {pair}")
        if shapes[0][1] != shapes[1][0]:
            raise Hint(f"the first layer gives {shapes[0][1]} numbers, the second takes another "
                       f"number of them: {shapes[1][0]}")  # fmt: skip
        if shapes[0][1] > rank:
            raise Hint(f"{shapes[0][1]} units in the middle, where fewer would do: how many "
                       "singular values of W₂W₁ are more than rounding?")  # fmt: skip
        zero = torch.zeros(1, 10)
        off = (pair(x) - large(x)).abs().max().item()
        if off > 1e-4 and torch.allclose(pair(x) - pair(zero), large(x) - large(zero), atol=1e-4):
            raise Hint("the weights are right; what does the first layer's bias become behind W₂?")
        if off > 1e-4 and shapes[0][1] < rank:
            raise Hint(f"{shapes[0][1]} units in the middle are too few: something is lost")
        if off > 1e-4:
            raise Hint(f"the outputs differ by up to {off:.2g}: do your two weights multiply to "
                       "W₂W₁?")  # fmt: skip


@exercise("13.3", "The loop, mended")
def _(distil: Distil) -> None:
    for seed in range(2):
        large, x_new = _large(seed)
        before = [p.detach().clone() for p in large.parameters()]
        x = torch.randn(200, 10, generator=torch.Generator().manual_seed(100 + seed))
        small = attempt(distil, large, x)
        if not isinstance(small, models.SmallModel):
            raise Hint(f"expected a SmallModel, got {type(small).__name__}")
        if any(not torch.equal(p, q) for p, q in zip(before, large.parameters(), strict=True)):
            raise Hint("the large model has changed: which parameters does the optimiser hold?")
        target = large(x_new)
        share = ((small(x_new) - target).square().mean() / target.var()).item()
        if not share < 0.01:
            raise Hint(f"on new inputs the student is off by {share:.0%} of the teacher's variance "
                       "(under 1 % is asked for): is the target large(x), and does it train long "
                       "enough?")  # fmt: skip


@exercise("13.4", "The report that is missing")
def _(report: Callable[[nn.Module, nn.Module, data.Dataset], dict[str, float]]) -> None:
    digits = data.digits()
    torch.manual_seed(0)
    teacher, student = models.MLP(64, [48], 10), models.MLP(64, [8], 10)
    given = attempt(report, student, teacher, digits)
    if not isinstance(given, dict):
        raise Hint(f"expected a dictionary, got {type(given).__name__}")
    z_s, z_t = predict(student, digits.x_test), predict(teacher, digits.x_test)
    one = digits.x_test[:1]
    drop = metrics.accuracy(z_t, digits.y_test) - metrics.accuracy(z_s, digits.y_test)
    norm = (z_t - z_s).square().sum(-1).mean().item()
    expected = {
        "accuracy drop": (drop, "on the test set, and teacher minus student"),
        "agreement": (metrics.agreement(z_s, z_t), "no label enters it"),
        "compression": (
            metrics.parameter_count(teacher) / metrics.parameter_count(student),
            "a number above 1 where the student is smaller",
        ),
        "speed-up": (metrics.flops(teacher, one) / metrics.flops(student, one), "teacher first"),
        "L_teach": (norm, "summed over the classes, mean over the examples, raw outputs"),
    }
    for name, (value, words) in expected.items():
        if name not in given:
            raise Hint(f'there is no "{name}" in it')
        if not _close(given[name], value):
            raise Hint(f'"{name}" is off: {words}')


def _large(seed: int, rank: int = 10) -> tuple[models.LargeModel, Tensor]:
    """A large model whose W₂W₁ has this rank, and inputs, without touching the global seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        large, x = models.LargeModel(), torch.randn(100, 10)
        if rank < 10:
            w_2 = torch.randn(10, rank) @ torch.randn(rank, 20) / (4 * rank**0.5)
            large.layer2.weight.data.copy_(w_2)
        return large, x


def _close(given: Any, value: float) -> bool:
    try:
        return math.isclose(float(given), value, rel_tol=1e-4, abs_tol=1e-6)
    except (TypeError, ValueError):
        return False
