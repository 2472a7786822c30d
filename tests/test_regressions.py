"""What other distillation losses got wrong, each with the naive version beside it.

Every test shows first that the naive way fails, so that it would notice if ours became naive.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import kdlab
from kdlab import reference
from tests.oracle import DIVERGENCES, error, oracle, peer


def naive_kl(s, t):
    return (t.softmax(-1) * (t.softmax(-1).log() - s.log_softmax(-1))).sum(-1)


def test_zero_times_log_zero():
    s, t = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -200.0]])  # p underflows to 0
    assert naive_kl(s, t).isnan().all()
    torch.testing.assert_close(
        kdlab.distillation_loss(s, t, reduction="none"), reference.kl(s, t), rtol=1e-5, atol=0
    )


def test_the_log_of_a_mixture_that_underflowed():
    s, t = torch.tensor([[0.0, -300.0]]).half(), torch.tensor([[0.0, -300.0]]).half()
    m = 0.5 * (s.softmax(-1) + t.softmax(-1))
    assert F.kl_div(m.log(), s.softmax(-1).log(), reduction="none", log_target=True).isnan().any()
    s.requires_grad_()
    loss = kdlab.distillation_loss(s, t, divergence="js")
    loss.backward()
    assert loss == 0 and (s.grad == 0).all()


def test_kl_is_not_the_cross_entropy():
    s, t = torch.randn(4, 9), torch.randn(4, 9)
    cross_entropy = F.cross_entropy(s, t.softmax(-1))
    ours = kdlab.distillation_loss(s, t)
    entropy = torch.special.entr(t.softmax(-1)).sum(-1).mean()
    assert not torch.isclose(cross_entropy, ours)
    torch.testing.assert_close(ours, cross_entropy - entropy)
    assert kdlab.distillation_loss(t, t) == 0


@pytest.mark.parametrize("divergence", [d for d in DIVERGENCES if d != "mse_logits"])
def test_t_squared_exactly_once(divergence):
    s, t = torch.randn(4, 9), torch.randn(4, 9)
    once = kdlab.distillation_loss(s, t, beta=0.5, divergence=divergence)
    never = kdlab.distillation_loss(
        s, t, beta=0.5, divergence=divergence, temperature_scaling=False
    )
    torch.testing.assert_close(once, 4 * never)


def test_mean_over_rows_not_over_elements_nor_over_a_padded_batch():
    s, t = torch.randn(4, 9), torch.randn(4, 9)
    mask = torch.tensor([True, True, True, False])
    rows = reference.kl(s, t)
    assert not torch.isclose(rows.mean(), rows.mean() / 9)  # "mean" of kl_div divides by numel
    torch.testing.assert_close(kdlab.distillation_loss(s, t, mask=mask), rows[:3].mean())


def test_unequal_micro_batches_add_up_to_the_batch():
    s, t = torch.randn(12, 7, requires_grad=True), torch.randn(12, 7)
    mask = torch.rand(12) < 0.6
    whole = kdlab.distillation_loss(s, t, mask=mask)
    (exact,) = torch.autograd.grad(whole, s)
    n = mask.sum()
    parts = [(slice(0, 3), 3), (slice(3, 8), 5), (slice(8, 12), 4)]
    naive = sum(kdlab.distillation_loss(s[i], t[i], mask=mask[i]) for i, _ in parts) / 3
    assert not torch.isclose(naive, whole)
    total = sum(kdlab.distillation_loss(s[i], t[i], mask=mask[i], denominator=n) for i, _ in parts)
    (grad,) = torch.autograd.grad(total, s)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(grad, exact)


def test_a_denominator_may_require_grad():
    s, t = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5)
    n = torch.tensor(2.0, requires_grad=True)
    loss = kdlab.distillation_loss(s, t, denominator=n)
    loss.backward()
    torch.testing.assert_close(n.grad, -loss.detach() / 2)


@pytest.mark.parametrize("upstream", [1.0, 3.0, 0.0])
def test_logits_are_not_written_to_and_backward_runs_twice(upstream):
    s, t = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    before = s.detach().clone()
    loss = upstream * kdlab.distillation_loss(s, t, beta=0.5)
    (first,) = torch.autograd.grad(loss, s, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, s, retain_graph=True)
    (third,) = torch.autograd.grad(2 * loss, s)
    assert torch.equal(s, before) and torch.equal(first, kept)
    torch.testing.assert_close(second, first)
    torch.testing.assert_close(third, 2 * first)


def test_two_losses_from_one_graph():
    s, t = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    loss = kdlab.distillation_loss(s, t)
    (both,) = torch.autograd.grad(loss + loss.square(), s)
    (once,) = torch.autograd.grad(kdlab.distillation_loss(s, t), s)
    torch.testing.assert_close(both, once * (1 + 2 * loss.detach()))


def test_minus_infinity_padding_of_a_vocabulary():
    s = torch.randn(3, 12)
    t = torch.cat((torch.randn(3, 10), torch.full((3, 2), -torch.inf)), -1)
    s[:, 10:] = -torch.inf
    assert naive_kl(s, t).isnan().all()
    for divergence in DIVERGENCES:
        z, z_t = s.clone().requires_grad_(), t.clone().requires_grad_()
        beta = torch.tensor(0.5, requires_grad=True)
        loss = kdlab.distillation_loss(z, z_t, divergence=divergence, beta=beta)
        loss.backward()
        cut = kdlab.distillation_loss(z, z_t, divergence=divergence, beta=0.5, num_classes=10)
        torch.testing.assert_close(loss, cut)
        for grad in (z.grad, z_t.grad):
            assert grad.isfinite().all() and (grad[:, 10:] == 0).all()
        assert beta.grad.isfinite()


def test_float16_gradients_survive_a_loss_scale():
    """Rounded to float16 before the loss scale multiplies it, a gradient of 1e-8 would be 0."""
    s = (4 * torch.randn(512, 64)).half().requires_grad_()
    t = (4 * torch.randn(512, 64)).half()
    (plain,) = torch.autograd.grad(kdlab.distillation_loss(s, t), s)
    (scaled,) = torch.autograd.grad(65536.0 * kdlab.distillation_loss(s, t), s)
    _, exact = oracle(s, t)
    assert (plain == 0).sum() > 2 * (scaled == 0).sum()
    assert error(scaled.double() / 65536 * 512, exact) < 2**-11


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("distance", [1.0, 1e-1, 1e-2])
def test_bf16_gradients_as_the_student_converges(divergence, distance):
    """Probabilities in bf16 lose p − q; here the only rounding is that of the result, 2⁻⁹."""
    t = (4 * torch.randn(16, 500)).bfloat16()
    s = (t.float() + distance * torch.randn(16, 500)).bfloat16()
    _, exact = oracle(s, t, divergence=divergence)
    z = s.clone().requires_grad_()
    kdlab.distillation_loss(z, t, divergence=divergence, reduction="sum").backward()
    if divergence == "kl" and distance < 1:
        naive = s.softmax(-1) - t.softmax(-1)
        assert error(naive, exact) > 0.03
    assert error(z.grad, exact) < 2**-8


@pytest.mark.parametrize("moved", ["student", "teacher"])
@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0, -100.0])
@pytest.mark.parametrize("distance", [1e-1, 1e-2])
def test_no_sign_flips_for_a_rounding(distance, offset, moved):
    """tv's slope is sgn(q − p), and where p and q have been rounded before they are subtracted, it
    is that of the rounding for many classes."""
    t = 3 * torch.randn(64, 4000)
    s = t + distance * torch.randn(64, 4000)
    s, t = (s + offset, t) if moved == "student" else (s, t + offset)
    log_q, log_p = ((0.5 * z.double()).log_softmax(-1) for z in (s, t))
    clear = (log_q - log_p).abs().amin(-1) > 3e-8  # no class is as good as a tie
    assert clear.sum() > 50
    s, t = s[clear], t[clear]
    _, exact = oracle(s, t, divergence="tv", beta=0.5)
    _, naive = peer(s, t, divergence="tv", beta=0.5)
    for reduction in ("sum", "none"):  # gradient in forward, in backward
        z = s.clone().requires_grad_()
        options = dict(beta=0.5, divergence="tv", reduction=reduction)
        kdlab.distillation_loss(z, t, **options).sum().backward()
        assert error(z.grad, exact) < min(1e-5, error(naive, exact) + 1e-6)
    z = t.clone().requires_grad_()
    kdlab.distillation_loss(s, z, beta=0.5, divergence="tv", reduction="sum").backward()
    _, exact = oracle(t, s, divergence="tv", beta=0.5)  # tv is symmetric
    assert error(z.grad, exact) < 1e-5
    assert distance > 0.01 or offset or error(naive, exact) > 1e-4


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_under_autocast_it_is_still_float32(divergence):
    s, t = torch.randn(4, 50, requires_grad=True), torch.randn(4, 50)
    expected = kdlab.distillation_loss(s, t, divergence=divergence)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = kdlab.distillation_loss(s, t, divergence=divergence)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, s)[0] for x in (got, expected)))


def test_a_teacher_that_ran_in_inference_mode():
    s = torch.randn(4, 9, requires_grad=True)
    with torch.inference_mode():
        t, y, mask = torch.randn(4, 9), torch.arange(4), torch.tensor([True, True, False, True])
    with pytest.raises(RuntimeError, match="Inference tensors"):  # what saving its logits says
        torch.nn.functional.mse_loss(s, t).backward()
    for reduction in ("mean", "none"):
        found = [
            torch.autograd.grad(
                kdlab.distillation_loss(
                    s, teacher, labels, mask=keep, label_weight=0.5, reduction=reduction
                ).sum(),
                s,
            )[0]
            for teacher, labels, keep in ((t, y, mask), (t.clone(), y.clone(), mask.clone()))
        ]
        assert torch.equal(*found)


def test_a_number_of_rows_that_is_zero_where_none_counts():
    s, t = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    nothing, n = torch.zeros(4, dtype=torch.bool), torch.tensor(0)
    assert (0 * (1 / n)).isnan()
    loss = kdlab.distillation_loss(s, t, mask=nothing, denominator=n)
    loss.backward()
    assert loss == 0 and (s.grad == 0).all()
    assert not kdlab.distillation_loss(s, t, denominator=n).isfinite()
    negative = torch.tensor(-3.0, requires_grad=True)
    loss = kdlab.distillation_loss(s, t, denominator=negative)
    loss.backward()
    assert loss.isnan() and negative.grad.isnan()


def test_checkpointing_keeps_no_gradient_until_backward():
    t = torch.randn(4, 9)
    s = torch.randn(4, 9, requires_grad=True)

    def loss(s):
        made = kdlab.distillation_loss(s, t)
        kept.append(getattr(made.grad_fn, "gradient", None))
        return made

    kept: list = []
    loss(s)
    checkpoint(loss, s, use_reentrant=False).backward()
    at_once, *under_checkpoint = kept
    assert at_once.shape == s.shape and set(under_checkpoint) == {None}
    torch.testing.assert_close(s.grad, at_once)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward_with_a_factor_is_the_same_twice(dtype):
    s, t = torch.randn(8, 99, dtype=dtype, requires_grad=True), torch.randn(8, 99, dtype=dtype)
    loss = 0.3 * kdlab.distillation_loss(s, t)
    first, second = (torch.autograd.grad(loss, s, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_many_gradients_at_once():
    s, t = torch.randn(4, 9, requires_grad=True), torch.randn(4, 9)
    factors = torch.tensor([1.0, -2.0])
    for _ in range(2):
        loss = kdlab.distillation_loss(s, t)
        (both,) = torch.autograd.grad(loss, s, factors, is_grads_batched=True, retain_graph=True)
        (again,) = torch.autograd.grad(loss, s, factors, is_grads_batched=True, retain_graph=True)
        (once,) = torch.autograd.grad(loss, s)
        torch.testing.assert_close(both, factors[:, None, None] * once)
        torch.testing.assert_close(again, both)


@pytest.mark.parametrize("side", ["student", "teacher", "beta", "labels"])
def test_forward_mode_is_a_clear_error(side):
    s, t, beta = torch.randn(4, 9), torch.randn(4, 9), torch.tensor(0.5)
    given = {"student": s, "teacher": t, "beta": beta}
    if side == "labels":
        with pytest.raises(RuntimeError, match=r"^labels: .*kdlab.reference"):
            torch.vmap(lambda y: kdlab.distillation_loss(s, t, y))(torch.zeros(2, 4).long())
        return

    def loss(x):
        now = given | {side: x}
        return kdlab.distillation_loss(now["student"], now["teacher"], beta=now["beta"])

    x = given[side]
    name = side if side == "beta" else f"{side}_logits"
    with pytest.raises(RuntimeError, match=rf"^{name}: .*kdlab.reference"):
        torch.func.jvp(loss, (x,), (torch.ones_like(x),))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=rf"^{name}: with a tangent"):
        loss(forward_ad.make_dual(x, torch.ones_like(x)))


def test_functional_transforms_are_a_clear_error():
    s, t = torch.randn(4, 9), torch.randn(4, 9)
    with pytest.raises(RuntimeError, match=r"^student_logits: .*kdlab.reference"):
        torch.func.grad(lambda z: kdlab.distillation_loss(z, t))(s)
    with pytest.raises(RuntimeError, match=r"^teacher_logits: .*kdlab.reference"):
        torch.vmap(lambda z: kdlab.distillation_loss(s[0], z))(t)
    expected = torch.func.grad(lambda z: reference.kl(z, t).mean())(s)  # what the message says
    z = s.clone().requires_grad_()
    (got,) = torch.autograd.grad(kdlab.distillation_loss(z, t), z)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_activation_checkpointing(reentrant):
    layer, t = torch.nn.Linear(5, 9), torch.randn(4, 9)
    x = torch.randn(4, 5, requires_grad=True)

    def step(x):
        return kdlab.distillation_loss(layer(x), t, beta=0.5)

    (expected,) = torch.autograd.grad(step(x), x)
    checkpoint(step, x, use_reentrant=reentrant).backward()
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("needs", ["student", "all"])
def test_compiled_graphs_are_right(divergence, needs):
    s, t, y = torch.randn(4, 9), torch.randn(4, 9), torch.arange(4)
    beta = torch.tensor(0.5)
    torch._dynamo.reset()
    leaves = [s] if needs == "student" else [s, t, beta]
    for leaf in leaves:
        leaf.requires_grad_()

    def step(s, t, y, beta):
        return kdlab.distillation_loss(
            s, t, y, beta=beta, divergence=divergence, label_weight=0.3, ignore_index=1
        )

    expected = step(s, t, y, beta)
    grads = torch.autograd.grad(expected, leaves, allow_unused=True)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(s, t, y, beta)
    torch.testing.assert_close(compiled, expected)
    for got, wanted in zip(
        torch.autograd.grad(compiled, leaves, allow_unused=True), grads, strict=True
    ):
        if wanted is None or got is None:
            assert (wanted is None or (wanted == 0).all()) and (got is None or (got == 0).all())
        else:
            torch.testing.assert_close(got, wanted)


def test_a_learnt_temperature_calibrates_the_teacher():
    """Guo et al. 2017, section 4.2: one β, found by gradient, on overconfident logits."""
    z = torch.randn(400, 10)
    labels = torch.distributions.Categorical(logits=z).sample()
    log_beta = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_beta], max_iter=50)
    one_hot = torch.full((400, 10), -torch.inf).scatter(1, labels[:, None], 0.0)

    def closure():
        optimizer.zero_grad()
        loss = kdlab.distillation_loss(
            4 * z, one_hot, beta=log_beta.exp(), temperature_scaling=False
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    assert math.isclose(log_beta.exp().item(), 0.25, rel_tol=0.15)


def test_a_loss_scale_that_is_infinite_leaves_rows_alone_that_dont_count():
    s, t = torch.randn(3, 9, requires_grad=True), torch.randn(3, 9)
    keep = torch.tensor([True, False, True])
    scale = torch.tensor(torch.inf)
    assert (scale * torch.zeros(1)).isnan()
    (grad,) = torch.autograd.grad(kdlab.distillation_loss(s, t, mask=keep), s, scale)
    assert (grad[1] == 0).all() and not grad[keep].isfinite().any()


def test_temperatures_at_the_ends_of_what_is_allowed():
    """β³ is no float32 there."""
    beta = torch.tensor([1e-17, 1e15, 1e-19, 1e19], requires_grad=True)
    assert (beta**3)[0] == 0 and (beta**3)[1].isinf()
    z = torch.randn(1, 5).expand(4, 5)
    loss = kdlab.distillation_loss(z, z, beta=beta, reduction="none")
    loss.sum().backward()
    assert loss[:2].tolist() == beta.grad[:2].tolist() == [0, 0]
    assert loss[2:].isnan().all() and beta.grad[2:].isnan().all()


def test_numbers_of_other_kinds():
    s, t = torch.randn(3, 9), torch.randn(3, 9)
    labels = torch.tensor([0, 2, 1])
    assert float(1 / np.float16(3)) != 1 / 3
    for three in (np.float16(3), Fraction(3), np.int64(3)):
        found = kdlab.distillation_loss(s, t, denominator=three)
        assert torch.equal(found, kdlab.distillation_loss(s, t, denominator=3))
    assert (labels.int() == 2**32 + 2).any()
    for nothing in (torch.iinfo(torch.int64).min, 2**32 + 2):  # as an int32 it is 0, or 2
        found = kdlab.distillation_loss(s, t, labels.int(), ignore_index=nothing)
        assert torch.equal(found, kdlab.distillation_loss(s, t, labels))
    with pytest.raises(ValueError, match=r"^ignore_index: "):
        kdlab.distillation_loss(s, t, labels, ignore_index=2**70)
    with pytest.raises(ValueError, match=r"^reduction: "):
        kdlab.distillation_loss(s, t, reduction=np.zeros(3))
