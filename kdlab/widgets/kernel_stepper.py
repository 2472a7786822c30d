"""KernelStepper: a row's tiles go one by one through the online state that the kernel keeps."""

import math
from typing import Any

import ipywidgets
import traitlets
from torch import Tensor

from kdlab.functional import distillation_loss
from kdlab.widgets import look, row_walk
from kdlab.widgets.one_thread import OneThread
from kdlab.widgets.row_examples import example_rows
from kdlab.widgets.stepper_view import StepperView

LOWEST, HIGHEST, STEP = -3, 3, 0.25
TILES = (2, 4, 8, 16, 32)
# More bars than this cannot be told apart.
MOST_CLASSES = 128
YOURS = "your row"
# bf16. Of each class the kernel reads z_s and z_t once. The softmax that subtracts the maximum
# takes three reads and a write (maximum, sum, quotient), for student and teacher; the KL then reads
# p and q. Milakov and Gimelshein 2018 count that softmax's four accesses.
BYTES_EACH, ONLINE_ACCESSES, MULTIPASS_ACCESSES = 2, 2, 10


class KernelStepper(ipywidgets.VBox):
    """The sums of KL(p ‖ q) as the kernel makes them: tile after tile, each logit read once.

    Shows the row with the current tile marked; the running maxima m_s, m_t; the sums Z_s, Z_t, W
    and A before the tile, of the tile, and together (see `kdlab.widgets.row_walk`, which mirrors
    `kernels/row_state.py`); the factors c by which `combine` rescales; what two careless ways of
    summing have by then; the bytes moved, against a softmax in several passes; and at the end the
    KL, beside that of `kdlab.distillation_loss`.

    Args:
        student_logits, teacher_logits: one row each, (V,), 2 ≤ V ≤ 128; −inf masks a class, and
            at least one must be finite. Without them, four rows made up here, each with its point.
        beta: 1/8 to 8.
        tile: classes a tile, one of 2, 4, 8, 16, 32.

    `beta`, `tile`, `row` (its name) and `position` (tiles seen so far) can be read, set and
    observed; `step()`, `back()` and `reset()` move. `state` has all numbers; `figure()` draws the
    same with matplotlib.

    Raises:
        ValueError: names the argument, at the call or when an attribute is set.

    Source: Milakov, Gimelshein, "Online normalizer calculation for softmax", 2018.

    >>> stepper = KernelStepper(tile=16)
    >>> stepper.step(), stepper.step()
    (None, None)
    >>> stepper
    KernelStepper('a row of 32 classes', 2 of 2 tiles of 16, beta=1)
    >>> abs(stepper.state["kl"] - stepper.state["library_kl"]) < 1e-12
    True
    """

    beta = traitlets.Float(1.0)
    tile = traitlets.Int(8)
    row = traitlets.Unicode()
    position = traitlets.Int(0)

    def __init__(
        self,
        student_logits: Tensor | None = None,
        teacher_logits: Tensor | None = None,
        *,
        beta: float = 1.0,
        tile: int = 8,
    ) -> None:
        self._rows = example_rows()
        if student_logits is not None or teacher_logits is not None:
            yours = _check_row(student_logits, teacher_logits)
            self._rows = {YOURS: yours, **self._rows}
        super().__init__()
        self.beta, self.tile, self.row = beta, tile, next(iter(self._rows))
        self._view = StepperView()
        controls = self._make_controls()
        self._redraw_row()
        self.observe(self._restart, ["tile", "row"])
        self.observe(self._redraw, ["beta", "position"])
        self.add_class("kdlab-kernel-stepper")
        words = "Bars: the row's student and teacher logits, with the current tile and the maxima"
        look.dress(self, [*controls, self._view.widget], {"kdlab-row": words})

    @traitlets.validate("beta")
    def _valid_beta(self, proposal: Any) -> float:
        return look.between("beta", proposal.value, 2.0**LOWEST, 2.0**HIGHEST)

    @traitlets.validate("tile")
    def _valid_tile(self, proposal: Any) -> int:
        return look.choice("tile", proposal.value, TILES)

    @traitlets.validate("row")
    def _valid_row(self, proposal: Any) -> str:
        return look.choice("row", proposal.value, tuple(self._rows))

    @traitlets.validate("position")
    def _valid_position(self, proposal: Any) -> int:
        return look.between("position", proposal.value, 0, self.tiles)

    @property
    def tiles(self) -> int:
        """How many tiles the row has; the last may be shorter."""
        return math.ceil(len(self._rows[self.row][0]) / self.tile)

    def step(self) -> None:
        """Take in the next tile; at the end of the row, nothing happens."""
        self.position = min(self.position + 1, self.tiles)

    def back(self) -> None:
        """Undo the last tile; at the start, nothing happens."""
        self.position = max(self.position - 1, 0)

    def reset(self) -> None:
        """Back to the empty state."""
        self.position = 0

    @property
    def state(self) -> dict[str, Any]:
        """All numbers that the widget shows now; `kl` is None until the row's end."""
        student, teacher = self._rows[self.row]
        classes, beta = len(student), self.beta
        running, before = row_walk.EMPTY, row_walk.EMPTY
        of_tile = row_walk.EMPTY
        for i in range(self.position):
            part = slice(i * self.tile, (i + 1) * self.tile)
            of_tile = row_walk.tile(student[part], teacher[part], beta)
            before, running = running, row_walk.combine(running, of_tile, beta)
        seen = min(self.position * self.tile, classes)
        start = max(self.position - 1, 0) * self.tile
        at_end = self.position == self.tiles
        library = distillation_loss(student, teacher, beta=beta, temperature_scaling=False)
        so_far = student[:seen], teacher[:seen]
        return {
            "row": self.row,
            "beta": beta,
            "tile": self.tile,
            "position": self.position,
            "tiles": self.tiles,
            "classes": classes,
            "seen": seen,
            "current": (start, seen),
            "student_logits": student.tolist(),
            "teacher_logits": teacher.tolist(),
            "before": before._asdict(),
            "before_factors": row_walk.factors(before, running.m_s, running.m_t, beta)._asdict(),
            "of_tile": of_tile._asdict(),
            "tile_factors": row_walk.factors(of_tile, running.m_s, running.m_t, beta)._asdict(),
            "running": running._asdict(),
            "without_maximum": row_walk.without_maximum(*so_far, beta),
            "without_guard": row_walk.without_guard(*so_far, beta, self.tile),
            "bytes": seen * BYTES_EACH * ONLINE_ACCESSES,
            "bytes_multipass": seen * BYTES_EACH * MULTIPASS_ACCESSES,
            "bytes_row": classes * BYTES_EACH * ONLINE_ACCESSES,
            "bytes_row_multipass": classes * BYTES_EACH * MULTIPASS_ACCESSES,
            "kl": row_walk.finish(running) if at_end else None,
            "library_kl": library.item(),
        }

    def figure(self) -> Any:
        """The same numbers as a matplotlib figure, for a page where nothing moves."""
        from kdlab.widgets.stepper_figure import draw

        return draw(self.state)

    def __repr__(self) -> str:
        return (
            f"KernelStepper({self.row!r}, {self.position} of {self.tiles} tiles of {self.tile}, "
            f"beta={self.beta:g})"
        )

    def _make_controls(self) -> list:
        self._row = look.dropdown("Row", list(self._rows), self.row, "290px")
        self._tile = look.dropdown("Classes a tile", list(TILES), self.tile, "170px")
        self._beta = look.beta_slider(self.beta, LOWEST, HIGHEST, STEP)
        self._position = look.slider(
            ipywidgets.IntSlider, "Tiles so far", self.position, 0, self.tiles, 1, "260px"
        )
        self._buttons = [
            ipywidgets.Button(description=words, tooltip=tip, layout=look.control_layout("90px"))
            for words, tip in (
                ("Back", "Undo the last tile"),
                ("Step", "Take in the next tile"),
                ("Reset", "Back to the empty state"),
            )
        ]
        thread = OneThread()
        actions = (self.back, self.step, self.reset)
        for button, action in zip(self._buttons, actions, strict=True):
            thread.on_click(button, action)
        thread.link(self, "row", self._row)
        thread.link(self, "tile", self._tile)
        thread.link(self, "beta", self._beta)
        thread.link(self, "position", self._position)
        rows = (
            [self._row, self._tile],
            [self._beta],
            [self._position, *self._buttons],
        )
        return [ipywidgets.HBox(row, layout=ipywidgets.Layout(**look.WRAP)) for row in rows]

    def _restart(self, _change: Any) -> None:
        self.position = 0
        self._position.max = self.tiles
        self._redraw_row()

    def _redraw_row(self) -> None:
        self._view.show_row(self.state)
        self._enable_buttons()

    def _redraw(self, _change: Any) -> None:
        self._view.redraw(self.state)
        self._enable_buttons()

    def _enable_buttons(self) -> None:
        back, step, reset = self._buttons
        back.disabled = reset.disabled = self.position == 0
        step.disabled = self.position == self.tiles


def _check_row(student: Any, teacher: Any) -> tuple[Tensor, Tensor]:
    """Both rows in float64 on the CPU, or a ValueError that names the argument."""
    rows = []
    for name, row in (("student_logits", student), ("teacher_logits", teacher)):
        if not isinstance(row, Tensor) or not row.is_floating_point():
            kind = row.dtype if isinstance(row, Tensor) else type(row).__name__
            raise ValueError(f"{name}: got {kind}; expected a floating-point tensor (V,)")
        if row.dim() != 1 or not 2 <= len(row) <= MOST_CLASSES:
            raise ValueError(
                f"{name}: got shape {tuple(row.shape)}; expected one row (V,), "
                f"V from 2 to {MOST_CLASSES}"
            )
        row = row.detach().cpu().double()
        if (row.isnan() | (row == math.inf)).any() or not row.isfinite().any():
            raise ValueError(
                f"{name}: got NaN, +inf, or nothing but −inf; expected finite numbers or −inf, "
                "and one that is finite"
            )
        rows.append(row)
    if len(rows[0]) != len(rows[1]):
        raise ValueError(
            f"teacher_logits: got {len(rows[1])} classes; expected {len(rows[0])}, "
            "as student_logits has"
        )
    return rows[0], rows[1]
