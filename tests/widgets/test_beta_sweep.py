"""The sweep without a browser: cache, cancel, event loop, and the statistic on made-up answers."""

import asyncio
import json
import time

import numpy as np
import pytest
import torch

from kdlab import data, models
from kdlab.widgets import BetaSweep, recommendation
from kdlab.widgets.recommendation import recommend
from kdlab.widgets.trials import Trials


@pytest.fixture
def make():
    made = []

    def build(*arguments, **settings):
        sweep = BetaSweep(
            *arguments, **{"betas": [0.05, 0.5], "seeds": 3, "steps": 4, "width": 8} | settings
        )
        made.append(sweep)
        return sweep

    yield build
    for sweep in made:
        sweep.close()


@pytest.fixture
def trained(monkeypatch):
    """(β, seed) of the students that were trained to their end, in order."""
    runs, put = [], Trials.train

    def train(self, beta, seed, width, settings):
        yield from put(self, beta, seed, width, settings)
        runs.append((beta, seed))

    monkeypatch.setattr(Trials, "train", train)
    return runs


async def until(condition, seconds=60):
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end, "it did not happen"
        await asyncio.sleep(0.001)


def answers(share, seeds=5, examples=200, seed=0):
    return np.random.default_rng(seed).random((seeds, examples)) < share


# The statistic.


def test_a_clear_winner_is_told_apart():
    right = {0.25: answers(0.9), 1.0: answers(0.6), 4.0: answers(0.3)}
    best = recommend(right, answers(0.5))
    assert (best.beta, best.ties, best.share) == (0.25, (), 1.0)
    assert best.gain_is_sure and best.gain == pytest.approx(0.4, abs=0.05)
    assert "5 seeds tell it from every other" in str(best)


def test_a_tie_is_a_tie():
    same = answers(0.8)
    best = recommend({0.5: same, 1.0: same.copy(), 2.0: answers(0.2)}, same)
    # Of equals the lowest; they share the resamples; labels only is no better and no worse.
    assert (best.beta, best.ties) == (0.5, (1.0,))
    assert best.shares == {0.5: 0.5, 1.0: 0.5, 2.0: 0.0}
    assert best.gain == 0 and not best.gain_is_sure
    assert "cannot tell it from β = 1" in str(best) and "may be chance" in str(best)


def test_one_lucky_seed_is_not_enough():
    lucky = answers(0.7)
    lucky[0] = True  # one of five students gets everything right
    best = recommend({0.5: lucky, 1.0: answers(0.7)}, answers(0.7))
    assert best.beta == 0.5 and best.ties == (1.0,) and best.share < 0.9
    assert not best.gain_is_sure


def test_one_example_is_not_enough():
    base = answers(0.7)
    base[:, 0] = False
    one_more = base.copy()
    one_more[:, 0] = True  # the same one, for every seed: the seeds agree, the examples do not
    assert recommend({0.5: one_more, 1.0: base}, base).ties == (1.0,)


def test_equal_chances_are_rarely_told_apart(monkeypatch):
    """Of 100 experiments where no β is better, about 5 at most may claim that one is."""
    monkeypatch.setattr(recommendation, "RESAMPLES", 1)  # the shares are not the question here
    claims = 0
    for seed in range(100):
        right = {
            beta: answers(0.8, seed=10 * seed + i) for i, beta in enumerate((0.1, 0.5, 1.0, 2.0))
        }
        claims += len(recommend(right, answers(0.8, seed=10 * seed + 9)).ties) < 3
    assert claims <= 8


def test_more_seeds_and_examples_tell_more_apart():
    def ties(seeds, examples):
        shapes = {"seeds": seeds, "examples": examples}
        right = {0.5: answers(0.85, **shapes), 1.0: answers(0.75, seed=1, **shapes)}
        return recommend(right, answers(0.75, seed=2, **shapes)).ties

    assert ties(3, 20) == (1.0,) and ties(10, 500) == ()


