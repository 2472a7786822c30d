"""The public function: its values, its defined answers for hard input, and its errors."""

import math
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdlab
from kdlab import functional, reference
from kdlab.functional import default_backend
from tests.oracle import DIVERGENCES, error, gradients, oracle, peer

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
SIZES = [1, 2, 10, 127, 128, 129, 1000, 4099]


def make(rows, classes, dtype=torch.float32, spread=3.0):
    student = (spread * torch.randn(rows, classes)).to(dtype).requires_grad_()
    teacher = (spread * torch.randn(rows, classes)).to(dtype)
    return student, teacher, torch.randint(0, classes, (rows,))


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", SIZES)
@pytest.mark.parametrize("label_weight", [0.0, 0.3, 1.0])
def test_no_worse_than_plain_pytorch(divergence, dtype, classes, label_weight):
    s, t, y = make(7, classes, dtype)
    options = dict(beta=0.4, divergence=divergence, label_weight=label_weight)
    exact, exact_grad = oracle(s, t, y, **options)
    loss = kdlab.distillation_loss(s, t, y, reduction="none", **options)
    loss.sum().backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert s.grad.dtype == dtype
    plain, plain_grad = peer(s, t, y, **options)
    slack = 1e-12 if dtype == torch.float64 else 1e-6
    bound = 0.0 if dtype == torch.float64 else error(plain, exact)
    grad_bound = 0.0 if dtype == torch.float64 else error(plain_grad, exact_grad)
    assert error(loss, exact) <= bound + slack
    assert error(s.grad, exact_grad) <= grad_bound + slack


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("scaling", [True, False])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradcheck(divergence, scaling, reduction):
    s, t, y = make(4, 6, torch.float64, spread=1.0)
    mask = torch.tensor([True, True, False, True])
    beta = torch.tensor([0.7, 1.0, 0.3, 2.0]).double().requires_grad_()

    def loss(z, z_t, b):
        return kdlab.distillation_loss(
            z,
            z_t,
            y,
            beta=b,
            divergence=divergence,
            mix=0.3,
            label_weight=0.4,
            temperature_scaling=scaling,
            mask=mask,
            reduction=reduction,
        )

    t.requires_grad_()
    assert torch.autograd.gradcheck(loss, (s, t, beta))
    assert torch.autograd.gradcheck(lambda z: loss(z, t.detach(), beta.detach()), (s,))
    one = torch.tensor(0.6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda b: loss(s, t, b), (one,))


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_gradients_are_those_of_the_definition(divergence, dtype):
    s, t, y = make(5, 300, dtype)
    beta = torch.linspace(0.3, 1.5, 5, dtype=torch.float64)
    options = dict(divergence=divergence, label_weight=0.2)

    def exact_loss(z, z_t, b):
        return reference.distillation_rows(z, z_t, y, beta=b, **options)

    def loss(z, z_t, b):
        return kdlab.distillation_loss(z, z_t, y, beta=b, reduction="none", **options)

    exact = gradients(exact_loss, s.double(), t.double(), beta)
    got = gradients(loss, s, t, beta if dtype == torch.float64 else beta.float())
    assert got[1].dtype == got[2].dtype == dtype
    # no worse than the definition in float32 under autograd, rounded to the result's dtype
    plain = gradients(exact_loss, s.float(), t.float(), beta.float())
    for mine, theirs, truth in zip(got, plain, exact, strict=True):
        slack = 1e-12 if dtype == torch.float64 else 1e-6 + 0.6 * torch.finfo(mine.dtype).eps
        bound = 0.0 if dtype == torch.float64 else error(theirs, truth)
        assert error(mine, truth) <= bound + slack


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "js", "mse", "tv"])
@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3])
def test_keeps_its_digits_when_the_student_has_nearly_learned(divergence, distance):
    """Subtracting log-probabilities, or Σp² − 2Σpq + Σq², loses what is left to learn."""
    t = 4 * torch.randn(16, 1000)
    s = t + distance * torch.randn(16, 1000)
    exact, _ = oracle(s, t, divergence=divergence)
    ours = error(kdlab.distillation_loss(s, t, divergence=divergence, reduction="none"), exact)
    assert ours < error(peer(s, t, divergence=divergence)[0], exact) / 3


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 5),
    classes=st.integers(1, 40),
    beta=st.floats(0.05, 8.0),
    offset=st.floats(-50, 50),
    divergence=st.sampled_from(["kl", "mse"]),
    seed=st.integers(0, 2**31),
)
def test_properties(rows, classes, beta, offset, divergence, seed):
    g = torch.Generator().manual_seed(seed)
    s = (3 * torch.randn(rows, classes, generator=g, dtype=torch.float64)).requires_grad_()
    t = 3 * torch.randn(rows, classes, generator=g, dtype=torch.float64)
    options = dict(beta=beta, divergence=divergence, reduction="none")
    loss = kdlab.distillation_loss(s, t, **options)
    assert loss.shape == (rows,) and (loss >= 0).all()
    shifted = kdlab.distillation_loss(s + offset, t - offset, **options)
    torch.testing.assert_close(loss, shifted, rtol=1e-7, atol=1e-9)  # logits up to a constant
    assert (kdlab.distillation_loss(t, t, **options) == 0).all()
    (grad,) = torch.autograd.grad(loss.sum(), s)
    torch.testing.assert_close(grad.sum(-1), torch.zeros(rows).double(), rtol=0, atol=1e-8)
    order = torch.randperm(classes, generator=g)
    permuted = kdlab.distillation_loss(s[:, order], t[:, order], **options)
    torch.testing.assert_close(loss, permuted)


