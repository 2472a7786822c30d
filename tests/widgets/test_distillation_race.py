"""The race without a browser: lanes, schedule, event loop, failures and the end."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest
import torch

import kdlab
from kdlab import data, models
from kdlab.arguments import DIVERGENCES
from kdlab.widgets import DistillationRace
from kdlab.widgets.classroom import handed_down
from kdlab.widgets.slices import Slices

STEPS = 24


@pytest.fixture
def make():
    made = []

    def build(*arguments, **settings):
        race = DistillationRace(
            *arguments, **{"betas": [0.25], "seeds": 2, "steps": STEPS, "width": 8} | settings
        )
        made.append(race)
        return race

    yield build
    for race in made:
        race.close()


async def until(condition, seconds=60):
    """Let the event loop turn until it is so, as a kernel's does."""
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end, "it did not happen"
        await asyncio.sleep(0.001)


def curves(race):
    return {name: lane["accuracy"] for name, lane in race.state["lanes"].items()}


def test_a_lane_is_what_train_and_distill_do(make):
    race = make(betas=[0.25], steps=16, batch_size=25, lr=0.02)
    race.run()
    teacher, few = handed_down(100)
    settings = dict(epochs=4, batch_size=25, lr=0.02, seed=1, progress=False)
    for name in ("labels only", "β = 0.25"):
        torch.manual_seed(1)
        student = models.MLP(64, [8], 10)
        history = (
            kdlab.train(student, few, **settings)
            if name == "labels only"
            else kdlab.distill(student, teacher, few, beta=0.25, **settings)
        )
        assert race.state["lanes"][name]["accuracy"][1][-1] == history.test_accuracy[-1]
    assert race.state["lanes"][name]["agreement"][1][-1] == history.agreement[-1]
    assert race.status == "finished"


def test_nothing_runs_by_itself(make, capsys):
    race = make()
    race.lr, race.betas = 0.02, [0.5, 1]
    assert (race.status, race.state["step"]) == ("ready", 0)
    assert repr(race) == "DistillationRace(betas=(0.5, 1.0), step=0 of 24, status='ready')"
    assert capsys.readouterr().out == ""
    assert len(race.figure().axes) == 3


def test_marks_are_the_curves_of_the_state(make):
    race = make(seeds=3)
    race.step(5)
    lane = race.state["lanes"]["β = 0.25"]
    curve = race._view._curves["accuracy"][0.25]
    values = torch.tensor(lane["accuracy"])
    assert curve._line.x.tolist() == lane["steps"]
    torch.testing.assert_close(torch.tensor(curve._line.y), values.double().mean(0))
    torch.testing.assert_close(torch.tensor(curve._band.y[0]), values.double().amin(0))
    assert [text in race._view.numbers.value for text in ("labels only", "β = 0.25")] == [True] * 2


def test_the_event_loop_stays_free(make):
    race = make(steps=2000)

    async def other_cells():
        race.start()
        assert race.status == "running" and race.state["step"] == 0  # start() returns at once
        beats = 0
        while race.state["step"] < 20:
            beats += 1
            await asyncio.sleep(0)
        race.pause()
        at = race.state["step"]
        await asyncio.sleep(0.05)
        assert (race.status, race.state["step"]) == ("paused", at) and 0 < at < 2000
        assert len(asyncio.all_tasks()) == 1
        race.start()
        await until(lambda: race.state["step"] > at)
        return beats

    threads = threading.active_count()
    # Between two slices the loop comes back to the other cells: far more often than once.
    assert asyncio.run(other_cells()) > 3
    assert threading.active_count() == threads


def test_a_slice_is_bounded():
    taken, ended = [], []

    def work():
        for i in range(50):
            time.sleep(Slices.SECONDS / 4)
            yield taken.append(i)

    async def main():
        slices = Slices(lambda: taken.append("slice"), ended.append)
        slices.start(work(), torch.nn.Linear(1, 1))
        await until(lambda: not slices.running)

    asyncio.run(main())
    lengths = [
        len(part)
        for part in "".join(map(str, ["s" if t == "slice" else "i" for t in taken])).split("s")
    ]
    # At least the time of four steps fits, and no slice goes on for longer than that.
    assert max(lengths) <= 4 and sum(lengths) == 50 and ended == [None]


