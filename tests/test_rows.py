"""The PyTorch implementation where its chunks matter."""

import torch

from kdlab import rows
from tests.oracle import error, oracle


def test_chunks_do_not_show(monkeypatch):
    s, t, y = torch.randn(9, 13), torch.randn(9, 13), torch.randint(0, 13, (9,))
    settings = rows.Settings("kl", 0.5, 0.5, True)
    scale = torch.tensor(0.5)
    whole = rows.forward(s, t, y, None, torch.ones(9), settings, scale)
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 26)
    threads = torch.get_num_threads()
    monkeypatch.setattr(rows, "THREADED_ELEMENTS", 1)
    parts = rows.forward(s, t, y, None, torch.ones(9), settings, scale)
    torch.testing.assert_close(parts, whole)
    assert torch.get_num_threads() == threads


def test_large_rows_agree_with_the_oracle():
    s, t = 4 * torch.randn(3, 200_000), 4 * torch.randn(3, 200_000)
    settings, one = rows.Settings("kl", 0.5, 0.0, True), torch.ones(3)
    loss, stats, at_once = rows.forward(s, t, None, None, one, settings, torch.ones(()))
    grad, _, _ = rows.backward(one, s, t, None, None, one, stats, settings)
    torch.testing.assert_close(at_once, grad)
    exact, exact_grad = oracle(s, t)
    assert error(loss, exact) < 1e-6
    assert error(grad, exact_grad) < 1e-6
