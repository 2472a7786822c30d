"""Loss and gradient in one launch: no standstill and the same bits, in any order of its programs.

The interpreter runs one program after the other. Here each is a thread, of which one runs at a
time; before and after every atomic operation another may go on, drawn at random from those that
have started (now and then one is slow). As on a GPU, only so many are there at a time, and the next
starts where one has ended.
"""

import functools
import inspect
import os
import random
import threading

import pytest
import torch
import triton.language as tl  # noqa: F401  (the interpreter looks for it beside the kernel)

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from kdlab.kernels import launch, lookback
from triton.runtime.interpreter import (
    InterpretedFunction,
    InterpreterBuilder,
    interpreter_builder,
)

import kdlab

TURNS = 20_000  # more than any schedule here needs to end


class Interleaved:
    """Programs as threads, `resident` at a time, of which the one that holds the baton runs."""

    def __init__(self, program, count, resident, seed):
        self.program, self.waiting, self.resident = program, count, resident
        self.rng, self.turns = random.Random(seed), 0
        self.running: dict[threading.Thread, threading.Event] = {}
        self.speed: dict[threading.Thread, float] = {}
        self.done, self.failure = threading.Event(), None

    def run(self):
        self.fill()
        self.next().set()
        self.done.wait()
        if self.failure:
            raise self.failure

    def fill(self):
        while self.waiting and len(self.running) < self.resident:
            self.waiting -= 1
            baton = threading.Event()
            thread = threading.Thread(target=self.work, args=(baton,), daemon=True)
            self.running[thread] = baton
            self.speed[thread] = 1.0
            thread.start()

    def next(self):
        speeds = [self.speed[thread] for thread in self.running]
        return self.rng.choices(list(self.running.values()), speeds)[0]

    def work(self, baton):
        baton.wait()
        baton.clear()
        try:
            if self.failure is None:
                self.program()
        except BaseException as failure:
            self.failure = self.failure or failure
        del self.running[threading.current_thread()]
        self.fill()
        if self.running:
            self.next().set()
        else:
            self.done.set()

    def switch(self):
        """Called by the program that runs: perhaps another goes on in its place."""
        self.turns += 1
        if self.failure or self.turns > TURNS:
            raise self.failure or TimeoutError("programs wait for each other")
        own = self.running[threading.current_thread()]
        self.speed[threading.current_thread()] = 10 ** self.rng.uniform(-2, 0)
        self.next().set()
        own.wait()
        own.clear()


@pytest.fixture
def interleaved(monkeypatch):
    """interleaved(resident, seed): from now on, programs of the look-back kernel run so."""
    kernel = lookback.lookback_kernel.rewrite()
    atomic = InterpreterBuilder.create_atomic_rmw
    schedules = []

    def choose(resident, seed):
        begun = []

        @functools.wraps(kernel)
        def program(**arguments):
            begun.append(arguments)
            count = interpreter_builder.grid_dim[0]
            if len(begun) == count:  # the interpreter has called for all of them: run them
                begun.clear()
                schedules.append(Interleaved(lambda: kernel(**arguments), count, resident, seed))
                schedules[-1].run()

        program.__signature__ = inspect.signature(kernel)
        monkeypatch.setitem(InterpretedFunction.rewritten_fn, lookback.lookback_kernel.fn, program)

        def switching(self, *args):
            schedules[-1].switch()
            old = atomic(self, *args)
            schedules[-1].switch()
            return old

        monkeypatch.setattr(InterpreterBuilder, "create_atomic_rmw", switching)
        return schedules

    return choose


def loss_and_gradient(divergence):
    torch.manual_seed(0)
    s, t = torch.randn(2, 3, 300).unbind()  # of five parts a row
    options = dict(divergence=divergence, beta=0.5, mask=torch.tensor([True, False, True]))
    loss = kdlab.distillation_loss(s.requires_grad_(), t, backend="triton", **options)
    return loss.detach(), torch.autograd.grad(loss, s)[0]


@pytest.fixture
def nan_where_nothing_was_written():
    """Memory that a program reads too early must not hold what an earlier run left there."""
    torch.use_deterministic_algorithms(True)  # fills what `empty` gives
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_where_nothing_was_written")
@pytest.mark.parametrize("more", [0, 4], ids=["least lag", "more lag"])
@pytest.mark.parametrize("resident", [1, 2, 5, 100])
@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_any_order_ends_with_the_same_bits(divergence, resident, more, interleaved, monkeypatch):
    monkeypatch.setattr(launch, "MAX_BLOCK", 64)
    monkeypatch.setattr(launch, "PART_TILES", 1)
    monkeypatch.setattr(launch, "programs_that_fill", lambda device: 2 * more or 1)
    interleaved(1, 0)
    in_turn = loss_and_gradient(divergence)
    for seed in range(2):
        schedules = interleaved(resident, seed)
        value, gradient = loss_and_gradient(divergence)
        assert torch.equal(value, in_turn[0]) and torch.equal(gradient, in_turn[1])
        assert schedules[-1].turns > 2 * 3 * 5  # a number and an arrival for each part, at least
