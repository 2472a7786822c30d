"""The definitions themselves, against other people's implementations and against limits."""

import pytest
import torch
from torch.nn import functional as F

from kdlab import reference


@pytest.fixture
def logits():
    return torch.randn(6, 11, dtype=torch.float64), 3 * torch.randn(6, 11, dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_kl_is_pytorchs_kl_div(logits, beta):
    s, t = logits
    theirs = F.kl_div(
        F.log_softmax(beta * s, -1), F.log_softmax(beta * t, -1), reduction="none", log_target=True
    )
    torch.testing.assert_close(reference.kl(s, t, beta), theirs.sum(-1))


def test_kl_is_cross_entropy_less_the_teachers_entropy(logits):
    s, t = logits
    p = torch.softmax(t, -1)
    entropy = torch.distributions.Categorical(p).entropy()
    torch.testing.assert_close(
        reference.kl(s, t), F.cross_entropy(s, p, reduction="none") - entropy
    )


def test_l_teach_is_v_times_mse_loss(logits):
    s, t = logits
    torch.testing.assert_close(reference.l_teach(t, s), F.mse_loss(s, t) * s.shape[-1])
    torch.testing.assert_close(reference.l_teach(t, s), reference.mse_logits(s, t).mean())


def test_cross_entropy_is_pytorchs(logits):
    s, _ = logits
    y = torch.randint(0, 11, (6,))
    theirs = F.cross_entropy(s, y, reduction="none")
    torch.testing.assert_close(reference.cross_entropy(s, y), theirs)


def test_infinite_temperature_limit_is_mse_on_centred_logits(logits):
    s, t = logits
    d = t - s
    limit = (d - d.mean(-1, keepdim=True)).square().sum(-1) / (2 * s.shape[-1])
    errors = [(reference.kl(s, t, beta) / beta**2 - limit).abs().max() for beta in (1e-2, 1e-3)]
    assert errors[1] < errors[0] / 5  # the error falls like β
    assert errors[1] < 1e-2 * limit.max()


def test_t_squared_multiplies_the_soft_term_only(logits):
    s, t = logits
    y = torch.randint(0, 11, (6,))
    got = reference.distillation_rows(s, t, y, beta=0.5, label_weight=0.3)
    expected = 0.7 * 4 * reference.kl(s, t, 0.5) + 0.3 * reference.cross_entropy(s, y)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "mse", "tv"])
def test_a_class_that_both_mask_leaves_the_gradients_finite(divergence):
    s = torch.tensor([[1.0, 2.0, -torch.inf]], requires_grad=True)
    t = torch.tensor([[0.5, 3.0, -torch.inf]], requires_grad=True)
    rows = reference.distillation_rows(s, t, divergence=divergence)
    for grad in torch.autograd.grad(rows.sum(), (s, t)):
        assert grad.isfinite().all() and grad[0, 2] == 0


def test_a_hard_term_needs_labels():
    with pytest.raises(ValueError, match=r"^labels: got None; label_weight=0.5"):
        reference.distillation_rows(torch.zeros(1, 2), torch.zeros(1, 2), label_weight=0.5)
