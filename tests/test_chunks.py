"""Rows in chunks: each exactly once, by whichever threads, and what happens on crowded cores."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlab import chunks

BUFFERS, CLASSES = 3, 5
LIKE = torch.zeros((), dtype=torch.float64)


def run(rows, before=lambda: None):
    """Every chunk that came, as (i, j, thread)."""
    came = []

    def work(i, j, memory):
        before()
        assert memory.shape == (BUFFERS, j - i, CLASSES) and memory.dtype == LIKE.dtype
        assert not torch.is_grad_enabled()
        mine = memory.copy_(torch.full((), float(i))).clone()
        time.sleep(1e-3)
        assert torch.equal(memory, mine)  # no two threads share memory
        came.append((i, j, threading.current_thread()))

    chunks.for_each_chunk(work, rows, CLASSES, BUFFERS, LIKE)
    return sorted(came, key=lambda chunk: chunk[0])


def check(came, rows):
    """Each row once."""
    ends = [0, *(j for _, j, _ in came)]
    assert [i for i, _, _ in came] == ends[:-1] and ends[-1] == rows


def assert_one_thread():
    assert torch.get_num_threads() == 1


def until_two_have_come():
    """For `run`: threads with a core each wait for a second, which the system may start late."""
    came, two = set(), threading.Event()

    def wait():
        if torch.get_num_threads() > 1:  # a chunk that all cores share
            return
        came.add(threading.current_thread())
        if len(came) > 1:
            two.set()
        assert two.wait(60), "no second thread came"

    return wait


def test_free_cores_share_each_chunk(several_chunks):
    several_chunks(crowded=False)
    came = run(20)
    check(came, 20)
    assert len(came) > 2
    assert {thread for *_, thread in came} == {threading.current_thread()}


@pytest.mark.parametrize("rows", [1, 2, 3, 20])
def test_on_crowded_cores_each_thread_has_its_own_chunks(several_chunks, rows):
    several_chunks(crowded=True)
    came = run(rows, until_two_have_come() if rows == 20 else assert_one_thread)
    check(came, rows)
    assert len({thread for *_, thread in came}) <= 3
    assert torch.get_num_threads() == 3


def test_threads_are_in_the_mode_of_who_calls(several_chunks):
    several_chunks(crowded=True)
    with torch.inference_mode():
        check(run(20, until_two_have_come()), 20)  # writes to memory made here: else it fails


def test_other_threads_of_the_process_keep_their_cores(several_chunks):
    several_chunks(crowded=True)
    meet, seen = until_two_have_come(), []

    def before():
        meet()
        torch.ones(1 << 16).sum()  # in parts, if this thread had more than one core
        with ThreadPoolExecutor(1) as pool:
            theirs = pool.submit(torch.get_num_threads).result()
        seen.append((torch.get_num_threads(), theirs))

    run(20, before)
    assert {mine for mine, _ in seen} == {1}
    assert (1, 3) in seen  # but for the moment in which another thread takes its core


def test_a_slow_chunk_sends_the_rest_and_the_next_to_threads(several_chunks, monkeypatch):
    several_chunks(crowded=False)
    monkeypatch.setattr(chunks, "SLOW_NS", 0)
    monkeypatch.setattr(chunks, "SLOW_MS", 0)
    came = run(20, until_two_have_come())
    check(came, 20)
    assert len({thread for *_, thread in came}) > 1
    assert chunks.crowded()
    before = []
    check(run(20, lambda: before.append(torch.get_num_threads())), 20)
    assert set(before) == {1}
    # Two seconds later PyTorch's threads get another chance.
    monkeypatch.setattr(chunks, "_crowded_until", chunks._crowded_until - 2)
    assert not chunks.crowded()


def test_little_work_on_crowded_cores_starts_no_thread(several_chunks, monkeypatch):
    several_chunks(crowded=True)
    monkeypatch.setattr(chunks, "THREADED_ELEMENTS", 1 << 20)
    came = run(20, assert_one_thread)
    check(came, 20)
    assert {thread for *_, thread in came} == {threading.current_thread()}
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("crowded", [False, True])
def test_an_error_arrives_and_the_threads_are_given_back(several_chunks, crowded):
    several_chunks(crowded)

    def fails(i, j, memory):
        raise ValueError(f"rows {i} to {j}")

    with pytest.raises(ValueError, match=r"rows \d to"):
        chunks.for_each_chunk(fails, 6, CLASSES, BUFFERS, LIKE)
    assert torch.get_num_threads() == 3


@given(rows=st.integers(0, 50), classes=st.integers(1, 50), crowded=st.booleans())
def test_every_row_once(rows, classes, crowded):
    count = torch.zeros(rows, dtype=torch.int64)
    threads = torch.get_num_threads()

    def work(i, j, memory):
        count[i:j] += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CORE_ELEMENTS", 40)
        patch.setattr(chunks, "THREAD_ELEMENTS", 30)
        patch.setattr(chunks, "THREADED_ELEMENTS", 100)
        patch.setattr(chunks, "crowded", lambda: crowded)
        torch.set_num_threads(3)  # with one, nothing would be crowded
        try:
            chunks.for_each_chunk(work, rows, classes, BUFFERS, LIKE)
        finally:
            torch.set_num_threads(threads)
    assert (count == 1).all()