def test_live_and_blocking_races_are_the_same_and_reset_repeats_them(make):
    live, blocking = make(), make()

    async def main():
        torch.manual_seed(5)
        live.start()
        await until(lambda: live.status != "running")
        return torch.rand(1).item()

    drawn = asyncio.run(main())
    torch.manual_seed(5)
    assert drawn == torch.rand(1).item()  # the race draws no numbers of another cell's
    blocking.run()
    assert curves(live) == curves(blocking)
    assert (
        live.state["lanes"]["labels only"]["loss"][0][1:]
        == (blocking.state["lanes"]["labels only"]["loss"][0][1:])
    )
    before = curves(live)
    live.reset()
    assert (live.status, live.state["step"]) == ("ready", 0)
    live.step(7)
    live.run()
    at = live.state["lanes"]["labels only"]["steps"]
    assert at == list(range(STEPS + 1)) and curves(live) == before


def test_dropout_repeats_too(make):
    def student(width):
        return torch.nn.Sequential(
            torch.nn.Linear(64, width), torch.nn.Dropout(0.5), torch.nn.Linear(width, 10)
        )

    race = make(None, None, student)
    race.run()
    first = curves(race)
    torch.rand(100)
    race.reset()
    race.run()
    assert curves(race) == first
    race.close()


def test_settings_apply_from_the_next_step(make):
    plain, changed = make(), make()
    for race in (plain, changed):
        race.step(10)
    changed.label_weight = 1.0
    changed.lr = 0.05
    changed.lr = 0.02  # moved again before a step: only where it was left counts
    assert [(c["step"], c["name"], c["after"]) for c in changed.state["changes"]] == [
        (11, "lr", 0.02),
        (11, "label_weight", 1.0),
    ]
    assert changed._view._changes.x.ravel().tolist() == [10, 10]
    for race in (plain, changed):
        race.run()
    both = [r.state["lanes"]["β = 0.25"]["loss"][0] for r in (plain, changed)]
    assert both[0][1:11] == both[1][1:11] and both[0][11:] != both[1][11:]


def test_alpha_of_one_is_the_labels_lane(make):
    race = make(label_weight=1.0)
    race.run()
    lanes = curves(race)
    assert lanes["β = 0.25"] == lanes["labels only"]


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_every_divergence_races(make, divergence):
    race = make(steps=3)
    race.divergence = divergence
    race.run()
    rows = race.state["lanes"]["β = 0.25"]["loss"]
    assert race.status == "finished" and all(0 < value < 1e4 for value in rows[0][1:])
    assert ("mse_logits: its lanes" in race._note.value) is False  # there is one lane
    race.betas = [0.25, 1]
    assert ("mse_logits: its lanes" in race._note.value) == (divergence == "mse_logits")


def test_a_lane_added_late_is_the_one_it_would_have_been(make):
    early, late = make(betas=[0.25, 1.0]), make(betas=[0.25])
    for race in (early, late):
        race.step(10)
        race.lr = 0.03
    late.betas = [0.25, 1.0]
    assert late.state["step"] == 0 and late.state["lanes"]["β = 0.25"]["steps"][-1] == 10
    late.step(10)
    assert late.state["lanes"]["β = 1"]["steps"][-1] == 10
    early.run()
    late.run()
    assert curves(late) == curves(early)
    colour = late._view.styles[1.0]
    late.betas = [1.0]
    assert late._view.styles[1.0] == colour != late._view.styles[None]
    assert list(late.state["lanes"]) == ["labels only", "β = 1"] and late.status == "finished"


def test_a_lane_added_while_it_runs(make):
    race, whole = make(steps=60), make(steps=60, betas=[0.25, 1.0])

    async def main():
        race.start()
        await until(lambda: race._race.front > 5)
        race._betas.value = "1/4, 1"  # typed
        assert race.status == "running"
        await until(lambda: race.status != "running")

    asyncio.run(main())
    whole.run()
    assert race.status == "finished" and curves(race) == curves(whole)


def test_size_and_seeds_wait_for_reset(make):
    race = make()
    race.seeds = 1
    assert race.state["seeds"] == 1 and not race.state["pending"]  # at step 0: at once
    race.step(3)
    race.width = 16
    assert race.state["width"] == 8 and race.state["pending"] == {"width": 16}
    assert "At Reset" in race._note.value
    race.reset()
    assert race.state["width"] == 16 and not race.state["pending"]
    assert race._race.runners[0].model[0].out_features == 16