def test_the_statistic_checks_its_input():
    with pytest.raises(ValueError, match=r"^labels_only: got 2 seeds"):
        recommend({1.0: answers(0.5, seeds=2)}, answers(0.5, seeds=2))
    with pytest.raises(ValueError, match=r"^right: got shape \(4, 200\) for β = 1"):
        recommend({1.0: answers(0.5, seeds=4)}, answers(0.5))


# The sweep.


def test_run_and_what_it_says(make, trained, capsys):
    sweep = make()
    assert repr(sweep) == "BetaSweep(2 betas, 3 seeds, status='ready')" and not trained
    assert sweep.recommendation is None and sweep.state["test"] is None
    sweep.run()
    # Seed by seed, and each student once.
    assert trained == [(beta, seed) for seed in range(3) for beta in (None, 0.05, 0.5)]
    state = sweep.state
    assert state["status"] == "finished" and state["done"] == state["total"] == 9
    held_out = {beta: np.mean(row) for beta, row in state["held_out"].items()}
    assert state["recommendation"]["beta"] == max(held_out, key=held_out.get)
    assert sum(state["recommendation"]["shares"].values()) == pytest.approx(1)
    assert len(state["test"]["distilled"]) == len(state["test"]["labels_only"]) == 3
    assert len(sweep.figure().axes) == 1 and capsys.readouterr() == ("", "")
    drawn = torch.tensor(sweep._view._distilled._line.y)
    torch.testing.assert_close(drawn, torch.tensor(list(held_out.values())).double())
    assert str(sweep.recommendation)[:8] in sweep._note.value


def test_held_out_and_test_examples_are_not_trained_on(make):
    sweep = make(held_out=0.25)
    fold = sweep._trials._fold.data
    assert len(fold.x_train) == 150 and len(fold.x_test) == 50
    rows = [{tuple(row) for row in x.tolist()} for x in (fold.x_train, fold.x_test)]
    assert not rows[0] & rows[1]


def test_only_what_is_missing_is_trained(make, trained):
    sweep = make()
    sweep.run()
    first = sweep.state["held_out"]
    trained.clear()
    sweep.run()
    assert trained == []
    sweep.seeds = 4
    assert sweep.status == "ready" and sweep.state["done"] == 9 and sweep.recommendation is None
    sweep.run()
    assert trained == [(None, 3), (0.05, 3), (0.5, 3)]
    trained.clear()
    sweep.betas = [0.05, 1.0]
    sweep.run()
    assert trained == [(1.0, seed) for seed in range(4)]
    trained.clear()
    sweep.label_weight = 0.5  # the students on labels only do not depend on it
    sweep.run()
    assert trained == [(beta, seed) for seed in range(4) for beta in (0.05, 1.0)]
    sweep.label_weight, sweep.betas, sweep.seeds = 0.0, [0.05, 0.5], 3
    assert sweep.status == "finished" and sweep.state["held_out"] == first


def test_results_on_disk(make, trained, tmp_path):
    folder = tmp_path / "kept" / "here"
    sweep = make(folder=folder)
    sweep.run()
    files = sorted(folder.iterdir())
    assert len(files) == 9 and {file.suffix for file in files} == {".json"}
    trained.clear()
    again = make(folder=str(folder))
    assert again.status == "finished" and again.state["held_out"] == sweep.state["held_out"]
    # Half a file, and a file that is another's, count as missing; so does another lesson.
    files[0].write_text(files[0].read_text()[:40])
    key = json.loads(files[1].read_text()) | {"key": {"beta": 7}}
    files[1].write_text(json.dumps(key))
    assert make(folder=folder).state["done"] == 7
    for other in ({"held_out": 0.3}, {"steps": 5}, {"lr": 0.02}, {"batch_size": 20}):
        assert make(folder=folder, **other).state["done"] == 0
    teacher = models.MLP(64, [8], 10)
    assert make(teacher, data.digits().subset(50), folder=folder).state["done"] == 0
    make(folder=folder).run()
    assert len(trained) == 2
    files[0].unlink()
    with pytest.raises(ValueError, match=r"^folder: "):
        make(folder=files[1])