def test_reductions_and_denominator():
    s, t, _ = make(6, 5)
    s, t = s.reshape(2, 3, 5), t.reshape(2, 3, 5)
    rows = kdlab.distillation_loss(s, t, reduction="none")
    assert rows.shape == (2, 3)
    torch.testing.assert_close(kdlab.distillation_loss(s, t, reduction="sum"), rows.sum())
    torch.testing.assert_close(kdlab.distillation_loss(s, t), rows.sum() / 6)
    for denominator in (4.0, torch.tensor(4.0)):
        got = kdlab.distillation_loss(s, t, denominator=denominator)
        torch.testing.assert_close(got, rows.sum() / 4)


def test_row_beta():
    s, t, _ = make(3, 8)
    beta = torch.tensor([0.2, 1.0, 3.0])
    got = kdlab.distillation_loss(s, t, beta=beta, reduction="none")
    for i, b in enumerate(beta.tolist()):
        one = kdlab.distillation_loss(s[i], t[i], beta=b, reduction="none")
        torch.testing.assert_close(got[i], one)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_rows_that_do_not_count_change_nothing(poison, divergence):
    s, t, y = make(6, 9)
    options = dict(divergence=divergence, beta=0.5, label_weight=0.25)
    keep = torch.tensor([0, 2, 3, 5])
    expected = kdlab.distillation_loss(s[keep], t[keep], y[keep], **options)
    (grad,) = torch.autograd.grad(expected, s)
    y[4] = -100
    mask = torch.tensor([True, False, True, True, True, True])
    bad_s, bad_t = s.detach().clone(), t.clone()
    bad_s[[1, 4]] = poison
    bad_t[[1, 4]] = poison
    bad_s.requires_grad_()
    loss = kdlab.distillation_loss(bad_s, bad_t, y, mask=mask, **options)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(bad_s.grad, grad)
    assert (bad_s.grad[[1, 4]] == 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_counts(reduction):
    s, t, _ = make(3, 4)
    for z, options in ((s, {"mask": torch.zeros(3, dtype=torch.bool)}), (s[:0], {})):
        loss = kdlab.distillation_loss(z, t[: len(z)], reduction=reduction, **options)
        (grad,) = torch.autograd.grad(loss, s)
        assert loss == 0 and (grad == 0).all()


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_nan_in_a_row_that_counts_gives_nan(side, divergence):
    s, t, _ = make(3, 40)
    s, t = s.detach(), t.detach()
    (s if side == "student" else t)[1, 7] = torch.nan
    for other in (False, True):
        leaves = s.requires_grad_(), t.requires_grad_(other)
        loss = kdlab.distillation_loss(*leaves, divergence=divergence, reduction="none")
        assert loss.isnan().tolist() == [False, True, False]
        loss = kdlab.distillation_loss(*leaves, divergence=divergence)
        for gradient in torch.autograd.grad(loss, leaves[: 1 + other]):
            classes = [7] if divergence == "mse_logits" else slice(None)  # it knows only its class
            assert gradient[1, classes].isnan().all()
            assert not gradient[[0, 2]].isnan().any()


def test_masked_classes():
    s, t, y = make(4, 300)
    y = y.clamp(max=199)
    cut = kdlab.distillation_loss(s[:, :200], t[:, :200], y, beta=0.5, label_weight=0.5)
    s_masked, t_masked = s.detach().clone(), t.clone()
    s_masked[:, 200:] = t_masked[:, 200:] = -torch.inf
    s_masked.requires_grad_()
    loss = kdlab.distillation_loss(s_masked, t_masked, y, beta=0.5, label_weight=0.5)
    loss.backward()
    torch.testing.assert_close(loss, cut)
    assert s_masked.grad.isfinite().all() and (s_masked.grad[:, 200:] == 0).all()
    # the teacher alone: p = 0 there; the student alone, where p > 0: infinitely far
    both = kdlab.distillation_loss(s, t_masked, reduction="none")
    torch.testing.assert_close(both.double(), oracle(s, t_masked)[0], rtol=1e-6, atol=1e-6)
    assert (kdlab.distillation_loss(s_masked, t, reduction="none") == torch.inf).all()
    for divergence in DIVERGENCES:
        nothing = torch.full((2, 5), -torch.inf)
        nothing[0] = 0.0
        rows = kdlab.distillation_loss(
            nothing, torch.zeros(2, 5), divergence=divergence, reduction="none"
        )
        assert rows[0] == 0 and not rows[1].isfinite()


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_tv_knows_no_slope_where_a_side_is_masked_whole(side, reduction):
    s, t, _ = make(2, 12)
    (s.detach() if side == "student" else t)[0] = -torch.inf
    loss = kdlab.distillation_loss(s, t, divergence="tv", reduction=reduction).sum()
    loss.backward()
    assert loss.isnan() and s.grad[0].isnan().all() and s.grad[1].isfinite().all()


def test_a_teacher_of_which_the_top_k_are_known():
    """The README's line: KL(p̃ ‖ q), p̃ the teacher's distribution over these classes alone."""
    s, t, _ = make(6, 50, torch.float32)
    s.requires_grad_()
    values, classes = (t.log_softmax(-1) + 3).topk(8)  # a constant is no matter
    known = torch.full_like(s, -math.inf).scatter(-1, classes, values)
    loss = kdlab.distillation_loss(s, known, beta=0.5)
    exact = s.detach().double().requires_grad_()
    p = (0.5 * values.double()).softmax(-1)
    log_q = (0.5 * exact).log_softmax(-1).gather(-1, classes)
    exact_loss = 4 * (p * (p.log() - log_q)).sum(-1).mean()
    assert error(loss, exact_loss) < 1e-6
    (grad,) = torch.autograd.grad(loss, s)
    assert error(grad, torch.autograd.grad(exact_loss, exact)[0]) < 1e-6


def test_num_classes_cuts_padding():
    s, t, _ = make(3, 12)
    expected = kdlab.distillation_loss(s[:, :10].detach(), t[:, :10])
    padded = torch.cat((t, torch.full((3, 4), torch.nan)), -1)
    loss = kdlab.distillation_loss(s, padded, num_classes=10)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert (s.grad[:, 10:] == 0).all()


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("widths", [(12, 10), (10, 12), (12, 15)], ids=str)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_num_classes_is_what_slices_give_without_a_copy(divergence, widths, reduction):
    """Autograd makes another gradient of full width for a slice, and copies there."""
    z, z_t = (torch.randn(2, 3, width, requires_grad=True) for width in widths)
    labels = torch.randint(0, 10, (2, 3))
    inputs = (z, z_t) if reduction == "none" else (z,)  # whose gradient forward makes
    given = dict(labels=labels, label_weight=0.3, divergence=divergence, reduction=reduction)
    teacher = z_t if reduction == "none" else z_t.detach()
    loss = kdlab.distillation_loss(z, teacher, num_classes=10, **given).sum()
    cut = kdlab.distillation_loss(z[..., :10], teacher[..., :10], **given).sum()
    assert torch.equal(loss, cut) and "SliceBackward0" not in history(loss)
    assert widths[0] == 10 or "SliceBackward0" in history(cut)
    for once_more in (True, False):
        found = torch.autograd.grad(loss, inputs, retain_graph=once_more)
        expected = torch.autograd.grad(cut, inputs, retain_graph=once_more)
        assert all(map(torch.equal, found, expected))


def history(x):
    """The names of the graph's nodes behind x."""
    nodes, names = [x.grad_fn], set()
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        nodes += [before for before, _ in node.next_functions if before is not None]
    return names


def test_strides_and_inputs_untouched():
    s, t, _ = make(5, 33)
    expected = kdlab.distillation_loss(s, t)
    wide = torch.randn(5, 70)
    wide[:, :33] = t
    before = wide.clone(), s.detach().clone()
    torch.testing.assert_close(kdlab.distillation_loss(s, wide[:, :33]), expected)
    torch.testing.assert_close(kdlab.distillation_loss(s.T.contiguous().T, t), expected)
    assert torch.equal(wide, before[0]) and torch.equal(s, before[1])


def test_backward_twice_is_the_same_twice():
    s, t, y = make(4, 20)
    loss = kdlab.distillation_loss(s, t, y, label_weight=0.5)
    (first,) = torch.autograd.grad(loss, s, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, s)
    assert torch.equal(first, kept) and torch.equal(first, second)


def test_second_derivative_is_an_error():
    s, t, _ = make(2, 5)
    (grad,) = torch.autograd.grad(kdlab.distillation_loss(s, t), s, create_graph=True)
    with pytest.raises(RuntimeError, match="kdlab"):
        grad.sum().backward()


def test_mixed_dtypes_compute_in_float32():
    s, t, _ = make(3, 50, torch.bfloat16)
    t = torch.randn(3, 50)
    loss = kdlab.distillation_loss(s, t)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, kdlab.distillation_loss(s.float(), t))


