"""DistillationRace: students train live, on labels and on a teacher at several β."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from torch import nn

from kdlab.data import Dataset
from kdlab.metrics import accuracy
from kdlab.widgets import look
from kdlab.widgets.classroom import check_classroom, check_student
from kdlab.widgets.lanes import QUANTITIES, Race, lane_name
from kdlab.widgets.race_view import HELP, RaceView
from kdlab.widgets.slices import Slices, threads_for
from kdlab.widgets.training_settings import TrainingSettings, check_whole, words_of

# Redrawing more often than this costs the browser more than the eye gains.
REDRAW_SECONDS = 0.15


class DistillationRace(TrainingSettings):
    """Students train live: one lane on labels only, one distilled lane for each β.

    In every lane student number s starts from the same weights and sees the same batches, both
    from seed s, and takes the same number of steps. Shown after every few steps: accuracy on the
    test set, agreement with the teacher, and loss, as the mean over seeds with a band from worst to
    best. A distilled lane minimises (1 − α) T² D(p, q) + α CE (`kdlab.distillation_loss`), the
    other one CE, both by `kdlab.training.steps`, the loop of `kdlab.train` and `kdlab.distill`;
    the training losses of different lanes are different quantities, so the chart can show the
    cross-entropy on the test set instead.

    Nothing trains until `start()`, `step()`, `run()` or their buttons. `start()` trains in slices
    of the kernel's asyncio event loop, 20 ms at a time, not in a thread: other cells run between
    two slices, and while one computes the race waits. Students draw their random numbers from
    streams of their own, so that cells and race do not disturb each other.

    What a change does to a race under way:

    - `lr`, `label_weight` (α), `divergence`: apply from the next step, to all lanes they concern;
      a dotted line marks the step, and `state["changes"]` lists it. The learning rate falls along
      a cosine to 0; a change scales the rest of it.
    - `betas`: a β that is removed leaves at once. One that is added starts at step 0, under the
      settings that held at each step, and catches up while the others wait, so that its curve is
      the one it would have had from the start.
    - `width` (student size), `seeds`: apply at `reset()`, and say so until then. At step 0 they
      apply at once.

    An exception in training stops the race (status "failed"); it is shown in the widget and kept in
    `error`, the curves stay, and `reset()` starts afresh. `step()` and `run()` also raise it.
    `close()` ends the training; a race that is no longer shown, since its cell ran again or was
    deleted, pauses.

    Args:
        teacher: a trained module, (N, features) to logits (N, classes). With neither teacher nor
            data: the course's, a hundred digits and an MLP that was trained on all the others.
        data: a `kdlab.data.Dataset`; curves are measured on its test set.
        student: a function from a size to a new, untrained module; by default an MLP with one
            hidden layer of that many units.
        betas: 1 to 5 different inverse temperatures β = 1/T, from 0.001 to 1000.
        label_weight: α in [0, 1].
        divergence: one that `distillation_loss` has.
        lr: Adam's learning rate at the first step, 1e-5 to 1.
        width: student size, 1 to 4096.
        seeds: students a lane, 1 to 20.
        steps, batch_size: the length of the race, and the examples a step.

    `betas`, `label_weight`, `divergence`, `lr`, `width` and `seeds` can be read, set and observed;
    `status` is "ready", "running", "paused", "finished" or "failed". `state` has all settings and
    curves in a dict; `figure()` draws them with matplotlib.

    Raises:
        ValueError: names the argument, at the call or when an attribute is set.
        RuntimeError: `start()` where no event loop runs (use `run()`), or after a failure.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2;
    agreement: Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021.

    >>> race = DistillationRace(betas=[0.25], width=16, seeds=2, steps=20)
    >>> race.step(5)
    >>> race
    DistillationRace(betas=(0.25,), step=5 of 20, status='paused')
    >>> race.run()
    >>> race.state["lanes"]["β = 0.25"]["accuracy"][0][0] < 0.5  # seed 0 before training
    True
    >>> race.close()
    """

    def __init__(
        self,
        teacher: nn.Module | None = None,
        data: Dataset | None = None,
        student: Callable[[int], nn.Module] | None = None,
        *,
        betas: Sequence[float] = (0.25, 1.0),
        label_weight: float = 0.0,
        divergence: str = "kl",
        lr: float = 0.01,
        width: int = 32,
        seeds: int = 3,
        steps: int = 300,
        batch_size: int = 25,
    ) -> None:
        # First: a widget that is refused below is closed too.
        self._slices = Slices(self._drawn_now_and_then, self._ended)
        self.error: Exception | None = None
        self._steps = check_whole("steps", steps, 1, 1_000_000)
        self._batch_size = check_whole("batch_size", batch_size, 1, 1_000_000)
        self._drawn_at = -math.inf
        super().__init__()
        self._set_up(
            betas=betas, label_weight=label_weight, divergence=divergence, lr=lr, width=width,
            seeds=seeds,
        )  # fmt: skip
        self._room = check_classroom(teacher, data, student, examples=100)
        check_student(self._room, self.width)
        self._teacher_accuracy = accuracy(self._room.test_targets, self._room.data.y_test)
        self._make_buttons()
        self._view = RaceView(self._steps, self._teacher_accuracy)
        self._thread.observe(self._view.loss_shown, lambda _: self._draw())
        self._new_race()
        self.observe(self._follow_step_setting, ["lr", "label_weight", "divergence"])
        self.observe(self._follow_betas, "betas")
        self.observe(self._follow_student, ["width", "seeds"])
        self._when_out_of_sight(self.pause)
        self.add_class("kdlab-distillation-race")
        look.dress(self, self._arrange(), self._view.NAMES, width="1100px")

    # What the race does.

    @property
    def status(self) -> str:
        if self.error is not None:
            return "failed"
        if self._slices.running:
            return "running"
        if self._race.step == self._steps:
            return "finished"
        return "paused" if self._race.front else "ready"

    def start(self) -> None:
        """Train on, in slices of the event loop; returns at once. Nothing to do when finished."""
        self._check_not_failed()
        if self.status not in ("running", "finished"):
            self._slices.start(self._race.advance(self._steps), self._race.runners[0].model)
            self._draw()

    def pause(self) -> None:
        """Stop after the step that is being taken; start() goes on from there."""
        if self._slices.running:
            self._slices.stop()
            self._draw()

    def step(self, steps: int = 1) -> None:
        """Pause, and take this many steps in every lane at once: returns when they are taken."""
        self._check_not_failed()
        target = self._race.step + check_whole("steps", steps, 1, self._steps)
        self._slices.stop()
        try:
            with threads_for(self._race.runners[0].model):
                for _ in self._race.advance(target):
                    self._drawn_now_and_then()
                self._race.evaluate()
        except Exception as error:
            self._ended(error)
            raise
        finally:
            self._draw()

    def run(self) -> None:
        """Train to the end: returns when it is reached. For scripts, where no event loop runs."""
        self.step(self._steps)

    def reset(self) -> None:
        """New students at step 0, with the settings as they stand. Same settings, same curves."""
        self._slices.stop()
        self.error = None
        self._new_race()

    def close(self) -> None:
        """End the training, and close the widget."""
        self._slices.stop()
        super().close()

    def _check_not_failed(self) -> None:
        if self.error is not None:
            raise RuntimeError(f"the race has failed ({self.error}); reset() starts a new one")

    def _ended(self, error: Exception | None) -> None:
        self.error = error
        self._draw()

    def _new_race(self) -> None:
        self._race = Race(
            self._room,
            self.betas,
            self._step_settings,
            width=self.width,
            seeds=self.seeds,
            count=self._steps,
            batch_size=self._batch_size,
        )
        self._view.lanes(self._race)
        self._draw()

    def _follow_step_setting(self, change: Any) -> None:
        self._race.set(**{change.name: change.new})
        self._draw()

    def _follow_betas(self, change: Any) -> None:
        going_on = self._slices.running
        self._race.set_betas(change.new)
        self._view.lanes(self._race)
        self._draw()
        # A race that is over runs on only if it is told to.
        if going_on and not self._slices.running:
            self.start()

    def _follow_student(self, change: Any) -> None:
        if self._race.front == 0 and self.status == "ready":
            self._new_race()
        else:
            self._draw()

    # What can be read.

    @property
    def state(self) -> dict[str, Any]:
        """Settings, progress and curves as plain Python values.

        "width" and "seeds" are those that race now, "pending" what Reset will make of them. A
        lane's "steps" lists the steps where it was measured; "accuracy", "agreement", "loss" and
        "cross_entropy" have a row of values a seed.
        """
        racing = {"width": self._race.width, "seeds": self._race.seeds}
        return {
            **self.settings,
            **racing,
            "pending": {k: getattr(self, k) for k in racing if getattr(self, k) != racing[k]},
            "status": self.status,
            "step": self._race.step,
            "steps": self._steps,
            "changes": self._race.schedule.changes(),
            "teacher_accuracy": self._teacher_accuracy,
            "error": self.error and words_of(self.error),
            "lanes": {
                lane_name(beta): {
                    "beta": beta,
                    "steps": self._race.curve(beta, "accuracy")[0],
                    **{q: self._race.curve(beta, q)[1] for q in QUANTITIES},
                }
                for beta in self._race.lanes
            },
        }

    def figure(self) -> Any:
        """The same curves as a matplotlib figure, for a page where nothing moves."""
        from kdlab.widgets.race_figure import draw

        return draw(self.state, self._view.styles, self._view.loss, self._view.loss_words)

    def __repr__(self) -> str:
        return (
            f"DistillationRace(betas={self.betas}, step={self._race.step} of {self._steps}, "
            f"status={self.status!r})"
        )

    # What is seen.

    def _make_buttons(self) -> None:
        def button(words: str, tip: str, act: Callable[[], None], **more: Any) -> Any:
            made = ipywidgets.Button(
                description=words, tooltip=tip, layout=look.control_layout("90px"), **more
            )
            self._thread.on_click(made, act)
            return made

        # One button starts and pauses, so that the keyboard's focus stays on it.
        self._start = button(
            "Start", "Train all lanes", self._start_or_pause, button_style="primary"
        )
        self._step = button("Step", "One step of training in every lane", self._step_clicked)
        self._reset = button("Reset", "New students at step 0", self.reset)
        self._progress = ipywidgets.IntProgress(
            min=0,
            max=self._steps,
            description="Progress",
            style={"description_width": "initial"},
            layout=look.control_layout("240px"),
        )
        self._status, self._note = ipywidgets.HTML(), ipywidgets.HTML()

    def _start_or_pause(self) -> None:
        if self.status == "running":
            self.pause()
        else:
            self.start()

    def _step_clicked(self) -> None:
        try:
            self.step()
        except Exception:
            # The widget shows it; there is no caller to tell.
            assert self.error is not None

    def _drawn_now_and_then(self) -> None:
        if time.perf_counter() - self._drawn_at > REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        race, status = self._race, self.status
        self._view.show(race)
        self._progress.value = race.step
        self._start.description = "Pause" if status == "running" else "Start"
        self._start.disabled = self._step.disabled = status in ("finished", "failed")
        self._status.value = f'<span role="status">{self._view.status(race, status)}</span>'
        self._note.value = self._view.notes(race, self.settings, self.error)
        self._drawn_at = time.perf_counter()

    def _arrange(self) -> list:
        wrap = ipywidgets.Layout(**look.WRAP)
        return [
            ipywidgets.HBox([self._start, self._step, self._reset, self._progress], layout=wrap),
            self._status,
            ipywidgets.HBox([self._betas, self._betas_error], layout=wrap),
            ipywidgets.HBox([self._label_weight, self._lr, self._divergence], layout=wrap),
            ipywidgets.HBox([self._width, self._seeds, self._view.loss_shown], layout=wrap),
            self._note,
            self._view.numbers,
            self._view.charts,
            ipywidgets.HTML(f"<small>{HELP}</small>"),
        ]