class Breaks(models.MLP):
    """Raises in its fifth step of training."""

    calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 5:
            raise ArithmeticError("no <i>memory</i> left")
        return super().forward(x)


def test_an_exception_is_shown_and_stops_the_race(make):
    race = make(None, None, lambda width: Breaks(64, [width], 10))

    async def main():
        race.start()
        await until(lambda: race.status != "running")
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert race.status == "failed" and isinstance(race.error, ArithmeticError)
    assert race.state["step"] == 4 and race.state["lanes"]["labels only"]["steps"] == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert "ArithmeticError: no &lt;i&gt;memory" in race._note.value and race._start.disabled
    with pytest.raises(RuntimeError, match="memory"):
        race.step()
    race.reset()
    assert race.status == "ready" and race._note.value == "" and not race._start.disabled
    with pytest.raises(ArithmeticError):
        race.run()
    race.reset()
    race._step.click()  # a button has nobody to raise to
    assert race.state["step"] == 1
    for _ in range(4):
        race._step.click()
    assert race.status == "failed"


def test_a_loss_that_is_no_number_is_an_error(make):
    def student(width):
        class Explodes(models.MLP):
            def forward(self, x):
                z = super().forward(x)
                return z / 0 if self.training else z

        return Explodes(64, [width], 10)

    race = make(None, None, student)
    with pytest.raises(FloatingPointError, match="step 1"):
        race.run()
    assert race.status == "failed"


def test_closing_ends_the_training(make):
    race = make(steps=100_000)

    async def main():
        race.start()
        await until(lambda: race.state["step"] > 0)
        race.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        at = race._race.step
        await asyncio.sleep(0.05)
        assert race._race.step == at

    threads = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == threads


def test_a_race_that_nobody_sees_pauses(make):
    race = make(steps=100_000)

    async def main():
        race.start()
        race._view_count = 2  # what the page reports
        race._view_count = 1
        assert race.status == "running"
        race._view_count = 0
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert race.status in ("ready", "paused")

    asyncio.run(main())


def test_start_needs_an_event_loop(make):
    race = make()
    with pytest.raises(RuntimeError, match=r"run\(\)"):
        race.start()
    assert race.status == "ready"


def test_buttons_drive_the_race(make):
    race = make(steps=5000)

    async def main():
        race._start.click()
        assert race.status == "running" and race._start.description == "Pause"
        await until(lambda: race.state["step"] > 0)
        race._start.click()
        assert race.status == "paused" and race._start.description == "Start"
        race._reset.click()

    asyncio.run(main())
    race._step.click()
    assert (race.status, race.state["step"]) == ("paused", 1)


def test_what_cannot_be_read_stays_beside_its_reason(make):
    race = make()
    race._betas.value = "a quarter"
    assert race.betas == (0.25,) and "expected numbers" in race._betas_error.value
    race._betas.value = "1/8; 2"
    assert race.betas == (0.125, 2.0) and race._betas_error.value == ""
    assert race._betas.value == "0.125, 2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("betas", []),
        ("betas", [1, 1]),
        ("betas", [0]),
        ("betas", "1"),
        ("betas", [float("nan")]),
        ("betas", [1, 2, 3, 4, 5, 6]),
        ("label_weight", 1.1),
        ("divergence", "cosine"),
        ("lr", 0),
        ("lr", "fast"),
        ("width", 2.5),
        ("seeds", 0),
        ("steps", 0),
        ("batch_size", -1),
    ],
)
def test_bad_settings(make, name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make(**{name: value})
    if name not in ("steps", "batch_size"):
        race = make()
        with pytest.raises(ValueError, match=f"^{name}: "):
            setattr(race, name, value)


def test_bad_classrooms(make):
    digits = data.digits()
    fits = models.MLP(64, [8], 10)
    nan = replace(digits, x_train=digits.x_train * float("nan"))
    for arguments, name in [
        ((fits, None), "data"),
        ((None, digits), "teacher"),
        (("teacher", digits), "teacher"),
        ((fits, [1]), "data"),
        ((models.MLP(64, [8], 9), digits), "teacher"),
        ((models.MLP(40, [8], 10), digits), "teacher"),
        ((fits, nan), "teacher"),
        ((fits, digits, fits), "student"),
        ((fits, digits, lambda width: None), "student"),
        ((fits, digits, lambda width: models.MLP(64, [width], 3)), "student"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: "):
            make(*arguments)