S, T, Y = torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)
NESTED = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


@pytest.mark.parametrize(
    ("name", "error_type", "arguments"),
    [
        ("student_logits", TypeError, dict(student_logits=[1.0])),
        ("student_logits", TypeError, dict(student_logits=S.long())),
        ("student_logits", ValueError, dict(student_logits=torch.tensor(1.0))),
        ("student_logits", ValueError, dict(student_logits=torch.zeros(2, 0))),
        ("teacher_logits", TypeError, dict(teacher_logits=None)),
        ("teacher_logits", ValueError, dict(teacher_logits=torch.zeros(2, 5))),
        ("teacher_logits", ValueError, dict(teacher_logits=torch.zeros(4))),
        ("beta", ValueError, dict(beta=0.0)),
        ("beta", ValueError, dict(beta=-1)),
        ("beta", ValueError, dict(beta=float("nan"))),
        ("beta", TypeError, dict(beta="1")),
        ("beta", ValueError, dict(beta=torch.ones(3))),
        ("beta", TypeError, dict(beta=torch.ones(2, dtype=torch.int64))),
        ("divergence", ValueError, dict(divergence="KL")),
        ("mix", ValueError, dict(mix=1.5)),
        ("label_weight", ValueError, dict(label_weight=-0.1, labels=Y)),
        ("label_weight", TypeError, dict(label_weight="half", labels=Y)),
        ("labels", ValueError, dict(label_weight=0.5)),
        ("labels", ValueError, dict(label_weight=0.5, labels=Y + 4)),
        ("labels", ValueError, dict(label_weight=0.5, labels=Y - 1)),
        ("labels", ValueError, dict(labels=Y[:1])),
        ("labels", TypeError, dict(labels=Y.float())),
        ("mask", TypeError, dict(mask=Y)),
        ("mask", ValueError, dict(mask=torch.ones(3, dtype=torch.bool))),
        ("num_classes", ValueError, dict(num_classes=5)),
        ("num_classes", ValueError, dict(num_classes=0)),
        ("num_classes", TypeError, dict(num_classes=2.0)),
        ("reduction", ValueError, dict(reduction="batchmean")),
        ("denominator", ValueError, dict(denominator=0.0)),
        ("denominator", ValueError, dict(denominator=2.0, reduction="sum")),
        ("denominator", ValueError, dict(denominator=torch.ones(2))),
        ("backend", ValueError, dict(backend="cuda")),
        ("student_logits", TypeError, dict(student_logits=S.to_sparse())),
        ("student_logits", TypeError, dict(student_logits=NESTED)),
        ("mask", TypeError, dict(mask=torch.tensor([0.5, 1.0]))),
        ("labels", TypeError, dict(labels=torch.eye(2))),
        ("beta", ValueError, dict(beta=1e39)),
        ("beta", ValueError, dict(beta=10**400)),
        ("beta", ValueError, dict(beta=1e-25)),
        ("ignore_index", TypeError, dict(ignore_index=None, labels=Y)),
        ("temperature_scaling", TypeError, dict(temperature_scaling="no")),
        ("labels", TypeError, dict(labels=[0, 0])),
        ("denominator", TypeError, dict(denominator=torch.tensor(2 + 3j))),
        ("denominator", ValueError, dict(denominator=float("inf"))),
        ("mix", ValueError, dict(mix=0, divergence="js")),
        ("mix", ValueError, dict(mix=1.0, divergence="js")),
    ],
)
def test_errors_name_the_argument(name, error_type, arguments):
    arguments = dict(student_logits=S, teacher_logits=T) | arguments
    with pytest.raises(error_type, match=f"^{name}: "):
        kdlab.distillation_loss(**arguments)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (dict(mask=Y), "mask.bool()"),
        (dict(reduction="batchmean"), "'mean' divides by the rows"),
        (dict(labels=Y - 1), "or ignore_index"),
        (dict(student_logits=torch.zeros(2, 4, 3), teacher_logits=torch.zeros(2, 4, 3), labels=Y),
         "classes are the logits' last dimension"),
        (dict(student_logits=SimpleNamespace(logits=S)), "SimpleNamespace (pass its .logits)"),
    ],
)  # fmt: skip
def test_errors_say_what_was_probably_meant(arguments, hint):
    with pytest.raises((TypeError, ValueError), match=re.escape(hint)):
        kdlab.distillation_loss(**dict(student_logits=S, teacher_logits=T) | arguments)


