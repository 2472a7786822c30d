"""The β explorer's picture without the controls: matplotlib, for a page where nothing moves."""

from typing import Any

from torch import Tensor

from kdlab.widgets import look
from kdlab.widgets.beta_numbers import loss_name


def draw(state: dict[str, Any], shown: list[int], picture: Tensor | None) -> Any:
    """A matplotlib figure of `BetaExplorer.state`, with bars for the classes in `shown`."""
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(8, 4.2), layout="constrained")
    # Closed, so that a notebook shows the figure once: as the cell's value, not from pyplot too.
    plt.close(fig)
    grid = fig.add_gridspec(2, 2, width_ratios=[1, 2.6])
    names = [state["class_names"][c] for c in shown]
    p, q, gradient = (
        [state[name][c] for c in shown]
        for name in ("teacher_probabilities", "student_probabilities", "gradient")
    )
    places = range(len(shown))

    bars = fig.add_subplot(grid[0, 1])
    for values, side, colour, words in (
        (p, -0.2, look.TEACHER, "teacher p"),
        (q, 0.2, look.STUDENT, "student q"),
    ):
        bars.bar([x + side for x in places], values, 0.4, color=colour, label=words)
    bars.set(ylim=(0, 1), ylabel="softened output", title="Softened outputs")
    bars.legend(frameon=False)

    slopes = fig.add_subplot(grid[1, 1], sharex=bars)
    slopes.bar(places, gradient, 0.5, color=look.GRADIENT)
    slopes.axhline(0, color="black", linewidth=0.8)
    bound = look.round_up(max(map(abs, gradient)))
    slopes.set(
        title="Gradient of the loss", ylim=(-bound, bound), ylabel="∂loss/∂z_s", xlabel="class"
    )
    slopes.set_xticks(list(places), names)
    if max(map(len, names)) > 4:
        slopes.tick_params("x", rotation=30)
    bars.tick_params("x", labelbottom=False)

    if picture is not None:
        pane = fig.add_subplot(grid[0, 0])
        if picture.dim() == 2:
            pane.imshow(picture.numpy(), cmap="Greys")
            pane.set_axis_off()
        else:
            pane.plot(picture.numpy(), color=look.GREY)
            pane.set_xlabel("sample")

    text_pane = fig.add_subplot(grid[1, 0])
    text_pane.set_axis_off()
    label = "" if state["label"] is None else f", labelled {state['class_names'][state['label']]}"
    lines = [
        f"example {state['example']}{label}",
        f"β = {state['beta']:.3g}   T = {state['temperature']:.3g}",
        f"entropy: teacher {state['teacher_entropy']:.3f}",
        f"              student {state['student_entropy']:.3f}",
        f"effective classes: teacher {state['teacher_effective_classes']:.2f}",
        f"              student {state['student_effective_classes']:.2f}",
        f"{loss_name(state['divergence'], state['temperature_scaling'])} = {state['loss']:.4g}",
    ]
    text_pane.text(0, 1, "\n".join(lines), va="top", transform=text_pane.transAxes, linespacing=1.5)
    return fig
