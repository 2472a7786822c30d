"""The PyTorch implementation where its chunks matter."""

import torch

from kdlab import rows
from tests.oracle import error, oracle


def test_chunks_do_not_show(monkeypatch):
    s, t, y = torch.randn(9, 13), torch.randn(9, 13), torch.randint(0, 13, (9,))
    whole = rows.forward(s, t, y, None, torch.ones(9), "kl", 0.5, True)
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 26)
    parts = rows.forward(s, t, y, None, torch.ones(9), "kl", 0.5, True)
    torch.testing.assert_close(parts, whole)


def test_large_rows_agree_with_the_oracle():
    s, t = 4 * torch.randn(3, 200_000), 4 * torch.randn(3, 200_000)
    loss, stats = rows.forward(s, t, None, None, torch.ones(3), "kl", 0.0, True)
    grad = rows.backward(torch.ones(3), s, t, None, None, torch.ones(3), stats, "kl", 0.0, True)
    exact, exact_grad = oracle(s, t)
    assert error(loss, exact) < 1e-6
    assert error(grad, exact_grad) < 1e-6