def test_numbers_of_numpy_are_numbers():
    numbers = dict(beta=0.5, label_weight=0.25, num_classes=3, ignore_index=1, denominator=2)
    kind = {float: np.float32, int: np.int64}
    same = {name: kind[type(number)](number) for name, number in numbers.items()}
    torch.testing.assert_close(*(kdlab.distillation_loss(S, T, Y, **x) for x in (numbers, same)))


def test_labels_and_masks_of_any_stride():
    s, t = torch.randn(4, 9), torch.randn(4, 9)
    y, every_second = torch.arange(8)[::2], torch.tensor([True] * 3 + [False] * 5)[::2]
    for m in (every_second, torch.tensor([True]).expand(4), None):
        dense = y.clone(), None if m is None else m.clone(memory_format=torch.contiguous_format)
        found = [
            kdlab.distillation_loss(s, t, labels, mask=mask, label_weight=0.5, reduction="none")
            for labels, mask in ((y, m), dense)
        ]
        assert torch.equal(*found)


@pytest.mark.parametrize("mix", [1e-8, 1 - 1e-8])
def test_a_mixture_that_is_nearly_one_side(mix):
    s, t = torch.tensor([[-200.0, 0.0]]), torch.zeros(1, 2)
    exact, _ = oracle(s, t, divergence="js", mix=mix)
    loss = kdlab.distillation_loss(s, t, divergence="js", mix=mix, reduction="none")
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("version", [None, "7.1"])
def test_the_kernels_are_for_nvidias_gpus(version, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", version)
    assert default_backend(torch.device("cuda")) == ("triton" if version is None else "torch")


def test_the_interpreter_must_be_asked_for_before_triton_is_imported(monkeypatch):
    pytest.importorskip("triton.language")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(ValueError, match=r"^backend: .*set before Triton is imported"):
        kdlab.distillation_loss(S, T, backend="triton")


def test_infinities_on_both_sides_are_no_agreement():
    z = torch.tensor([[torch.inf, 0.0], [-torch.inf, 0.0]])
    loss = kdlab.distillation_loss(z, z, divergence="mse_logits", reduction="none")
    assert loss.isnan().tolist() == [True, False] and loss[1] == 0


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "js", "mse", "tv"])
def test_a_beta_tensor_that_is_not_positive_gives_nan(divergence):
    """And so does its gradient, or a temperature that is learnt would stay there unseen; but for
    rows that don't count."""
    z, z_t = torch.randn(2, 4, 9)
    beta = torch.tensor([0.0, 1.0, torch.inf, -1.0], requires_grad=True)
    keep = torch.tensor([True, True, True, False])
    given = dict(divergence=divergence, reduction="none")
    loss = kdlab.distillation_loss(z, z_t, beta=beta, mask=keep, **given)
    loss.sum().backward()
    assert loss.isnan().tolist() == beta.grad.isnan().tolist() == [True, False, True, False]
    assert loss[3] == beta.grad[3] == 0 != beta.grad[1]


