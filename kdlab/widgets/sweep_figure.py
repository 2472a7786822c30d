"""The sweep's picture without the controls: matplotlib, for a page where nothing moves."""

import textwrap
from typing import Any

import numpy as np

from kdlab.widgets import look
from kdlab.widgets.curves import LABELS_ONLY, MATPLOTLIB


def draw(
    state: dict[str, Any], rows: list[list[float]], labels: list[list[float]], verdict: str
) -> Any:
    """A matplotlib figure of `BetaSweep.state`: rows (seeds, β) and (seeds, 1), NaN if missing."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    # Closed, so that a notebook shows the figure once: as the cell's value, not from pyplot too.
    plt.close(fig)
    betas, values, alone = list(state["betas"]), np.asarray(rows), np.asarray(labels)
    colour, dash = LABELS_ONLY
    ax.axhline(
        alone.mean(), color=colour, linestyle=MATPLOTLIB[dash], label="labels only", linewidth=1.5
    )
    ax.axhspan(alone.min(), alone.max(), color=colour, alpha=0.15, linewidth=0)
    ax.plot(betas, values.mean(0), color=look.STUDENT, marker="o", label="distilled at β")
    ax.fill_between(betas, values.min(0), values.max(0), color=look.STUDENT, alpha=0.2, linewidth=0)
    best = state["recommendation"]
    if best:
        ax.plot(
            [best["beta"]],
            [values.mean(0)[betas.index(best["beta"])]],
            "o",
            markersize=15,
            markerfacecolor="none",
            markeredgecolor=look.TEACHER,
            markeredgewidth=2,
            label="recommended",
        )
    ax.set(xscale="log", xlabel="β = 1/T", ylabel="held-out accuracy")
    ax.set_xticks(betas, [f"{beta:g}" for beta in betas])
    ax.minorticks_off()
    ax.set_title("\n".join(textwrap.wrap(verdict, 90)), fontsize="small")
    ax.legend(frameon=False, loc="best")
    return fig
