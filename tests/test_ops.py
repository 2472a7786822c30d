"""The operators, as PyTorch sees them: schema, fake tensors, autograd registration, compile."""

import pytest
import torch

import kdlab
from kdlab import ops
from tests.oracle import DIVERGENCES


def arguments(label_weight=0.4, divergence="kl"):
    student = torch.randn(3, 7, requires_grad=True)
    keep = torch.tensor([True, False, True])
    labels = torch.randint(0, 7, (3,))
    return (
        student,
        torch.randn(3, 7),
        labels,
        keep,
        torch.tensor(0.5).expand(3),
        divergence,
        0.5,
        label_weight,
        True,
        "torch",
    )


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_opcheck(divergence):
    args = arguments(divergence=divergence)
    torch.library.opcheck(ops.rows, args)
    student, teacher, labels, keep, beta, *rest = args
    _, stats = ops.rows(*args)
    torch.library.opcheck(
        ops.rows_backward,
        (
            torch.ones(3),
            student.detach(),
            teacher,
            labels,
            keep,
            beta,
            stats,
            *(True, True, True),
            *rest,
        ),
    )
    torch.library.opcheck(
        ops.total, (student, teacher, labels, keep, beta, torch.tensor(0.25), *rest)
    )
    torch.library.opcheck(ops.scale_, (torch.randn(3, 7), torch.tensor(0.5), "torch"))


def test_compiles_to_one_graph_with_the_same_numbers():
    def step(s, t, y):
        return kdlab.distillation_loss(s, t, y, beta=0.5, label_weight=0.3)

    s, t, y = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9), torch.arange(4)
    eager = step(s, t, y)
    (expected,) = torch.autograd.grad(eager, s)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(s, t, y)
    (grad,) = torch.autograd.grad(compiled, s)
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(grad, expected)