def test_whether_triton_is_there_is_not_asked_again(monkeypatch):
    """torch.compile cannot trace the question (PyTorch 2.11)."""

    def find_spec(name):
        raise AssertionError(name)

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    assert default_backend(torch.device("cpu")) == "torch"
    with pytest.raises(ValueError, match="backend"):  # on the CPU: Triton is no question
        kdlab.distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), backend="triton")


@pytest.mark.parametrize("found", [None, (3, 3)])
def test_without_a_triton_that_will_do_pytorch_computes(found, monkeypatch):
    monkeypatch.setattr(functional, "_TRITON", found)
    monkeypatch.setattr(functional, "_HAS_TRITON", False)
    assert default_backend(torch.device("cuda")) == "torch"
    with pytest.raises(ValueError, match=r"^backend: .* 3.4 or newer; found (none|3.3)$"):
        kdlab.distillation_loss(S, T, backend="triton")


def test_the_oldest_triton_is_what_the_project_asks_for():
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f"triton>={'.'.join(map(str, functional.OLDEST_TRITON))};" in project
    assert functional.triton_version() is None or functional._HAS_TRITON


def test_soften():
    z = torch.randn(3, 5, dtype=torch.bfloat16)
    assert kdlab.soften(z, 0.5).dtype == torch.float32
    torch.testing.assert_close(kdlab.soften(z, 0.5), torch.softmax(0.5 * z.float(), -1))
    rows = kdlab.soften(z, torch.tensor([0.1, 1.0, 2.0]))
    torch.testing.assert_close(rows[2], torch.softmax(2 * z[2].float(), -1))
    with pytest.raises(ValueError, match=r"^beta: "):
        kdlab.soften(z, 0.0)
    large = kdlab.soften(torch.tensor([1e38, 0.0]), 10.0)  # β z is no float32
    assert torch.equal(large, torch.tensor([1.0, 0.0]))