def test_started_it_leaves_the_loop_free_and_can_be_cancelled(make, trained):
    sweep, blocking = make(steps=100), make(steps=100)

    async def main():
        sweep._run.click()
        assert sweep.status == "running" and sweep._run.description == "Cancel"
        beats = 0
        while sweep.state["done"] < 4:
            beats += 1
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match=r"^seeds: "):
            sweep.seeds = 5
        assert sweep._seeds.disabled and sweep.seeds == 3
        sweep._run.click()
        done = sweep.state["done"]
        assert sweep.status == "cancelled" and 4 <= done < 9 and len(trained) == done
        await asyncio.sleep(0.05)
        assert sweep.state["done"] == done and len(asyncio.all_tasks()) == 1
        assert sweep.recommendation is None and len(sweep._complete()[0]) == done // 3
        sweep.start()
        await until(lambda: sweep.status != "running")
        return beats

    assert asyncio.run(main()) > 3
    assert sweep.status == "finished" and len(trained) == 9
    blocking.run()
    assert sweep.state["held_out"] == blocking.state["held_out"]
    assert sweep.state["test"] == blocking.state["test"]


class Breaks(models.MLP):
    """Raises in the training of the fifth student that starts."""

    trained, at = 0, 5

    def train(self, mode=True):
        Breaks.trained += mode
        return super().train(mode)

    def forward(self, x):
        if self.training and Breaks.trained >= Breaks.at:
            raise ArithmeticError("no <i>memory</i> left")
        return super().forward(x)


def test_an_exception_is_shown_and_what_was_done_stays(make, monkeypatch):
    monkeypatch.setattr(Breaks, "trained", -1000)
    sweep = make(None, None, lambda width: Breaks(64, [width], 10))
    monkeypatch.setattr(Breaks, "trained", 0)
    monkeypatch.setattr(Breaks, "at", 12)

    async def main():
        sweep.start()
        await until(lambda: sweep.status != "running")
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    done = sweep.state["done"]
    assert sweep.status == "failed" and 0 < done < 9
    assert "ArithmeticError: no &lt;i&gt;memory" in sweep._note.value
    assert sweep.state["error"] == "ArithmeticError: no <i>memory</i> left"
    with pytest.raises(ArithmeticError):
        sweep.run()
    monkeypatch.setattr(Breaks, "at", 10**6)
    sweep.run()
    assert sweep.status == "finished" and sweep.error is None and sweep._note.value


def test_ctrl_c_cancels_and_keeps(make, monkeypatch):
    put, count = Trials.train, []

    def train(self, *what):
        count.append(what)
        if len(count) == 6:
            raise KeyboardInterrupt
        yield from put(self, *what)

    monkeypatch.setattr(Trials, "train", train)
    sweep = make()
    sweep.run()
    assert sweep.status == "cancelled" and sweep.state["done"] == 5


def test_closing_ends_the_training(make):
    sweep = make(steps=100_000)

    async def main():
        sweep.start()
        sweep._view_count = 1
        sweep._view_count = 0  # no longer shown
        assert sweep.status == "cancelled"
        sweep.start()
        await asyncio.sleep(0.05)
        sweep.close()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_start_needs_an_event_loop(make):
    with pytest.raises(RuntimeError, match=r"run\(\)"):
        make().start()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("betas", [1]),
        ("betas", [1, -1]),
        ("seeds", 2),
        ("lr", float("inf")),
        ("held_out", 1),
        ("steps", 0.5),
    ],
)
def test_bad_settings(make, name, value):
    with pytest.raises(ValueError, match=f"^{name}: "):
        make(**{name: value})


def test_progress_can_be_a_bar(make, capsys):
    make(betas=[0.5, 1.0]).run(progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "9/9" in captured.err
