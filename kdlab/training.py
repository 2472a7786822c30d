"""Training on labels and distilling from a teacher: one plain loop, two losses."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from kdlab.data import Dataset
from kdlab.functional import distillation_loss
from kdlab.metrics import accuracy, agreement

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    """Train on the labels alone: Adam on the cross-entropy, learning rate falling to 0 (cosine).

    The seed fixes the order of the examples; the weights the model starts from are yours to seed
    (`torch.manual_seed` before making it). Same seed, epochs and batch_size: the same batches as
    `distill`. eval_every=0 evaluates before the first and after the last epoch only. Ctrl-C stops
    the run and keeps the weights and the history so far (`history.interrupted`).

    Raises ValueError, naming the argument, for settings out of range.

    >>> from kdlab import data, models
    >>> _ = torch.manual_seed(0)
    >>> train(models.MLP(64, [32], 10), data.digits(), epochs=2, progress=False)
    History(2 epochs, test accuracy ...)
    """

    def loss(rows: Tensor, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, data.y_train[rows].to(logits.device))

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
    """Train the student on the teacher's outputs, by `kdlab.distillation_loss`.

    Minimises the mean of (1 − α) T² D(p, q) + α CE(z_s, label) with α = label_weight, T = 1/β. The
    teacher runs once over the training set, in eval mode and without gradients: there is no
    augmentation, so its outputs don't change. With label_weight=0 no label is used in training.
    The rest is as in `train`.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

    >>> from kdlab import data, models
    >>> _ = torch.manual_seed(0)
    >>> teacher, student = models.MLP(64, [128], 10), models.MLP(64, [8], 10)
    >>> _ = train(teacher, data.digits(), epochs=2, progress=False)
    >>> distill(student, teacher, data.digits(), epochs=2, progress=False)
    History(2 epochs, test accuracy ...)
    """
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


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _fit(
    model: nn.Module,
    data: Dataset,
    loss: Callable[[Tensor, Tensor], Tensor],
    teacher_test: Tensor | None,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
    eval_every: int,
    progress: bool,
) -> History:
    checks: dict[str, tuple[Any, bool, str]] = {
        "epochs": (epochs, epochs >= 0, "at least 0"),
        "batch_size": (batch_size, batch_size >= 1, "at least 1"),
        "lr": (lr, 0 < lr < float("inf"), "a finite number above 0"),
        "weight_decay": (weight_decay, weight_decay >= 0, "at least 0"),
        "eval_every": (eval_every, eval_every >= 0, "at least 0"),
    }
    for name, (value, good, expected) in checks.items():
        if not good:
            raise ValueError(f"{name}: got {value}; expected {expected}")

    history = History()
    device = _device_of(model)
    x_train = data.x_train.to(device)
    examples = len(x_train)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    steps = max(1, epochs * -(-examples // batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    order = torch.Generator().manual_seed(seed)

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
    model.train()
    bar = tqdm(range(1, epochs + 1), unit="epoch", disable=not progress)
    try:
        for epoch in bar:
            total = torch.zeros((), device=device)
            for rows in torch.randperm(examples, generator=order).split(batch_size):
                batch_loss = loss(rows, model(x_train[rows]))
                optimizer.zero_grad()
                batch_loss.backward()
                optimizer.step()
                schedule.step()
                total += batch_loss.detach() * len(rows)
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
