"""The PyTorch implementation where its chunks and its threads matter."""

import threading

import pytest
import torch

from kdlab import rows
from tests.oracle import DIVERGENCES, error, oracle


@pytest.fixture
def three_threads(monkeypatch):
    """Small problems in threads too, whatever OMP_NUM_THREADS says; who called set_num_threads."""
    before, callers = torch.get_num_threads(), []
    set_num_threads = torch.set_num_threads

    def watched(n):
        callers.append(threading.current_thread())
        set_num_threads(n)

    set_num_threads(3)
    monkeypatch.setattr(torch, "set_num_threads", watched)
    monkeypatch.setattr(rows, "THREADED_ELEMENTS", 1)
    yield callers
    set_num_threads(before)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_threads_do_not_show(three_threads, divergence):
    s, t, y = torch.randn(10, 40), torch.randn(10, 40), torch.randint(0, 40, (10,))
    settings, beta = rows.Settings(divergence, 0.3, 0.5, True), torch.linspace(0.3, 2, 10)
    beta.requires_grad_()  # a thread starts with gradients on, and must not record them
    given = (s, t, y, None, beta, settings, torch.tensor(0.5))
    parts = rows.forward(*given)
    every = (True, True, True)
    grads = rows.backward(torch.ones(10), *given[:5], parts[1], settings, every)
    # the caller, once a call, and at least one thread of its own
    assert threading.current_thread() in three_threads and len(set(three_threads)) > 1
    assert torch.get_num_threads() == 3
    rows.THREADED_ELEMENTS = 1 << 20
    with torch.no_grad():
        whole = rows.forward(*given)
    assert not any(x.requires_grad for x in parts)
    torch.testing.assert_close(parts, whole)
    alone = rows.backward(torch.ones(10), *given[:5], whole[1], settings, every)
    torch.testing.assert_close(grads, alone)


def test_an_error_in_a_thread_arrives_and_the_threads_are_given_back(three_threads):
    def fails(i, j, buffers):
        raise ValueError(f"rows {i} to {j}")

    with pytest.raises(ValueError, match="rows 0 to"):
        rows._for_each_chunk(fails, 6, 5, torch.zeros(1))
    assert torch.get_num_threads() == 3


def test_chunks_do_not_show(monkeypatch):
    s, t, y = torch.randn(9, 13), torch.randn(9, 13), torch.randint(0, 13, (9,))
    settings = rows.Settings("kl", 0.5, 0.5, True)
    scale = torch.tensor(0.5)
    whole = rows.forward(s, t, y, None, torch.ones(9), settings, scale)
    monkeypatch.setattr(rows, "CHUNK_ELEMENTS", 26)
    parts = rows.forward(s, t, y, None, torch.ones(9), settings, scale)
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
