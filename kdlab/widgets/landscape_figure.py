"""The loss landscape's picture without the controls: matplotlib, for a page where nothing moves."""

from typing import Any

import torch

from kdlab.widgets import look
from kdlab.widgets.beta_numbers import loss_name
from kdlab.widgets.landscape_view import LINES_PER_DECADE, log_losses


def draw(state: dict[str, Any]) -> Any:
    """A matplotlib figure of `LossLandscape.state`."""
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.patheffects import withStroke

    fig, ax = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    # Closed, so that a notebook shows the figure once: as the cell's value, not from pyplot too.
    plt.close(fig)
    heights = log_losses(torch.tensor(state["losses"]))
    drawn = ax.pcolormesh(state["a"], state["b"], heights, cmap="viridis", shading="nearest")
    levels = np.arange(
        np.ceil(heights.min() * LINES_PER_DECADE), np.floor(heights.max() * LINES_PER_DECADE) + 1
    )
    if len(levels):
        ax.contour(
            state["a"],
            state["b"],
            heights,
            levels / LINES_PER_DECADE,
            colors="white",
            linewidths=0.8,
            linestyles="solid",
            alpha=0.55,
        )
    fig.colorbar(drawn, label="log₁₀ of the loss")
    for name, (a, b) in state["corners"].items():
        ax.plot(a, b, "s", color="white", markeredgecolor="black", markersize=6)
        words = ax.annotate(name, (a, b), (6, 5), textcoords="offset points", color="white")
        words.set_path_effects([withStroke(linewidth=3, foreground="#000000C0")])
    ax.plot(
        *state["minimum"],
        "P",
        color=look.POINT,
        markeredgecolor="black",
        markersize=11,
        linestyle="none",
        label=f"lowest point, {state['minimum_loss']:.3g}",
    )
    if state["path"]:
        ax.plot(*zip(*state["path"], strict=True), color="black", linewidth=2)
        ax.plot(
            *state["path"][-1],
            "o",
            color=look.STUDENT,
            markeredgecolor="black",
            markersize=10,
            linestyle="none",
            label=f"student after {state['steps']} steps, {state['loss']:.3g}",
        )
    ax.set(
        xlabel="a, distance in weight space",
        ylabel="b",
        title=f"Mean {loss_name(state['divergence'], state['temperature_scaling'])}, "
        f"β = {state['beta']:.3g}, T = {state['temperature']:.3g}",
    )
    ax.grid(False)
    ax.legend(loc="lower right", frameon=True)
    return fig
