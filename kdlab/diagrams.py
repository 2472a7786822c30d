"""The diagram of the course: teacher, student, the two terms of the loss, and what flows where."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from kdlab import data
from kdlab.functional import soften
from kdlab.plots import GREY, LABELS, LOSS, STUDENT, TEACHER

INK = "#222222"
BETA = 0.25
Z_T = (6.0, 4.0, 3.0)
Z_S = (6.0, 1.0, 2.0)


def distillation() -> Figure:
    """An example goes through a frozen teacher and a student; where they differ is the loss.

    The bars are real: logits of three classes, and softmax(β z) of them at β = 0.25. The background
    is white also where the page is dark, so that every line keeps its contrast.
    """
    figure, ax = plt.subplots(figsize=(10, 4.7), facecolor="white")
    ax.set(xlim=(0, 13.3), ylim=(-1.15, 5.75))
    ax.set_aspect("equal")
    ax.axis("off")
    for y, height, colour in ((3.15, 2.45, TEACHER), (0.75, 2.15, STUDENT)):
        _box(ax, 2.2, y, 6.75, height, colour, face=colour, alpha=0.07, width=0)

    digits = data.digits()
    ax.imshow(digits.x_train[0].reshape(digits.image_shape), cmap="gray_r",
              extent=(0.35, 1.55, 2.5, 3.7), aspect="auto", zorder=2)  # fmt: skip
    ax.add_patch(Rectangle((0.35, 2.5), 1.2, 1.2, fill=False, edgecolor=GREY, zorder=3))
    _text(ax, 0.95, 2.25, "an example x")

    _layers(ax, 2.55, 4.25, (1.0, 1.4, 1.4, 1.0), TEACHER, "teacher", "large, frozen")
    _layers(ax, 2.9, 1.65, (0.6, 0.8, 0.6), STUDENT, "student", "small, trained")
    _arrow(ax, (1.6, 3.3), (2.5, 4.25))
    _arrow(ax, (1.6, 2.9), (2.85, 1.65))

    for y, z, colour, names in (
        (4.25, Z_T, TEACHER, ("logits $z_t$", r"$p = \mathrm{softmax}(\beta z_t)$")),
        (1.65, Z_S, STUDENT, ("logits $z_s$", r"$q = \mathrm{softmax}(\beta z_s)$")),
    ):
        _bars(ax, 5.2, y - 0.4, [v / 6 for v in z], colour, names[0])
        _bars(ax, 7.4, y - 0.4, soften(torch.tensor(z), BETA).tolist(), colour, names[1])
        _arrow(ax, (4.5, y), (5.05, y))
        _arrow(ax, (6.45, y), (7.25, y))
        _text(ax, 6.85, y + 0.17, r"$\beta$", size=11)

    _box(ax, 9.6, 2.6, 1.75, 0.9, LOSS, r"$T^2\, D(p, q)$")
    _arrow(ax, (8.6, 4.15), (9.85, 3.57), TEACHER)
    _arrow(ax, (8.6, 1.85), (9.85, 2.53), STUDENT)
    _box(ax, 9.6, 0.05, 1.75, 0.9, LABELS, r"$\mathrm{CE}(z_s, \mathrm{label})$")
    _arrow(ax, (5.8, 0.87), (9.53, 0.42), STUDENT, bend=0.13)
    _text(ax, 7.3, 0.02, r"at $\beta = 1$")
    _box(ax, 9.85, -0.7, 1.25, 0.42, LABELS, "label", face=LABELS, alpha=0.12)
    _arrow(ax, (10.47, -0.26), (10.47, 0.0), LABELS)

    _box(ax, 12.0, 1.35, 1.1, 0.9, INK, "loss", bold=True)
    _arrow(ax, (11.4, 2.95), (12.3, 2.32), LOSS)
    _text(ax, 12.3, 2.85, r"$\times\,(1 - \alpha)$", LOSS)
    _arrow(ax, (11.4, 0.55), (12.3, 1.28), LABELS)
    _text(ax, 12.2, 0.75, r"$\times\,\alpha$", LABELS)

    ax.plot([12.55, 12.55, 3.6], [1.28, -0.98, -0.98], color=INK, linestyle="--", linewidth=1.3,
            solid_capstyle="round", zorder=0)  # fmt: skip
    _arrow(ax, (3.6, -0.98), (3.6, 0.7), INK, dashed=True)
    _text(ax, 6.2, -0.78, "the gradient goes to the student only", INK)
    return figure


def _text(ax: Axes, x: float, y: float, words: str, colour: str = INK, size: float = 9.5) -> None:
    ax.text(x, y, words, ha="center", va="center", fontsize=size, color=colour, zorder=5)


def _box(
    ax: Axes,
    x: float,
    y: float,
    width_: float,
    height: float,
    colour: str,
    words: str = "",
    *,
    face: str = "white",
    alpha: float = 1.0,
    width: float = 1.8,
    bold: bool = False,
) -> None:
    shape = "round,pad=0,rounding_size=0.12"
    ax.add_patch(FancyBboxPatch((x, y), width_, height, boxstyle=shape, facecolor=face,
                                alpha=alpha, edgecolor="none"))  # fmt: skip
    if width:
        ax.add_patch(FancyBboxPatch((x, y), width_, height, boxstyle=shape, fill=False,
                                    edgecolor=colour, linewidth=width))  # fmt: skip
    ax.text(x + width_ / 2, y + height / 2, words, ha="center", va="center", fontsize=10.5,
            color=INK, weight="bold" if bold else "normal", zorder=5)  # fmt: skip


def _arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = GREY,
    *,
    bend: float = 0.0,
    dashed: bool = False,
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=colour,
            linewidth=1.3,
            linestyle="--" if dashed else "-",
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=0,
            shrinkB=0,
            zorder=4,
        )
    )


def _layers(
    ax: Axes,
    x: float,
    y: float,
    heights: Sequence[float],
    colour: str,
    name: str,
    about: str,
) -> None:
    """A network as upright slabs, centred on y."""
    step = 0.48
    for i, height in enumerate(heights):
        _box(ax, x + step * i, y - height / 2, 0.3, height, colour, face=colour, alpha=0.35)
    middle = x + step * (len(heights) - 1) / 2 + 0.15
    top = y + max(heights) / 2
    ax.text(middle, top + 0.22, name, ha="center", fontsize=11, weight="bold", color=INK)
    _text(ax, middle, y - max(heights) / 2 - 0.22, about, GREY, 8.5)


def _bars(ax: Axes, x: float, y: float, heights: Sequence[float], colour: str, name: str) -> None:
    """Three bars on a base line: logits or probabilities of three classes."""
    for i, height in enumerate(heights):
        ax.add_patch(Rectangle((x + 0.4 * i, y), 0.3, height, facecolor=colour, edgecolor=INK,
                               linewidth=0.6, zorder=3))  # fmt: skip
    ax.plot([x - 0.08, x + 1.18], [y, y], color=INK, linewidth=1, zorder=3)
    _text(ax, x + 0.55, y - 0.24, name)
