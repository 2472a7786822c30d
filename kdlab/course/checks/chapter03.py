"""Exercises of 03_algorithm."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdlab import models, reference
from kdlab.course.exercises import Hint, exercise


def logits(rows: int = 6, classes: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Student's logits, teacher's, and labels; float64."""
    draw = torch.Generator().manual_seed(3)
    z = 2 * torch.randn(2, rows, classes, generator=draw, dtype=torch.float64)
    return z[0], z[1], torch.randint(classes, (rows,), generator=draw)


def like(got: object, expected: Tensor) -> Tensor:
    if not isinstance(got, Tensor):
        raise Hint(f"expected a tensor of shape {tuple(expected.shape)}; got {got!r} so far")
    if got.shape != expected.shape:
        raise Hint(f"expected shape {tuple(expected.shape)}; got {tuple(got.shape)}")
    return got.double()


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-7)


@exercise("3.1", "Another limit")
def _(limit_of_mse: Callable[[Tensor, Tensor], Tensor]) -> None:
    z_s, z_t, _labels = logits()
    tiny = 1e-5
    expected = reference.mse(z_s, z_t, tiny) / tiny**2
    got = like(limit_of_mse(z_s, z_t), expected)
    d = z_t - z_s
    centred = (d - d.mean(-1, keepdim=True)).square().sum(-1)
    if same(got, centred / 20):
        raise Hint("that is the limit for KL; here nothing is divided by q")
    if same(got, d.square().sum(-1) / 100):
        raise Hint("softmax does not see what all logits of a row share: subtract the mean of d")
    if same(got, centred) or same(got, centred / 10):
        raise Hint("the right sum; which power of V comes from (β/V)² ?")
    if not torch.allclose(got, expected, rtol=1e-3):
        raise Hint("square p − q ≈ (β/V)(d − d̄), sum over the classes, multiply by T² = 1/β²")


@exercise("3.2", "The gradient of Σ(p − q)²")
def _(gradient_of_mse: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    z_s, z_t, _labels = logits()
    for beta in (1.0, 0.5):
        z = z_s.clone().requires_grad_()
        (expected,) = torch.autograd.grad(reference.mse(z, z_t, beta).sum(), z)
        got = like(gradient_of_mse(z_s.clone(), z_t.clone(), beta), expected)
        if same(got, -expected):
            raise Hint("the sign: is it (p − q) or (q − p) that falls when the student rises?")
        if same(2 * got, expected):
            raise Hint("half of it: the derivative of a square brings a 2")
        if beta != 1 and same(beta * got, expected):
            raise Hint(f"right at β = 1, wrong at β = {beta}: the inner derivative of β z is β")
        if not same(got.sum(-1), torch.zeros(len(got), dtype=got.dtype)):
            raise Hint(
                "each row of the gradient must sum to zero: q reacts to all logits of its row, "
                "not only to its own"
            )
        if not same(got, expected):
            raise Hint("compare with torch.autograd.grad(reference.mse(z, z_t, beta).sum(), z)")


@exercise("3.3", "The whole loss")
def _(whole_loss: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> None:
    z_s, z_t, labels = logits()

    def expected(beta: float, weight: float, scaling: bool = True) -> Tensor:
        return reference.distillation_rows(
            z_s, z_t, labels, beta=beta, label_weight=weight, temperature_scaling=scaling
        ).mean()

    for beta, weight in ((1.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.5, 0.3)):
        right = expected(beta, weight)
        got = like(whole_loss(z_s, z_t, labels, beta, weight), right)
        where = f"at β = {beta}, α = {weight}"
        if same(got * 10, right):
            raise Hint(f"{where}: a tenth of it; kl_div's reduction 'mean' divides by V as well")
        if same(got / len(z_s), right):
            raise Hint(f"{where}: the sum over rows; the mean is wanted")
        if beta != 1 and weight < 1 and same(got, expected(beta, weight, scaling=False)):
            raise Hint(f"{where}: the soft term lacks its factor T² = 1/β²")
        if weight == 0 and same(got, reference.kl(z_t, z_s, beta).mean() / beta**2):
            raise Hint(f"{where}: KL(q‖p); the teacher's p comes first, and weights the sum")
        if weight == 1 and same(got, reference.cross_entropy(beta * z_s, labels).mean()):
            raise Hint(f"{where}: the hard term is at T = 1, without β")
        if weight == 0.3 and same(got, expected(beta, 0.7)):
            raise Hint(f"{where}: α is the weight of the labels, 1 − α that of the teacher")
        if not same(got, right):
            raise Hint(f"{where}: got {got.item():.4f}; try the two terms one at a time, α = 0, 1")


@exercise("3.4", "Calibrate without gradient descent")
def _(best_beta: Callable[[Tensor, Tensor], float]) -> None:
    draw = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(4000, 10, generator=draw)
    labels = sample(z, draw)
    for loudness in (1.0, 4.0, 0.2):
        got = best_beta(loudness * z, labels)
        if got is None or got is ...:
            raise Hint("begin with the NLL as a function of β, and look at it on a coarse grid")
        beta = float(got)
        if not 0.01 <= beta <= 100:
            raise Hint(f"got {beta}; expected a number in [0.01, 100]")
        here, lower, higher = (
            torch.nn.functional.cross_entropy(b * loudness * z, labels).item()
            for b in (beta, 0.98 * beta, 1.02 * beta)
        )
        if here > min(lower, higher) + 1e-7 and min(lower, higher) < here - 1e-6:
            raise Hint(
                f"for logits {loudness:g} times as loud you give β = {beta:.3f}; "
                f"two per cent {'less' if lower < higher else 'more'} has a lower NLL"
            )


def sample(z: Tensor, draw: torch.Generator) -> Tensor:
    """One label a row from softmax(z)."""
    return torch.multinomial(z.softmax(-1), 1, generator=draw).squeeze(1)


@exercise("3.5", "A narrower sub-model")
def _(narrow: Callable[[nn.Module, Sequence[int]], nn.Module]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        teacher, x, keep = models.MLP(12, [20], 5), torch.randn(30, 12), [3, 0, 17, 8]
        before = [p.detach().clone() for p in teacher.parameters()]
        model = narrow(teacher, keep)
    if not isinstance(model, nn.Module):
        raise Hint(f"expected a models.MLP; your function gives {model!r} so far")
    shapes = [tuple(p.shape) for p in model.parameters()]
    if shapes != [(4, 12), (4,), (5, 4), (5,)]:
        raise Hint(f"for 12 → 20 → 5 and four units: expected 12 → 4 → 5; yours has {shapes}")
    if not all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True)):
        raise Hint("the teacher's weights have changed")
    silent = torch.zeros(20)
    silent[keep] = 1
    with torch.no_grad():
        expected = teacher[2](teacher[1](teacher[0](x)) * silent)
        got = model(x)
    if torch.allclose(got, expected - teacher[2].bias, atol=1e-5):
        raise Hint("the output's bias is missing")
    if not torch.allclose(got, expected, atol=1e-5):
        raise Hint(
            "its outputs are not those of the teacher with the other units silenced: a hidden unit "
            "is a row (and a bias) of the first layer and a column of the last"
        )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    if not all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True)):
        raise Hint("changing your model changes the teacher: they share memory; copy the weights")
