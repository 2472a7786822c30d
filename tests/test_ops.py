"""The operators, as PyTorch sees them: schema, fake tensors, autograd registration, compile."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch._dynamo import compiled_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import kdlab
from kdlab import ops
from tests.oracle import DIVERGENCES


def arguments(label_weight=0.4, divergence="kl", classes=None):
    student = torch.randn(3, 7, requires_grad=True)
    keep = torch.tensor([True, False, True])
    labels = torch.randint(0, classes or 7, (3,))
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
        classes,
        "torch",
    )


@pytest.mark.parametrize(("divergence", "classes"), [*((d, None) for d in DIVERGENCES), ("kl", 5)])
def test_opcheck(divergence, classes):
    args = arguments(divergence=divergence, classes=classes)
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


def test_a_module_with_numpys_numbers_compiles():
    s, t, y = torch.randn(4, 9), torch.randn(4, 9), torch.arange(4)
    given = dict(beta=np.float32(0.5), mix=np.float64(0.3), label_weight=np.float64(0.25))
    given |= dict(num_classes=np.int64(8), ignore_index=np.int32(-1), divergence="js")
    module = kdlab.DistillationLoss(**given)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(s, t, y)
    assert torch.equal(compiled, kdlab.distillation_loss(s, t, y, **given))


def test_the_backward_pass_alone_compiles():
    """What `torch._dynamo.config.compiled_autograd` does with a loss that was made without."""
    s, t = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    (expected,) = torch.autograd.grad(2 * kdlab.distillation_loss(s, t), s)
    loss = 2 * kdlab.distillation_loss(s, t)
    with compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
        loss.backward()
    torch.testing.assert_close(s.grad, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_a_trace_is_checked_without_gradients():
    s, t = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    traced = torch.jit.trace(kdlab.distillation_loss, (s, t))
    assert torch.equal(traced(s, t), kdlab.distillation_loss(s, t))


class Names(TorchDispatchMode):
    """The operators that are called while it is on."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.add(function.name())
        return function(*args, **(kwargs or {}))


def full_step(student, teacher, labels, **settings):
    loss = kdlab.distillation_loss(student, teacher, labels, beta=0.5, **settings).sum()
    return loss.detach(), *torch.autograd.grad(2 * loss, student)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_short_way_gives_the_same_bits_as_the_operators(divergence, reduction):
    student, teacher, labels, *_ = arguments()
    settings = dict(divergence=divergence, label_weight=0.4, reduction=reduction)
    short = full_step(student, teacher, labels, **settings)
    with Names() as watched:
        long = full_step(student, teacher, labels, **settings)
    made, after = ("rows", "rows_backward") if reduction == "none" else ("total", "scale_")
    assert {f"kdlab::{made}", f"kdlab::{after}"} <= watched.seen
    assert "aten::exp2.out" not in watched.seen
    assert all(map(torch.equal, short, long))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_value_alone_has_the_same_bits(divergence, reduction):
    student, teacher, labels, *_ = arguments()
    settings = dict(divergence=divergence, label_weight=0.4, reduction=reduction)
    expected = kdlab.distillation_loss(student, teacher, labels, **settings)
    with torch.no_grad():
        inside = kdlab.distillation_loss(student, teacher, labels, **settings)
    outside = kdlab.distillation_loss(student.detach(), teacher, labels, **settings)
    assert torch.equal(inside, expected) and torch.equal(outside, expected)
    assert not outside.requires_grad


def test_without_gradients_nothing_is_summed_for_them(monkeypatch):
    student, teacher, *_ = arguments()
    found, forward = [], ops.torch_rows.forward

    def kept(*given, **settings):
        found.append(forward(*given, **settings))
        return found[-1]

    monkeypatch.setattr(ops.torch_rows, "forward", kept)
    for logits in (student, student.detach()):
        kdlab.distillation_loss(logits, teacher, divergence="tv", reduction="none")
    (_, wanted, _), (_, spared, _) = found
    assert (wanted[4:6] != 0).any() and (spared[4:6] == 0).all()


def test_whoever_looks_on_sees_the_operators():
    student, teacher, labels, *_ = arguments()
    graph = make_fx(lambda s: kdlab.distillation_loss(s, teacher))(student)
    assert any("kdlab.total" in str(node.target) for node in graph.graph.nodes)

    with torch.profiler.profile() as profiler:
        full_step(student, teacher, labels)
    assert {"kdlab::total", "kdlab::scale_"} <= {event.name for event in profiler.events()}

    class Logits(torch.Tensor):
        seen: ClassVar[set[str]] = set()

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            cls.seen.add(str(function))
            return super().__torch_function__(function, types, args, kwargs or {})

    kdlab.distillation_loss(student.as_subclass(Logits), teacher)
    assert any("kdlab" in name for name in Logits.seen)


def test_a_temperature_that_changes_is_compiled_once():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    student, teacher = torch.randn(3, 7, requires_grad=True), torch.randn(3, 7)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(beta):
        return kdlab.distillation_loss(student, teacher, beta=beta)

    for beta in (0.25, 0.5, 1.0):
        expected = kdlab.distillation_loss(student, teacher, beta=beta)
        torch.testing.assert_close(step(torch.tensor(beta)), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_labels_without_values_are_not_looked_at():
    with FakeTensorMode():
        logits, labels = torch.empty(3, 7, requires_grad=True), torch.empty(3, dtype=torch.int64)
        loss = kdlab.distillation_loss(logits, torch.empty(3, 7), labels, label_weight=0.5)
        loss.backward()
        assert loss.shape == () and logits.grad.shape == (3, 7)


# PyTorch warns that the check of the labels' range is not traced, and that tracing is old.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_graph_leaves_out_rows_that_counted_while_it_was_traced():
    student, teacher, labels = torch.randn(3, 7), torch.randn(3, 7), torch.randint(0, 7, (3,))

    def loss(labels):
        return kdlab.distillation_loss(student, teacher, labels, label_weight=0.5)

    traced = torch.jit.trace(loss, (labels,))
    fewer = labels.clone()
    fewer[::2] = -100
    torch.testing.assert_close(traced(fewer), loss(fewer))


def test_the_short_way_is_taken():
    student, teacher, labels, *_ = arguments()
    loss = kdlab.distillation_loss(student, teacher, labels)
    assert loss.grad_fn.name() == "_TotalBackward"
