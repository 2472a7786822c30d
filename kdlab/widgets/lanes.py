"""A race without its picture: students in lanes, step by step, and what became of each."""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch.nn import functional as F

from kdlab.metrics import accuracy, agreement
from kdlab.training import predict, steps
from kdlab.widgets.classroom import Classroom, Settings

QUANTITIES = ("accuracy", "agreement", "loss", "cross_entropy")


@dataclass(frozen=True)
class Point:
    """A student on the test set, and its training loss, averaged over the steps of an interval
    (NaN at step 0)."""

    accuracy: float
    agreement: float
    loss: float
    cross_entropy: float


def lane_name(beta: float | None) -> str:
    """A lane's name in `state` and on the charts.

    >>> lane_name(0.25), lane_name(None)
    ('β = 0.25', 'labels only')
    """
    return "labels only" if beta is None else f"β = {beta:g}"


class Schedule:
    """Which settings hold at which step: what changed during a race, and from when on.

    >>> schedule = Schedule(Settings(0.01, 0.0, "kl"))
    >>> schedule.change(101, Settings(0.02, 0.0, "kl"))
    >>> schedule.at(100).lr, schedule.at(101).lr
    (0.01, 0.02)
    """

    def __init__(self, first: Settings) -> None:
        self._starts, self._settings = [1], [first]

    def at(self, step: int) -> Settings:
        return self._settings[bisect_right(self._starts, step) - 1]

    def change(self, step: int, settings: Settings) -> None:
        """These settings from this step on; changes come in the order of their steps."""
        if step == self._starts[-1]:
            # Moved twice between two steps: only where it was left counts.
            self._settings[-1] = settings
        elif settings != self._settings[-1]:
            self._starts.append(step)
            self._settings.append(settings)
        if len(self._starts) > 1 and self._settings[-1] == self._settings[-2]:
            del self._starts[-1], self._settings[-1]

    def changes(self) -> list[dict]:
        """{"step", "name", "before", "after"} of each setting that changed; step is its first."""
        found = []
        pairs = zip(self._settings, self._settings[1:], self._starts[1:], strict=False)
        for before, after, step in pairs:
            for name in ("lr", "label_weight", "divergence"):
                was, now = getattr(before, name), getattr(after, name)
                if was != now:
                    found.append({"step": step, "name": name, "before": was, "after": now})
        return found


class Runner:
    """One student: a β (None: labels only) and a seed, trained by `kdlab.training.steps`."""

    def __init__(
        self,
        room: Classroom,
        schedule: Schedule,
        beta: float | None,
        seed: int,
        *,
        width: int,
        count: int,
        batch_size: int,
        every: int,
    ) -> None:
        self.step, self.points = 0, dict[int, Point]()
        self._room, self._count, self._every = room, count, every
        self.model, self._random = room.student(width, seed)
        self._losses: deque[float] = deque(maxlen=every)
        self._steps = steps(
            self.model,
            room.data,
            room.loss(beta, lambda: schedule.at(self.step + 1)),
            count=count,
            batch_size=batch_size,
            lr=lambda step: schedule.at(step).lr,
            seed=seed,
        )
        self.evaluate()

    def take_step(self) -> None:
        with self._random.drawn():
            loss = next(self._steps).loss.item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} at step {self.step + 1}; a lower learning rate helps"
            )
        self.step += 1
        self._losses.append(loss)
        if self.step % self._every == 0 or self.step == self._count:
            self.evaluate()

    def evaluate(self) -> None:
        """Add the point of this step, if it is not there."""
        if self.step in self.points:
            return
        logits = predict(self.model, self._room.data.x_test)
        labels = self._room.data.y_test
        self.points[self.step] = Point(
            accuracy(logits, labels),
            agreement(logits, self._room.test_targets),
            sum(self._losses) / len(self._losses) if self._losses else math.nan,
            F.cross_entropy(logits, labels).item(),
        )


class Race:
    """Lanes of students that take the same steps: a lane a β and one for labels only (None).

    In every lane student number s starts from seed s: the same weights, the same batches. The
    furthest behind goes next, so all are within one step of each other, and a lane that is added
    late catches up first. It goes by the same schedule of settings as the others did, so its curve
    is the one it would have had from the start.
    """

    def __init__(
        self,
        room: Classroom,
        betas: tuple[float, ...],
        settings: Settings,
        *,
        width: int,
        seeds: int,
        count: int,
        batch_size: int,
        points: int = 60,
    ) -> None:
        self.room, self.width, self.seeds, self.count = room, width, seeds, count
        self._batch_size, self._every = batch_size, max(1, count // points)
        self.schedule = Schedule(settings)
        self.lanes: dict[float | None, list[Runner]] = {}
        self.set_betas(betas)

    def set_betas(self, betas: tuple[float, ...]) -> None:
        """Lanes for these β: the others go, the new ones start at step 0."""
        kept = {beta: self.lanes.get(beta) for beta in (None, *betas)}
        self.lanes = {beta: lane or self._lane(beta) for beta, lane in kept.items()}

    def _lane(self, beta: float | None) -> list[Runner]:
        return [
            Runner(
                self.room,
                self.schedule,
                beta,
                seed,
                width=self.width,
                count=self.count,
                batch_size=self._batch_size,
                every=self._every,
            )
            for seed in range(self.seeds)
        ]

    def set(self, **changed: float | str) -> None:
        """Change settings from the step on that no student has taken yet."""
        if self.front < self.count:
            following = self.front + 1
            self.schedule.change(following, replace(self.schedule.at(following), **changed))  # type: ignore[arg-type]

    @property
    def runners(self) -> list[Runner]:
        return [runner for lane in self.lanes.values() for runner in lane]

    @property
    def step(self) -> int:
        """The step that every student has taken."""
        return min(runner.step for runner in self.runners)

    @property
    def front(self) -> int:
        """The step that the first student has taken."""
        return max(runner.step for runner in self.runners)

    def advance(self, target: int) -> Iterator[None]:
        """Bring every student to this step: an iterator, one step of one student at a time."""
        target = min(target, self.count)
        while (runner := min(self.runners, key=lambda r: r.step)).step < target:
            runner.take_step()
            yield

    def evaluate(self) -> None:
        """Add a point for where the students stand now, between the regular ones."""
        for runner in self.runners:
            runner.evaluate()

    def curve(self, beta: float | None, quantity: str) -> tuple[list[int], list[list[float]]]:
        """(steps, one row of values a seed) where all students of the lane have been measured."""
        lane = self.lanes[beta]
        at = [step for step in lane[0].points if all(step in r.points for r in lane)]
        return at, [[getattr(r.points[step], quantity) for step in at] for r in lane]
