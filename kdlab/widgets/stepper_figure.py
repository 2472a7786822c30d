"""The kernel stepper's picture without the controls: matplotlib, for a page where nothing moves."""

import math
from typing import Any

from kdlab.widgets import look
from kdlab.widgets.stepper_view import FADED, FIELDS, limits, say


def draw(state: dict[str, Any]) -> Any:
    """A matplotlib figure of `KernelStepper.state`: the row, and the state as a table."""
    import matplotlib.pyplot as plt

    fig, (row, words) = plt.subplots(
        2, 1, figsize=(7.5, 5.4), layout="constrained", height_ratios=[1.25, 1]
    )
    # Closed, so that a notebook shows the figure once: as the cell's value, not from pyplot too.
    plt.close(fig)
    low, high = limits(state)
    start, seen = state["current"]
    for logits, side, colour, who in (
        (state["teacher_logits"], -0.2, look.TEACHER, "teacher z_t"),
        (state["student_logits"], 0.2, look.STUDENT, "student z_s"),
    ):
        label: str | None = who
        for first, last, strength in ((0, seen, 1.0), (seen, state["classes"], FADED)):
            places = [i for i in range(first, last) if math.isfinite(logits[i])]
            if not places:  # no bars would still be an entry in the legend, in another colour
                continue
            row.bar(
                [i + side for i in places],
                [logits[i] for i in places],
                0.4,
                color=colour,
                alpha=strength,
                label=label,
            )
            label = None
        masked = [i + side for i, z in enumerate(logits) if z == -math.inf]
        row.plot(masked, [low + 0.04 * (high - low)] * len(masked), "x", color=look.LOSS)
    if seen:
        row.axvspan(start - 0.5, seen - 0.5, color=look.GRADIENT, alpha=0.2, label="the tile")
        for m, colour, style, name in (
            (state["running"]["m_t"], look.TEACHER, "-", "m_t"),
            (state["running"]["m_s"], look.STUDENT, "--", "m_s"),
        ):
            if math.isfinite(m):
                row.hlines(m, -0.5, seen - 0.5, color=colour, linestyle=style, label=name)
    row.set(
        xlim=(-0.5, state["classes"] - 0.5),
        ylim=(low, high),
        xlabel="class",
        ylabel="logit",
        title=f"{state['row']}, β = {state['beta']:g}: {state['position']}/{state['tiles']} tiles",
    )
    row.legend(ncols=5, fontsize=8, frameon=True)

    words.set_axis_off()
    cells = [
        [f"{name} = {what}", *(say(state[k][field]) for k in ("before", "of_tile", "running"))]
        for field, (name, what) in FIELDS.items()
    ]
    table = words.table(
        cells,
        colLabels=["", "before", "of the tile", "together"],
        colWidths=[0.46, 0.18, 0.18, 0.18],
        edges="horizontal",
        loc="upper center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    lines = [f"{state['bytes']:,} bytes read, against {state['bytes_multipass']:,} in passes"]
    if state["kl"] is not None:
        lines.append(f"KL(p‖q) = {state['kl']:.6g}, distillation_loss {state['library_kl']:.6g}")
    words.text(0, 0, "\n".join(lines), transform=words.transAxes, va="bottom")
    return fig
