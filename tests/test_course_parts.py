"""Models, data, metrics and training: what the notebooks stand on."""

import math

import pytest
import torch

import kdlab
from kdlab import data, metrics, models


def test_models():
    assert metrics.parameter_count(models.LargeModel()) == 430
    assert metrics.parameter_count(models.SmallModel()) == 220
    with pytest.raises(ValueError, match=r"^hidden: "):
        models.MLP(4, [0], 2)


@pytest.mark.parametrize("make", [data.digits, data.mnist1d])
def test_data_is_the_same_every_time(make):
    first = make()
    make.cache_clear()
    again = make()
    assert torch.equal(first.x_train, again.x_train) and torch.equal(first.y_test, again.y_test)
    assert set(first.y_train.tolist()) == set(range(10))
    assert len(first.subset(50).x_train) == 50
    with pytest.raises(ValueError, match=r"^examples: "):
        first.subset(0)


def test_calibration_error_of_a_known_case():
    confident = torch.tensor([[math.log(0.8), math.log(0.2)]] * 10)
    labels = torch.tensor([0] * 6 + [1] * 4)
    assert metrics.expected_calibration_error(confident, labels) == pytest.approx(0.2, abs=1e-6)


def test_peak_memory_counts_what_is_alive_together():
    x = torch.zeros(100, 40)
    # The widest moment: a hidden layer's output beside its ReLU's, 2 · 100 · 32 floats.
    assert metrics.peak_memory(models.MLP(40, [32, 32], 10), x) == 2 * 100 * 32 * 4
    # Freed tensors don't add up: eight layers need no more than one.
    assert metrics.peak_memory(models.MLP(40, [32] * 8, 10), x) == 2 * 100 * 32 * 4


def test_training_learns_and_repeats():
    def run():
        torch.manual_seed(3)
        model = models.MLP(64, [32], 10)
        return kdlab.train(model, data.digits(), epochs=5, eval_every=2, progress=False)

    first, second = run(), run()
    assert first.epoch == [0, 2, 4, 5] and first.test_accuracy[-1] > 0.9
    assert first.test_accuracy == second.test_accuracy and not first.interrupted


def test_distillation_needs_no_labels_and_leaves_the_teacher_alone():
    torch.manual_seed(0)
    teacher, student = models.MLP(64, [64], 10), models.MLP(64, [16], 10)
    kdlab.train(teacher, data.digits(), epochs=5, progress=False)
    before = [p.clone() for p in teacher.parameters()]
    history = kdlab.distill(student, teacher, data.digits(), epochs=10, progress=False)
    assert history.agreement[-1] > 0.9
    assert all(torch.equal(p, q) for p, q in zip(teacher.parameters(), before, strict=True))


def losses_of_steps(**settings):
    torch.manual_seed(0)
    digits, model = data.digits(), models.MLP(64, [16], 10)

    def loss(rows, logits):
        return torch.nn.functional.cross_entropy(logits, digits.y_train[rows])

    run = kdlab.training.steps(model, digits, loss, count=30, **settings)
    return [step.loss.item() for step in run]


def test_steps_are_the_loop_that_train_runs():
    torch.manual_seed(0)
    history = kdlab.train(
        models.MLP(64, [16], 10), data.digits(), epochs=1, batch_size=449, progress=False
    )
    # Three batches of 449: the epoch's mean loss is the mean of the first three steps' losses
    # where the schedule is as long.
    torch.manual_seed(0)
    digits, model = data.digits(), models.MLP(64, [16], 10)
    run = kdlab.training.steps(
        model,
        digits,
        lambda rows, z: torch.nn.functional.cross_entropy(z, digits.y_train[rows]),
        count=3,
        batch_size=449,
    )
    assert history.loss[-1] == pytest.approx(sum(s.loss.item() for s in run) / 3, rel=1e-6)


def test_a_learning_rate_that_changes_scales_the_rest():
    constant = losses_of_steps(lr=0.01)
    assert losses_of_steps(lr=lambda step: 0.01) == constant
    changed = losses_of_steps(lr=lambda step: 0.01 if step <= 10 else 1e-12)
    assert len(constant) == 30
    assert changed[:11] == constant[:11] and changed[11:] != constant[11:]
    assert losses_of_steps(lr=lambda step: 0.02)[1:] != constant[1:]


@pytest.mark.parametrize("name", ["count", "batch_size", "lr", "weight_decay"])
def test_steps_check_at_the_call(name):
    settings = {"count": 3, name: -1}
    with pytest.raises(ValueError, match=f"^{name}: "):
        kdlab.training.steps(models.MLP(64, [4], 10), data.digits(), lambda r, z: z, **settings)


class StopsAfter(models.MLP):
    """Raises what Ctrl-C raises, in the middle of its second epoch."""

    steps = 0

    def forward(self, x):
        self.steps += self.training
        if self.training and self.steps == 20:
            raise KeyboardInterrupt
        return super().forward(x)


def test_interrupt_keeps_weights_and_history():
    torch.manual_seed(0)
    model = StopsAfter(64, [16], 10)
    before = model[0].weight.detach().clone()
    history = kdlab.train(model, data.digits(), epochs=5, progress=False)
    assert history.interrupted and history.epoch == [0, 2]
    assert history.test_accuracy[-1] > history.test_accuracy[0]
    assert not torch.equal(before, model[0].weight)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "lr", "weight_decay", "eval_every"])
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        kdlab.train(models.MLP(64, [4], 10), data.digits(), progress=False, **{name: -1})


def test_only_a_dataset_can_be_trained_on():
    loader = torch.utils.data.DataLoader(torch.zeros(4, 64))
    model = models.MLP(64, [4], 10)
    said = "^data: got DataLoader; expected a kdlab.data.Dataset.*kdlab.distillation_loss"
    for call in (
        lambda: kdlab.train(model, loader),
        lambda: kdlab.distill(model, model, loader),
        lambda: kdlab.training.steps(model, loader, lambda rows, z: z.sum(), count=1),
    ):
        with pytest.raises(TypeError, match=said):
            call()
