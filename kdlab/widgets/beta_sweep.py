"""BetaSweep: accuracy against β over seeds, a recommended β, and how sure it is."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import ipywidgets
import numpy as np
from torch import nn

from kdlab.data import Dataset
from kdlab.progress import progress as progress_bar
from kdlab.widgets import look
from kdlab.widgets.classroom import check_classroom, check_student
from kdlab.widgets.recommendation import Recommendation, recommend
from kdlab.widgets.slices import Slices, threads_for
from kdlab.widgets.sweep_view import HELP, SweepView, verdict
from kdlab.widgets.training_settings import (
    TrainingSettings,
    check_number,
    check_whole,
    words_of,
)
from kdlab.widgets.trials import Results, Trials

REDRAW_SECONDS = 0.15


class BetaSweep(TrainingSettings):
    """Accuracy against β over seeds, and a β to take, with how sure that is.

    For each seed and each β a student is distilled on part of the training set and asked about the
    rest, held out; so is one that learns from labels only. Seed s gives the same initial weights
    and batches to every β, so that β are compared seed by seed. When all are there, the β with the
    highest mean is recommended. How sure, in two ways (`kdlab.widgets.recommendation.recommend`):
    the share of resamples of seeds and held-out examples in which it is best, and the other β that
    a paired t-test cannot tell from it with these seeds and examples. Then, and only then, the test
    set is reported, for the students at that β and those on labels only. (Who tries many settings
    and picks by the test set has chosen on it.)

    Nothing trains until `run()`, which returns when it is done, or `start()` or its button, which
    train in slices of the kernel's asyncio event loop, 20 ms at a time, not in a thread, so that
    other cells run in between. Each student's answers are kept, on the object and in `folder`,
    under everything it depends on (data, the teacher's outputs, the student's initial weights, all
    settings, versions): running again trains only what is missing. `cancel()` keeps what is done.
    Settings are fixed while the sweep runs; after a change, what is known for them is shown.

    Args:
        teacher: a trained module, (N, features) to logits (N, classes). It should not have seen the
            data's training set, or what is held out of it is not new to it. With neither teacher
            nor data: the course's, 200 digits and an MLP that was trained on all the others.
        data: a `kdlab.data.Dataset`.
        student: a function from a size to a new, untrained module; by default an MLP with one
            hidden layer of that many units.
        betas: 2 to 12 different inverse temperatures β = 1/T, from 0.001 to 1000.
        label_weight: α in [0, 1].
        divergence: one that `distillation_loss` has.
        lr: Adam's learning rate at the first step, 1e-5 to 1; falls to 0 along a cosine.
        width: student size, 1 to 4096.
        seeds: 3 to 20; fewer say nothing about the spread.
        steps, batch_size: how long each student trains, and on how many examples a step.
        held_out: share of the training set to choose on, 0.05 to 0.9.
        folder: where to keep results from one session to the next; made if it is not there.

    `betas`, `label_weight`, `divergence`, `lr`, `width` and `seeds` can be read, set and observed.
    `status` is "ready", "running", "cancelled", "finished" or "failed"; an exception in training
    stops the sweep, is shown and kept in `error`, and what was done before stays. `recommendation`
    is there when all held-out accuracies are, else None. `state` has all numbers in a dict;
    `figure()` draws them with matplotlib. `close()` ends the training; a sweep that is no longer
    shown, since its cell ran again or was deleted, is cancelled.

    Raises:
        ValueError: names the argument, at the call or when an attribute is set.
        RuntimeError: `start()` where no event loop runs (use `run()`).

    >>> sweep = BetaSweep(betas=[0.05, 1.0], seeds=3, steps=20)
    >>> sweep.run()
    >>> sweep
    BetaSweep(2 betas, 3 seeds, status='finished')
    >>> sweep.recommendation.beta
    1.0
    >>> sorted(sweep.state["held_out"])
    [0.05, 1.0]
    """

    FEWEST_BETAS: ClassVar[int] = 2
    MOST_BETAS: ClassVar[int] = 12
    FEWEST_SEEDS: ClassVar[int] = 3

    def __init__(
        self,
        teacher: nn.Module | None = None,
        data: Dataset | None = None,
        student: Callable[[int], nn.Module] | None = None,
        *,
        betas: Sequence[float] = (0.03125, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0),
        label_weight: float = 0.0,
        divergence: str = "kl",
        lr: float = 0.01,
        width: int = 32,
        seeds: int = 5,
        steps: int = 300,
        batch_size: int = 25,
        held_out: float = 0.5,
        folder: str | os.PathLike | None = None,
    ) -> None:
        # First: a widget that is refused below is closed too.
        self._slices = Slices(self._drawn_now_and_then, self._ended)
        self.error: Exception | None = None
        self._cancelled = False
        self._drawn_at, self._fraction = -math.inf, 0.0
        count = check_whole("steps", steps, 1, 1_000_000)
        size = check_whole("batch_size", batch_size, 1, 1_000_000)
        share = check_number("held_out", held_out, 0.05, 0.9)
        super().__init__()
        self._set_up(
            betas=betas, label_weight=label_weight, divergence=divergence, lr=lr, width=width,
            seeds=seeds,
        )  # fmt: skip
        room = check_classroom(teacher, data, student, examples=200)
        check_student(room, self.width)
        examples = len(room.data.x_train)
        if examples < 2:
            raise ValueError(f"data: got {examples} training examples; expected at least 2")
        aside = min(max(1, round(share * examples)), examples - 1)
        self._trials = Trials(room, Results(folder), held_out=aside, count=count, batch_size=size)
        self._count = count
        self._make_buttons()
        self._view = SweepView()
        self._look_up()
        self._draw()
        self.observe(lambda _: self._follow_settings(), list(self.SETTINGS))
        self._when_out_of_sight(self.cancel)
        self.add_class("kdlab-beta-sweep")
        look.dress(self, self._arrange(), self._view.NAMES)

    # What the sweep does.

    @property
    def status(self) -> str:
        if self._slices.running:
            return "running"
        if self.error is not None:
            return "failed"
        if self._tested is not None:
            return "finished"
        return "cancelled" if self._cancelled else "ready"

    def start(self) -> None:
        """Train what is missing, in slices of the event loop; returns at once."""
        if self.status not in ("running", "finished"):
            model = self._begin()
            self._slices.start(self._work(), model)
            self._draw()

    def cancel(self) -> None:
        """Stop; students that were done are kept, the one in training is not."""
        if self._slices.running:
            self._slices.stop()
            self._cancelled = True
            self._look_up()
            self._draw()

    def run(self, *, progress: bool = False) -> None:
        """Train what is missing, and return when it is done; progress=True: with a tqdm bar.

        Ctrl-C cancels, and keeps what is done. An exception in training is raised.
        """
        self._slices.stop()
        model = self._begin()
        try:
            with (
                progress_bar(None, "student", self._total(), disable=not progress) as bar,
                threads_for(model),
            ):
                for _ in self._work():
                    bar.update(self._done() - bar.n)
                    self._drawn_now_and_then()
                bar.update(self._done() - bar.n)
        except KeyboardInterrupt:
            self._cancelled = True
        except Exception as error:
            self._ended(error)
            raise
        self._look_up()
        self._draw()

    def close(self) -> None:
        """End the training, and close the widget."""
        self._slices.stop()
        super().close()

    def _begin(self) -> nn.Module:
        self.error, self._cancelled = None, False
        return self._trials.room.student(self.width, 0)[0]

    def _work(self) -> Iterator[None]:
        # Seed by seed: whenever it is cancelled, most seeds are complete.
        settings = self._step_settings
        for seed in range(self.seeds):
            for beta in (None, *self.betas):
                if self._trials.right("held_out", beta, seed, self.width, settings) is None:
                    for step in self._trials.train(beta, seed, self.width, settings):
                        self._fraction = step / self._count
                        if step < self._count:
                            yield
                    self._fraction = 0.0
                    self._look_up()
                    yield

    def _ended(self, error: Exception | None) -> None:
        self.error = error
        self._look_up()
        self._draw()

    def _look_up(self) -> None:
        """Read what is known for the settings as they stand."""

        def known(part: str, beta: float | None) -> list[np.ndarray | None]:
            settings = self._step_settings
            return [
                self._trials.right(part, beta, seed, self.width, settings)
                for seed in range(self.seeds)
            ]

        held_out = {beta: known("held_out", beta) for beta in (None, *self.betas)}
        self._held_out = {
            beta: [None if row is None else float(row.mean()) for row in rows]
            for beta, rows in held_out.items()
        }
        self.recommendation: Recommendation | None = None
        self._tested: dict[str, list[float]] | None = None
        if any(row is None for rows in held_out.values() for row in rows):
            return
        answers = {beta: np.array(rows) for beta, rows in held_out.items()}
        labels_only = answers.pop(None)
        self.recommendation = recommend({b: a for b, a in answers.items() if b}, labels_only)
        # The test set is looked at once, when β is chosen, and for that β alone.
        self._tested = {
            name: [float(row.mean()) for row in known("test", beta) if row is not None]
            for name, beta in (("distilled", self.recommendation.beta), ("labels_only", None))
        }

    def _follow_settings(self) -> None:
        self.error, self._cancelled = None, False
        self._look_up()
        self._draw()

    def _allowed(self, name: str, value: Any) -> Any:
        if self._slices.running and value != getattr(self, name):
            raise ValueError(
                f"{name}: got {value!r} while the sweep runs; expected cancel() before a change"
            )
        return value

    def _total(self) -> int:
        return self.seeds * (len(self.betas) + 1)

    def _done(self) -> int:
        return sum(v is not None for row in self._held_out.values() for v in row)

    # What can be read.

    @property
    def state(self) -> dict[str, Any]:
        """Settings, progress and results as plain Python values.

        "held_out" has a list for each β and "labels_only" one, an accuracy a seed, None where it is
        missing; "test" has the test accuracies of the recommended β ("distilled") and of
        "labels_only", and is None before there is a recommendation.
        """
        best = self.recommendation
        return {
            **self.settings,
            "status": self.status,
            "done": self._done(),
            "total": self._total(),
            "held_out": {beta: list(self._held_out[beta]) for beta in self.betas},
            "labels_only": list(self._held_out[None]),
            "recommendation": best
            and {
                "beta": best.beta,
                "share": best.share,
                "shares": dict(best.shares),
                "ties": list(best.ties),
                "seeds": best.seeds,
                "gain": best.gain,
                "gain_is_sure": best.gain_is_sure,
            },
            "test": self._tested and {name: list(row) for name, row in self._tested.items()},
            "error": self.error and words_of(self.error),
        }

    def figure(self) -> Any:
        """The same as a matplotlib figure, for a page where nothing moves."""
        from kdlab.widgets.sweep_figure import draw

        return draw(self.state, *self._complete(), verdict(self.recommendation))

    def __repr__(self) -> str:
        return f"BetaSweep({len(self.betas)} betas, {self.seeds} seeds, status={self.status!r})"

    def _complete(self) -> tuple[list[list[float]], list[list[float]]]:
        """The rows to draw, (seeds, β) and (seeds, 1) of labels only: the seeds that are complete;
        before the first one is, what there is of it."""

        def row(beta: float | None, seed: int) -> float:
            value = self._held_out[beta][seed]
            return math.nan if value is None else value

        rows = [[row(beta, seed) for beta in self.betas] for seed in range(self.seeds)]
        full = [s for s in range(self.seeds) if np.isfinite([*rows[s], row(None, s)]).all()] or [0]
        return [rows[s] for s in full], [[row(None, s)] for s in full]

    # What is seen.

    def _make_buttons(self) -> None:
        # One button starts and cancels, so that the keyboard's focus stays on it.
        self._run = ipywidgets.Button(
            description="Run",
            tooltip="Train the students that are missing",
            button_style="primary",
            layout=look.control_layout("90px"),
        )
        self._thread.on_click(
            self._run, lambda: self.cancel() if self._slices.running else self.start()
        )
        self._progress = ipywidgets.FloatProgress(
            min=0,
            max=1,
            description="Progress",
            style={"description_width": "initial"},
            layout=look.control_layout("260px"),
        )
        self._status, self._note = ipywidgets.HTML(), ipywidgets.HTML()

    def _drawn_now_and_then(self) -> None:
        if time.perf_counter() - self._drawn_at > REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        status, done, total = self.status, self._done(), self._total()
        self._view.show(self.betas, *self._complete(), self.seeds, self.recommendation)
        running = status == "running"
        for name in self.SETTINGS:
            getattr(self, f"_{name}").disabled = running
        self._run.description = "Cancel" if running else "Run"
        self._run.disabled = status == "finished"
        self._progress.value = (done + self._fraction * running) / total
        self._status.value = f'<span role="status">{self._view.status(status, done, total)}</span>'
        self._note.value = self._view.notes(
            self.divergence, self.recommendation, self._tested, self.error
        )
        self._drawn_at = time.perf_counter()

    def _arrange(self) -> list:
        wrap = ipywidgets.Layout(**look.WRAP)
        return [
            ipywidgets.HBox([self._run, self._progress], layout=wrap),
            self._status,
            ipywidgets.HBox([self._betas, self._betas_error], layout=wrap),
            ipywidgets.HBox([self._label_weight, self._lr, self._divergence], layout=wrap),
            ipywidgets.HBox([self._width, self._seeds], layout=wrap),
            self._note,
            ipywidgets.HTML("<b>Held-out accuracy against β</b>, mean and range over seeds"),
            self._view.chart,
            self._view.numbers,
            ipywidgets.HTML(f"<small>{HELP}</small>"),
        ]
