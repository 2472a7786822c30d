"""Training on labels and distilling from a teacher: one plain loop, two losses.

`steps` is the loop, a step at a time: `train` and `distill` run it to its end, the widgets in
slices.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlab.data import Dataset
from kdlab.extras import needed_by
from kdlab.functional import distillation_loss
from kdlab.metrics import accuracy, agreement
from kdlab.progress import progress as progress_bar

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# What a batch costs: (indices of its rows in the training set, the model's logits) -> a scalar.
BatchLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class History:
    """What a run went through, one entry an evaluation. `plot()` draws it.

    loss is the mean training loss of the epoch (epoch 0, before training: NaN); accuracies and
    agreement with the teacher are shares in [0, 1], agreement NaN where there was no teacher.
    """

    epoch: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def plot(self) -> "Figure":
        """Loss, and accuracies with agreement, against the epoch; a matplotlib figure."""
        with needed_by("History.plot"):
            from kdlab.plots import history_figure

        return history_figure(self)

    def __repr__(self) -> str:
        if not self.epoch:
            return "History(empty)"
        cut = ", interrupted" if self.interrupted else ""
        return f"History({self.epoch[-1]} epochs, test accuracy {self.test_accuracy[-1]:.3f}{cut})"


def train(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int = 100,
    batch_size: int = 100,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    seed: int = 0,
    eval_every: int = 0,
    progress: bool = True,
) -> History:
    """Train on the labels alone. `data` is the course's `Dataset`: whole tensors, no DataLoader.

    Adam on the cross-entropy, the learning rate falling to 0 (cosine). The seed fixes the order of
    the examples; the weights the model starts from are yours to seed (`torch.manual_seed` before
    making it). Same seed, epochs and batch_size: the same batches as `distill`. eval_every=0
    evaluates before the first and after the last epoch only. Ctrl-C stops the run and keeps the
    weights and the history so far (`history.interrupted`).

    Raises ValueError, naming the argument, for settings out of range, TypeError for other data.

    >>> from kdlab import data, models
    >>> _ = torch.manual_seed(0)
    >>> train(models.MLP(64, [32], 10), data.digits(), epochs=2, progress=False)
    History(2 epochs, test accuracy ...)
    """

    def loss(rows: Tensor, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, data.y_train[rows].to(logits.device))

    _check_dataset(data)
    return _fit(model, data, loss, None, epochs, batch_size, lr, weight_decay, seed, eval_every,
                progress)  # fmt: skip


def distill(
    student: nn.Module,
    teacher: nn.Module,
    data: Dataset,
    *,
    beta: float = 0.25,
    divergence: str = "kl",
    label_weight: float = 0.0,
    temperature_scaling: bool = True,
    epochs: int = 100,
    batch_size: int = 100,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    seed: int = 0,
    eval_every: int = 0,
    progress: bool = True,
) -> History:
    """Train the student on the teacher's outputs. `data` is the course's `Dataset`, as in `train`.

    In a training loop of your own, `kdlab.distillation_loss` is all that is needed. Here its mean,
    (1 − α) T² D(p, q) + α CE(z_s, label) with α = label_weight, T = 1/β, is minimised. The teacher
    runs once over the training set, in eval mode and without gradients: there is no augmentation,
    so its outputs don't change. With label_weight=0 no label is used in training. The rest is as in
    `train`.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

    >>> from kdlab import data, models
    >>> _ = torch.manual_seed(0)
    >>> teacher, student = models.MLP(64, [128], 10), models.MLP(64, [8], 10)
    >>> _ = train(teacher, data.digits(), epochs=2, progress=False)
    >>> distill(student, teacher, data.digits(), epochs=2, progress=False)
    History(2 epochs, test accuracy ...)
    """
    _check_dataset(data)
    targets = predict(teacher, data.x_train)
    if not targets.isfinite().all():
        raise ValueError("teacher: its outputs on the training set are not all finite")

    def loss(rows: Tensor, logits: Tensor) -> Tensor:
        return distillation_loss(
            logits,
            targets[rows].to(logits.device),
            data.y_train[rows].to(logits.device),
            beta=beta,
            divergence=divergence,
            label_weight=label_weight,
            temperature_scaling=temperature_scaling,
        )

    return _fit(student, data, loss, predict(teacher, data.x_test), epochs, batch_size, lr,
                weight_decay, seed, eval_every, progress)  # fmt: skip


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The model's logits for x, in eval mode, without gradients, on the CPU."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(x.to(_device_of(model)))
    model.train(was_training)
    return logits.cpu()


@dataclass(frozen=True)
class Step:
    """A step of training that has been taken: its number from 1, mean batch loss, batch size."""

    number: int
    loss: Tensor
    examples: int


def steps(
    model: nn.Module,
    data: Dataset,
    loss: BatchLoss,
    *,
    count: int,
    batch_size: int = 100,
    lr: float | Callable[[int], float] = 1e-2,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Iterator[Step]:
    """Train the model one optimiser step at a time: an iterator that steps when it is asked.

    Adam on `loss`, `count` steps in all, the learning rate falling from `lr` to 0 along a cosine.
    Each epoch passes over the training set once, in an order drawn from `seed`. `lr` may be a
    function of the step's number: when its value changes, the rest of the cosine is scaled by as
    much. What the caller does between steps (evaluate, wait, stop) changes nothing in training.

    Raises ValueError, naming the argument, for settings out of range, TypeError for other data; at
    the call.

    >>> from kdlab import data, models
    >>> digits, model = data.digits(), models.MLP(64, [8], 10)
    >>> def loss(rows, logits):
    ...     return F.cross_entropy(logits, digits.y_train[rows])
    >>> [step.number for step in steps(model, digits, loss, count=3)]
    [1, 2, 3]
    """
    _check_dataset(data)
    rate = lr if callable(lr) else _constant(lr)
    _check(
        count=(count, count >= 0, "at least 0"),
        batch_size=(batch_size, batch_size >= 1, "at least 1"),
        lr=(rate(1), 0 < rate(1) < float("inf"), "a finite number above 0"),
        weight_decay=(weight_decay, weight_decay >= 0, "at least 0"),
    )
    model.train()
    return _steps(model, data, loss, count, batch_size, rate, weight_decay, seed)


def _steps(
    model: nn.Module,
    data: Dataset,
    loss: BatchLoss,
    count: int,
    batch_size: int,
    rate: Callable[[int], float],
    weight_decay: float,
    seed: int,
) -> Iterator[Step]:
    x_train = data.x_train.to(_device_of(model))
    height = rate(1)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=height, weight_decay=weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, count))
    order = torch.Generator().manual_seed(seed)
    number = 0
    while number < count:
        batches = torch.randperm(len(x_train), generator=order).split(batch_size)
        for rows in batches[: count - number]:
            number += 1
            if rate(number) != height:
                # The schedule goes from step to step by a factor, so scaling now scales the rest.
                for group in optimizer.param_groups:
                    group["lr"] *= rate(number) / height
                height = rate(number)
            batch_loss = loss(rows, model(x_train[rows]))
            optimizer.zero_grad()
            batch_loss.backward()
            optimizer.step()
            schedule.step()
            yield Step(number, batch_loss.detach(), len(rows))


def _constant(value: float) -> Callable[[int], float]:
    return lambda step: value


def _check(**arguments: tuple[Any, bool, str]) -> None:
    for name, (value, good, expected) in arguments.items():
        if not good:
            raise ValueError(f"{name}: got {value}; expected {expected}")


def _check_dataset(data: Any) -> None:
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data: got {type(data).__name__}; expected a kdlab.data.Dataset, whole tensors. In a "
            "loop of your own, over a DataLoader say, call kdlab.distillation_loss"
        )


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _fit(
    model: nn.Module,
    data: Dataset,
    loss: BatchLoss,
    teacher_test: Tensor | None,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
    eval_every: int,
    progress: bool,
) -> History:
    _check(
        epochs=(epochs, epochs >= 0, "at least 0"),
        batch_size=(batch_size, batch_size >= 1, "at least 1"),
        eval_every=(eval_every, eval_every >= 0, "at least 0"),
    )
    examples = len(data.x_train)
    epoch_steps = -(-examples // batch_size)
    run = steps(model, data, loss, count=epochs * epoch_steps, batch_size=batch_size, lr=lr,
                weight_decay=weight_decay, seed=seed)  # fmt: skip
    history = History()

    def evaluate(epoch: int, mean_loss: float) -> None:
        test = predict(model, data.x_test)
        history.epoch.append(epoch)
        history.loss.append(mean_loss)
        history.train_accuracy.append(accuracy(predict(model, data.x_train), data.y_train))
        history.test_accuracy.append(accuracy(test, data.y_test))
        nan = float("nan")
        history.agreement.append(nan if teacher_test is None else agreement(test, teacher_test))

    start = time.perf_counter()
    evaluate(0, float("nan"))
    epoch, mean_loss = 0, float("nan")
    bar = progress_bar(range(1, epochs + 1), "epoch", disable=not progress)
    try:
        for epoch in bar:
            total = torch.zeros((), device=_device_of(model))
            for step in islice(run, epoch_steps):
                total += step.loss * step.examples
            mean_loss = total.item() / examples
            if epoch == epochs or (eval_every and epoch % eval_every == 0):
                evaluate(epoch, mean_loss)
                bar.set_postfix(loss=mean_loss, test=history.test_accuracy[-1])
    except KeyboardInterrupt:
        history.interrupted = True
        evaluate(epoch, mean_loss)
    finally:
        bar.close()
        history.seconds = time.perf_counter() - start
    return history
