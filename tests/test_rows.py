"""The PyTorch implementation where its chunks and its threads matter."""

import pytest
import torch

from kdlab import rows
from tests.oracle import DIVERGENCES, error, oracle


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_chunks_and_threads_do_not_show(divergence, crowded, several_chunks):
    s, t, y = torch.randn(10, 40), torch.randn(10, 40), torch.randint(0, 40, (10,))
    settings, beta = rows.Settings(divergence, 0.3, 0.5, True), torch.linspace(0.3, 2, 10)
    beta.requires_grad_()  # a thread starts with gradients on, and must not record them
    given, every = (s, t, y, None, beta, settings, torch.tensor(0.5)), (True, True, True)

    def both():
        found = rows.forward(*given)
        return *found, *rows.backward(torch.ones(10), *given[:5], found[1], settings, every)

    whole = both()
    several_chunks(crowded)
    parts = both()
    assert not any(x.requires_grad for x in parts)
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
