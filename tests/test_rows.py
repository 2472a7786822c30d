"""The PyTorch implementation where its chunks matter."""

import pytest
import torch

from kdlab import rows
from tests.oracle import DIVERGENCES, error, oracle


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_chunks_do_not_show(divergence, monkeypatch):
    s, t, y = torch.randn(10, 40), torch.randn(10, 40), torch.randint(0, 40, (10,))
    settings, beta = rows.Settings(divergence, 0.3, 0.5, True), torch.linspace(0.3, 2, 10)
    keep = torch.arange(10) != 4
    beta.requires_grad_()  # nothing of a chunk may be recorded
    given = (s, t, y, keep, beta, settings)
    every = (True, True, True)

    def both():
        forward = rows.forward(*given, torch.tensor(0.5))
        _, stats, _ = rows.forward(*given)
        return forward, rows.backward(torch.ones(10), *given[:5], stats, settings, every)

    whole = both()
    monkeypatch.setattr(rows, "MOST_ELEMENTS", 130)  # three rows, and one in the last chunk
    parts = both()
    assert not any(x.requires_grad for x in (*parts[0], *parts[1]))
    torch.testing.assert_close(parts, whole)


def test_large_rows_agree_with_the_oracle():
    s, t = 4 * torch.randn(3, 200_000), 4 * torch.randn(3, 200_000)
    settings, one = rows.Settings("kl", 0.5, 0.0, True), torch.ones(3)
    loss, stats, at_once = rows.forward(s, t, None, None, one, settings, torch.ones(()))
    grad, _, _ = rows.backward(one, s, t, None, None, one, stats, settings)
    torch.testing.assert_close(at_once, grad)
    exact, exact_grad = oracle(s, t)
    assert error(loss, exact) < 1e-6
    assert error(grad, exact_grad) < 1e-6


@pytest.mark.parametrize("mix", [1e-7, 1 - 1e-7])
def test_js_is_finite_at_the_ends_of_mix(mix):
    s, t = 30 * torch.randn(50, 300), 30 * torch.randn(50, 300)  # classes with p = 0 and with q = 0
    one = torch.ones(50)
    loss, stats, _ = rows.forward(s, t, None, None, one, rows.Settings("js", mix, 0.0, True))
    grads = rows.backward(one, s, t, None, None, one, stats, rows.Settings("js", mix, 0.0, True))
    assert loss.isfinite().all() and grads[0].isfinite().all()
