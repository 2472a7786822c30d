"""Long work that leaves the kernel free: taken in slices of its event loop, between other cells."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from kdlab.metrics import parameter_count

SMALL = 100_000


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread for PyTorch's operators, for what is small and runs while a page is drawn.

    It gains little from a second one, and where the cores are shared, by a browser say, every
    operator would wait until its threads have all had their turn.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(model: nn.Module) -> AbstractContextManager[None]:
    """One thread while a small model (100,000 parameters) trains."""
    return single_threaded() if parameter_count(model) <= SMALL else nullcontext()


class Slices:
    """Runs an iterator for its effects, 20 ms at a time, on the asyncio event loop.

    A notebook's kernel answers cells and controls on that loop, so they wait for the end of a slice
    at most; while a cell computes, the work waits. One step of the iterator is never cut in two.
    There is no thread: nothing changes the models behind a cell's back while it runs.

    on_slice() is called after each slice, on_end(error) once when the work is over: error is None,
    or the exception that the work (or on_slice) raised. Neither is called after `stop`.
    """

    SECONDS = 0.02
    PAUSE = 0.001

    def __init__(
        self, on_slice: Callable[[], None], on_end: Callable[[Exception | None], None]
    ) -> None:
        self._on_slice, self._on_end = on_slice, on_end
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None

    def start(self, work: Iterator, model: nn.Module) -> None:
        """Begin to train models like this one; RuntimeError where no event loop runs (a script)."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "start() works in slices of a running event loop, as a notebook has one, and here "
                "there is none; run() works at once and returns when it is done"
            ) from None
        self.stop()
        self._task = loop.create_task(self._drive(work, model))

    def stop(self) -> None:
        """End now, between two steps of the work; what it has done stays done."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _drive(self, work: Iterator, model: nn.Module) -> None:
        me, error = self._task, None
        try:
            while self._slice(work, model):
                self._on_slice()
                if self._task is not me:
                    return
                await asyncio.sleep(self.PAUSE)
        except asyncio.CancelledError:
            # By `stop`, or by whoever shuts the loop down.
            if self._task is me:
                self._task = None
            raise
        except Exception as raised:
            error = raised
        self._task = None
        self._on_end(error)

    def _slice(self, work: Iterator, model: nn.Module) -> bool:
        end = time.perf_counter() + self.SECONDS
        with threads_for(model):
            # True at the first step that ends late enough; False when there are no more steps.
            return any(time.perf_counter() >= end for _ in work)
