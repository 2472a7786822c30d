"""What the course measures: of predictions, and of models."""

import statistics
import time
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is the label's. logits (N, V), labels (N,).

    >>> accuracy(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    0.5
    """
    _check_rows("labels", labels, logits.shape[:-1])
    return (logits.argmax(-1) == labels).double().mean().item()


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """Share of rows where student and teacher predict the same class, right or wrong.

    Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021.

    >>> agreement(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
    0.5
    """
    _check_rows("teacher_logits", teacher_logits, student_logits.shape)
    return accuracy(student_logits, teacher_logits.argmax(-1))


def entropy(probabilities: Tensor) -> Tensor:
    """−Σ p log p in nats, over the last dimension; 0 log 0 = 0.

    >>> entropy(torch.tensor([0.5, 0.5, 0.0]))
    tensor(0.6931)
    """
    return torch.special.entr(probabilities).sum(-1)


def effective_classes(probabilities: Tensor) -> Tensor:
    """exp(entropy): how many equally likely classes would be as uncertain (perplexity).

    >>> effective_classes(torch.tensor([0.5, 0.5, 0.0]))
    tensor(2.)
    """
    return entropy(probabilities).exp()


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Σ over confidence bins of (share of rows) · `|accuracy − mean confidence|`.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    >>> expected_calibration_error(torch.tensor([[9.0, -9.0]] * 2), torch.tensor([0, 1])) > 0.49
    True
    """
    _check_rows("labels", labels, logits.shape[:-1])
    confidence, predicted = torch.softmax(logits.double(), -1).max(-1)
    right = (predicted == labels).double()
    which = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    gaps.index_add_(0, which, right - confidence)
    return (gaps.abs().sum() / len(labels)).item()


def parameter_count(model: nn.Module) -> int:
    """How many numbers the model learns.

    >>> parameter_count(nn.Linear(10, 20))
    220
    """
    return sum(p.numel() for p in model.parameters())


def parameter_bytes(model: nn.Module) -> int:
    """Bytes that the parameters take as they are stored.

    >>> parameter_bytes(nn.Linear(10, 20))
    880
    """
    return sum(p.numel() * p.element_size() for p in model.parameters())


def flops(model: nn.Module, x: Tensor) -> int:
    """Floating-point operations of one forward pass over x: matrix products and convolutions.

    A multiplication and an addition count as two. Counted by PyTorch's FlopCounterMode.

    >>> flops(nn.Linear(10, 20), torch.zeros(1, 10))
    400
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, half a second

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


def peak_memory(model: nn.Module, x: Tensor) -> int:
    """Most bytes that one forward pass holds at once beside the weights and x, without gradients.

    Counted from the tensors that the pass makes and drops, so it is the same on every machine, and
    works on the meta device; scratch space inside an operator is not seen.

    >>> peak_memory(nn.Sequential(nn.Linear(10, 20), nn.ReLU()), torch.zeros(1, 10))
    160
    """
    with torch.no_grad(), _LiveBytes(known=[x, *model.parameters(), *model.buffers()]) as live:
        model(x)
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Follow every storage made in the block until it is freed; `peak` is the largest sum."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self.seen:
                storage = tensor.untyped_storage()
                self.seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _free(self, size: int) -> None:
        self.now -= size


@dataclass(frozen=True)
class Latency:
    """Seconds of one forward pass: the median, and the quarter and three-quarter points."""

    median: float
    low: float
    high: float


def latency(model: nn.Module, x: Tensor, repeats: int = 50) -> Latency:
    """Time `repeats` forward passes over x, one by one, after a few to warm up."""
    if repeats < 2:
        raise ValueError(f"repeats: got {repeats}; expected at least 2")

    def wait() -> None:
        if x.is_cuda:
            torch.cuda.synchronize(x.device)

    seconds = []
    with torch.no_grad():
        for i in range(repeats + 5):
            wait()
            start = time.perf_counter()
            model(x)
            wait()
            if i >= 5:
                seconds.append(time.perf_counter() - start)
    low, median, high = statistics.quantiles(seconds, n=4)
    return Latency(median, low, high)


def _check_rows(name: str, tensor: Tensor, expected: torch.Size) -> None:
    if tensor.shape != expected:
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}; expected {tuple(expected)}")
