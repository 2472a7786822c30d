"""One visual language for the course: colours, styles and the figures that notebooks share.

Colours are Okabe and Ito's (2008), which the colour-blind tell apart; teacher and student keep
theirs in every figure, and differ in line style or hatch too, for print.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kdlab.training import History

TEACHER = "#0072B2"
STUDENT = "#E69F00"
LABELS = "#009E73"
LOSS = "#D55E00"
GREY = "#666666"
CYCLE = (TEACHER, STUDENT, LABELS, LOSS, "#CC79A7", "#56B4E9")


def use_style() -> None:
    """Set matplotlib's defaults for the course: call it once at the top of a notebook."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=CYCLE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.axisbelow": True,
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "legend.frameon": False,
            "font.size": 10,
        }
    )


def show_example(ax: Axes, x: Tensor, image_shape: Sequence[int], title: str = "") -> None:
    """Draw one input: an image for a shape (H, W), a line for a shape (L,)."""
    values = x.detach().cpu().reshape(*image_shape).numpy()
    if values.ndim == 2:
        ax.imshow(values, cmap="gray_r", interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    else:
        ax.plot(values, color=GREY)
        ax.set_xlabel("sample")
        ax.set_ylabel("value")
    ax.set_title(title)


def soft_targets(
    probabilities: dict[str, Tensor],
    class_names: Sequence[str],
    *,
    x: Tensor | None = None,
    image_shape: Sequence[int] | None = None,
    title: str = "Softened outputs",
) -> Figure:
    """Bars of p for each class, one panel an entry of `probabilities`, the example beside them."""
    panels = len(probabilities) + (x is not None)
    figure, axes = plt.subplots(1, panels, figsize=(3 * panels, 2.7), squeeze=False)
    row = list(axes[0])
    if x is not None:
        show_example(row.pop(0), x, image_shape or tuple(x.shape), "the example")
    for ax, (name, p) in zip(row, probabilities.items(), strict=True):
        ax.bar(range(len(p)), p.detach().cpu().tolist(), color=TEACHER)
        ax.set(title=name, xlabel="class", ylabel="probability", ylim=(0, 1))
        ax.set_xticks(range(len(p)), class_names)
    figure.suptitle(title)
    return figure


def seed_band(ax: Axes, x: Sequence[float], runs: Any, label: str, **style: Any) -> None:
    """Mean over seeds as a line and the range from worst to best as a band; runs is (seeds, x)."""
    runs = np.asarray(runs, dtype=float)
    (line,) = ax.plot(x, runs.mean(0), marker="o", label=label, **style)
    ax.fill_between(x, runs.min(0), runs.max(0), color=line.get_color(), alpha=0.2, linewidth=0)


def seed_points(ax: Axes, groups: dict[str, Sequence[float]]) -> None:
    """Each seed as a point and each group's mean as a bar: small samples shown whole."""
    for i, (_, values) in enumerate(groups.items()):
        ax.plot([i] * len(values), values, "o", color=CYCLE[i % len(CYCLE)], alpha=0.8)
        ax.hlines(float(np.mean(values)), i - 0.25, i + 0.25, color=GREY)
    ax.set_xticks(range(len(groups)), list(groups))


def history_figure(history: History) -> Figure:
    """Training loss, and accuracy with agreement, against the epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    left.plot(history.epoch, history.loss, color=LOSS, marker="o")
    left.set(title="Training loss", xlabel="epoch", ylabel="mean loss of the epoch")
    right.plot(history.epoch, history.test_accuracy, color=STUDENT, marker="o", label="test")
    right.plot(history.epoch, history.train_accuracy, color=GREY, linestyle="--", label="training")
    if not np.isnan(history.agreement).all():
        right.plot(
            history.epoch, history.agreement, color=TEACHER, linestyle=":", label="with the teacher"
        )
    right.set(title="Accuracy and agreement", xlabel="epoch", ylabel="share of examples")
    right.set_ylim(0, 1.02)
    right.legend()
    return figure
