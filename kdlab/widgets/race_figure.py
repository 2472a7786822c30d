"""The race's picture without the controls: matplotlib, for a page where nothing moves."""

from typing import Any

import numpy as np

from kdlab.widgets import look
from kdlab.widgets.curves import MATPLOTLIB, Style


def draw(
    state: dict[str, Any], styles: dict[float | None, Style], loss: str, loss_words: str
) -> Any:
    """A matplotlib figure of `DistillationRace.state`; `loss`: the quantity of the third panel."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    # Closed, so that a notebook shows the figure once: as the cell's value, not from pyplot too.
    plt.close(fig)
    lanes = state["lanes"]
    panels = {"accuracy": "Accuracy, test", "agreement": "Agreement with the teacher"}
    for ax, (quantity, title) in zip(axes, {**panels, loss: loss_words}.items(), strict=True):
        for name, lane in lanes.items():
            style, rows = styles[lane["beta"]], np.asarray(lane[quantity])
            ax.plot(
                lane["steps"],
                rows.mean(0),
                color=style.colour,
                linestyle=MATPLOTLIB[style.dash],
                label=name,
            )
            ax.fill_between(
                lane["steps"], rows.min(0), rows.max(0), color=style.colour, alpha=0.2, linewidth=0
            )
        for change in state["changes"]:
            ax.axvline(change["step"] - 1, color="#8A8A8A", linestyle=":", linewidth=1.2)
        ax.set(title=title, xlabel="step", xlim=(0, state["steps"]))
        if quantity in panels:
            ax.set(ylim=(0, 1.02), ylabel="share of examples")
        elif state["step"]:
            ax.set(yscale="log", ylabel="nats")
    axes[0].axhline(state["teacher_accuracy"], color=look.TEACHER, linewidth=1.2, label="teacher")
    seeds = f"mean and range of {state['seeds']} seeds" if state["seeds"] > 1 else "one seed"
    fig.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False
    )
    fig.suptitle(f"After {state['step']} of {state['steps']} steps, {seeds}", fontsize="medium")
    return fig
