"""Students trained side by side are students trained alone."""

import pytest
import torch
from torch.nn import functional as F

from kdlab.many import MLPs, train_many


def trained(second_loss):
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.randint(0, 3, (40,))
    students = MLPs(2, 6, [5], 3)

    def row_losses(rows, logits):
        losses = F.cross_entropy(logits.mT, y[rows], reduction="none")
        return torch.stack((losses[0], second_loss * losses[1]))

    return train_many(students, x, row_losses, epochs=3, batch_size=16)


def test_no_student_feels_another():
    calm, wild = trained(1.0), trained(-50.0)
    for a, b in zip(calm.parameters(), wild.parameters(), strict=True):
        assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_a_slice_is_an_ordinary_perceptron():
    students, x = MLPs(3, 6, [5, 4], 2), torch.randn(7, 6)
    hidden = x
    for i in range(3):
        hidden = F.linear(hidden, students.weights[i][1].T, students.biases[i][1, 0])
        hidden = hidden.relu() if i < 2 else hidden
    torch.testing.assert_close(students(x)[1], hidden)
    torch.testing.assert_close(students(x.expand(3, 7, 6)), students(x))


def test_every_example_once_an_epoch_in_an_order_of_its_own():
    seen = []

    def row_losses(rows, logits):
        seen.append(rows)
        return logits.square().sum(-1)

    train_many(MLPs(2, 6, [5], 3), torch.randn(10, 6), row_losses, epochs=1, batch_size=4)
    order = torch.cat(seen, -1)
    assert [len(rows[0]) for rows in seen] == [4, 4, 2]
    assert order.sort(-1).values.tolist() == [list(range(10))] * 2
    assert not torch.equal(order[0], order[1])


@pytest.mark.parametrize(("name", "count", "hidden"), [("count", 0, [4]), ("hidden", 2, [0])])
def test_bad_sizes_are_named(name, count, hidden):
    with pytest.raises(ValueError, match=f"^{name}: "):
        MLPs(count, 6, hidden, 3)
