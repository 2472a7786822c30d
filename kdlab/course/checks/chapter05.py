"""Exercises of 05_trends_and_challenges."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdlab import data, metrics, models, reference
from kdlab.course.exercises import Hint, exercise
from kdlab.training import predict, train


def _logits(rows: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z_s, z_t = 2 * torch.randn(2, rows, classes, generator=generator, dtype=torch.float64)
    return z_s, z_t


def _begun(result: object, name: str) -> None:
    if result is None or result is ...:
        raise Hint(f"`{name}` returns nothing yet")


@exercise("5.1", "How much smaller is the cache?")
def _(answer: float) -> None:
    ratio = float(answer)
    if abs(ratio - 128256 / 50) < 1:
        raise Hint("a kept class costs more than its probability: which class is it?")
    if abs(ratio - 128256 * 2 / 300) > 1:
        raise Hint("bytes a token, all classes, over bytes a token, 50 classes with their numbers")


@exercise("5.2", "The loss with a rest bucket")
def _(rest_bucket_kl: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    z_s, z_t = _logits(6, 9)
    value = rest_bucket_kl(z_s, z_t, 3)
    _begun(value, "rest_bucket_kl")
    if value.shape != (6,):
        raise Hint(f"one value a row is wanted, shape (6,); got {tuple(value.shape)}")
    full = reference.kl(z_s, z_t)
    if (value > full + 1e-9).any():
        raise Hint("merging classes can only lose information: no row may exceed the full KL")
    p, q = z_t.softmax(-1), z_s.softmax(-1)
    top = p.topk(3).indices
    p_top, q_top = p.gather(-1, top), q.gather(-1, top)
    head = (p_top * (p_top / q_top).log()).sum(-1)
    if torch.allclose(value, head):
        raise Hint("the k classes are there; now add the term of the bucket, as one more class")
    p_rest, q_rest = 1 - p_top.sum(-1), 1 - q_top.sum(-1)
    torch_right = head + p_rest * (p_rest / q_rest).log()
    if not torch.allclose(value, torch_right):
        raise Hint("both top-k sums are over the *teacher's* top k; nothing is renormalised")


@exercise("5.3", "A β for each example")
def _(beta_for_entropy: Callable[[Tensor, float], Tensor]) -> None:
    z_t = _logits(20, 10)[1]
    beta = beta_for_entropy(z_t, 1.5)
    _begun(beta, "beta_for_entropy")
    if beta.shape != (20,):
        raise Hint(f"one β a row is wanted, shape (20,); got {tuple(beta.shape)}")
    if not (beta > 0).all():
        raise Hint("every β must be above 0")
    reached = metrics.entropy(torch.softmax(beta.unsqueeze(-1) * z_t, -1))
    worst = (reached - 1.5).abs().max().item()
    if worst > 1e-3:
        raise Hint(f"a row's entropy is {worst:.3f} nats away; does your interval hold the answer?")


@exercise("5.4", "Which models are on the front?")
def _(on_the_front: Callable[[Sequence[float], Tensor], Tensor]) -> None:
    cost, runs = [1.0, 2.0, 3.0], torch.tensor([[0.5, 0.7, 0.6], [0.5, 0.4, 0.6]])
    shares = on_the_front(cost, runs)
    _begun(shares, "on_the_front")
    if not isinstance(shares, Tensor) or shares.shape != (3,):
        raise Hint("a tensor with one share for each model is wanted, here of shape (3,)")
    shares = shares.double()
    if torch.equal(shares, torch.ones(3, dtype=torch.float64)):
        raise Hint("that is the front of the mean accuracies; take each run's own, then count")
    if torch.equal(shares, torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64)):
        raise Hint("those are counts; a share is at most 1")
    for cost, run, expected, why in (
        ([1.0, 2.0], [0.5, 0.5], [1, 0], "two equally good: the dearer one is dominated"),
        ([1.0, 1.0], [0.5, 0.6], [0, 1], "two of one cost: the less accurate one is dominated"),
        ([1.0, 1.0], [0.5, 0.5], [1, 1], "two equal models: neither is strictly better"),
        ([3.0, 1.0, 2.0], [0.9, 0.5, 0.7], [1, 1, 1], "the models need not come in order of cost"),
    ):
        if on_the_front(cost, torch.tensor([run])).tolist() != expected:
            raise Hint(f"costs {cost}, one run with accuracies {run}: {why}")
    generator = torch.Generator().manual_seed(0)
    costs = torch.randint(6, (9,), generator=generator).tolist()
    runs = torch.randint(7, (20, 9), generator=generator) / 6
    counts = torch.zeros(9, dtype=torch.float64)
    for run in runs.tolist():
        models_ = list(zip(costs, run, strict=True))
        for i, (c, a) in enumerate(models_):
            counts[i] += not any(d <= c and b >= a and (d, b) != (c, a) for d, b in models_)
    if not torch.allclose(on_the_front(costs, runs).double(), counts / 20):
        raise Hint("right for one run; with twenty the shares differ: what is the mean taken over?")


@exercise("5.5", "A student in a quarter of the bytes")
def _(quantise: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    weight = _logits(5, 7)[0].float()
    result = quantise(weight)
    _begun(result, "quantise")
    whole, scale = result
    if whole.dtype != torch.int8:
        raise Hint(f"the first result must be int8; got {whole.dtype}")
    if scale.numel() > 5:
        raise Hint("the scales must cost next to nothing: one for the matrix, or one for each row")
    error = (whole.float() * scale - weight).abs().max().item()
    if error > 0.51 * float(weight.abs().max()) / 127:
        raise Hint(f"the worst weight is {error:.4f} off: is all of −127 … 127 used? rounded?")
    digits = data.digits()
    torch.manual_seed(0)
    model = models.MLP(64, [16], 10)
    train(model, digits, epochs=15, progress=False)
    before = metrics.accuracy(predict(model, digits.x_test), digits.y_test)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                whole, scale = quantise(p)
                p.copy_(whole.float() * scale)
    after = metrics.accuracy(predict(model, digits.x_test), digits.y_test)
    if after < before - 0.02:
        raise Hint(f"a trained student fell from {before:.1%} to {after:.1%}")


@exercise("5.6", "A cache without bias")
def _(sampled_targets: Callable[[Tensor, int, torch.Generator], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    p = _logits(4, 12)[1].softmax(-1)
    target = sampled_targets(p, 5, generator)
    _begun(target, "sampled_targets")
    if target.shape != p.shape:
        raise Hint(f"targets are shaped like p, {tuple(p.shape)}; got {tuple(target.shape)}")
    if ((target > 0).sum(-1) > 5).any():
        raise Hint("a row of the cache may hold at most `draws` classes")
    if not torch.allclose(target.sum(-1), torch.ones(4, dtype=target.dtype)):
        raise Hint("each row should sum to 1: count the draws, divide by their number")
    mean = sum(sampled_targets(p, 5, generator).double() for _ in range(4000)) / 4000
    off = (mean - p).abs().max().item()
    if off > 0.02:
        raise Hint(f"averaged over many caches a class is {off:.3f} off p: draw from p itself")