def test_module_is_the_function():
    s, t, y = make(3, 5)
    module = kdlab.DistillationLoss(beta=0.5, label_weight=0.2)
    expected = kdlab.distillation_loss(s, t, y, beta=0.5, label_weight=0.2)
    torch.testing.assert_close(module(s, t, y), expected)
    with pytest.raises(ValueError, match=r"^beta: "):
        kdlab.DistillationLoss(beta=0)
    with pytest.raises(TypeError, match="betta"):
        kdlab.DistillationLoss(betta=1)
    for name, value in (("num_classes", -3), ("backend", "cuda"), ("mix", 2.0)):
        with pytest.raises(ValueError, match=f"^{name}: "):
            kdlab.DistillationLoss(**{name: value})
    module.beta = 0.25  # as a schedule does
    torch.testing.assert_close(
        module(s, t, y), kdlab.distillation_loss(s, t, y, beta=0.25, label_weight=0.2)
    )


def test_a_modules_temperature_is_learnt_kept_and_moved():
    s, t, _ = make(3, 5)
    module = kdlab.DistillationLoss(beta=torch.nn.Parameter(torch.tensor(0.5)))
    (beta,) = module.parameters()
    module(s, t).backward()
    assert beta.grad is not None and repr(module) == "DistillationLoss(beta=tensor of shape ())"
    other = kdlab.DistillationLoss(beta=torch.nn.Parameter(torch.tensor(1.0)))
    other.load_state_dict(module.state_dict())
    assert other.beta == 0.5
    assert repr(pickle.loads(pickle.dumps(kdlab.DistillationLoss()))) == "DistillationLoss()"
    fixed = kdlab.DistillationLoss(beta=torch.tensor(0.5))
    assert not list(fixed.parameters()) and fixed.double().beta.dtype == torch.float64


@pytest.mark.parametrize("beta", [4.0, 100.0])
@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "js", "tv"])
def test_a_side_that_is_sure_gets_nothing_at_its_class(divergence, beta):
    """q (y − Σ q y) is 0 where q is 1; two roundings of y leave their difference, times β."""
    sure, other = torch.tensor([[10.3, 0.0, 0.1]]), torch.tensor([[0.2, 9.7, 0.0]])
    s, t = (other, sure) if divergence == "kl" else (sure, other)
    z, z_t = s.clone().requires_grad_(), t.clone().requires_grad_()
    given = dict(divergence=divergence, beta=beta, temperature_scaling=False)
    kdlab.distillation_loss(z, z_t, **given).backward()
    assert abs((z_t if divergence == "kl" else z).grad[0, 0]) <= 1e-15
