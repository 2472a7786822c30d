"""A few rows at a time over the processor's cores, so that what they need stays in its caches.

PyTorch splits each operation over its threads, and waits at its end for all of them. Nothing is
faster where the cores are free. Where other processes hold one of them, each of these waits lasts
until the system takes it away from them: milliseconds in place of microseconds, hundreds of times
in one loss. So every chunk is timed. When one has taken far too long, the rest goes to threads that
take chunks of their own, with one core each, and wait for each other only once; and so does what
comes in the next seconds.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

# Elements of a chunk for each core: 2¹⁸ float32 values are 1 MB, long enough to hide what Python
# does between two operations, short enough for a handful of buffers to stay in cache; of 2¹⁶ to
# 2¹⁹ the fastest on two cores, but for mse_logits, which has few buffers. No buffer has more than
# BUFFERED_ELEMENTS: with seven, 7 · 4 bytes · 2²¹ = 59 MB.
CORE_ELEMENTS = 1 << 18
BUFFERED_ELEMENTS = 1 << 21
# For a GPU without Triton: seven buffers of 256 MB at most.
GPU_ELEMENTS = 1 << 26
# With one core to each thread: twice as many, since only one of them at a time can run Python.
THREAD_ELEMENTS = 1 << 19
# Below this many elements in all, starting threads costs more than they save.
THREADED_ELEMENTS = 1 << 20

# An element takes one core 1 to 16 ns where the cores are free. To wait for one that is not takes
# some 4 ms, at every one of the 20 to 40 operations of a chunk; one such wait is still an accident.
# To be wrong about it, either way, costs some time and nothing else.
SLOW_NS, SLOW_MS = 40, 20
CROWDED_SECONDS = 2.0
_crowded_until = 0.0

Work = Callable[[int, int, Tensor], None]


@torch.no_grad()
def for_each_chunk(work: Work, rows: int, classes: int, buffers: int, like: Tensor) -> None:
    """work(i, j, memory) for chunks of rows [i, j), in any order, with memory (buffers, j − i,
    classes) that is typed and placed like `like`, and used again for other chunks."""
    shared = like.device.type == "cpu" and torch.get_num_threads() > 1
    start = 0
    if not (shared and crowded()):
        start = _all_cores(work, rows, classes, buffers, like, watch=shared)
    if start < rows:
        _one_core_each(work, start, rows, classes, buffers, like)


def crowded() -> bool:
    """Whether other processes were seen, within the last seconds, to hold cores wanted here."""
    return time.monotonic() < _crowded_until


def _all_cores(work: Work, rows: int, classes: int, buffers: int, like: Tensor, watch: bool) -> int:
    """Chunk after chunk, each by all of PyTorch's threads; the row at which a slow one ended it."""
    global _crowded_until
    on_cpu = like.device.type == "cpu"
    cores = torch.get_num_threads()
    elements = min(cores * CORE_ELEMENTS, BUFFERED_ELEMENTS) if on_cpu else GPU_ELEMENTS
    step = max(1, min(elements // classes, rows))
    memory = like.new_empty(buffers, step, classes)
    for start in range(0, rows, step):
        end = min(start + step, rows)
        began = time.perf_counter()
        work(start, end, memory[:, : end - start])
        seconds = time.perf_counter() - began
        share = (end - start) * classes / cores
        if watch and seconds > 1e-9 * SLOW_NS * share + 1e-3 * SLOW_MS:
            _crowded_until = time.monotonic() + CROWDED_SECONDS
            return end
    return rows


def _one_core_each(
    work: Work, first: int, rows: int, classes: int, buffers: int, like: Tensor
) -> None:
    """The same for rows [first, rows) in threads, of which the caller's is one."""
    cores = torch.get_num_threads()
    enough = (rows - first) * classes >= THREADED_ELEMENTS
    threads = min(cores, rows - first) if enough else 1
    elements = min(THREAD_ELEMENTS, BUFFERED_ELEMENTS // threads)
    step = max(1, min(elements // classes, -(-(rows - first) // threads)))
    starts = deque(range(first, rows, step))  # whoever is free takes the next
    # From the caller's heap: that of a thread goes back to the system with the thread.
    mine, *others = like.new_empty(threads, buffers, step, classes)

    inference = torch.is_inference_mode_enabled()

    def run(memory: Tensor) -> None:
        _take_one_core(cores)
        # A new thread starts in neither of its caller's modes.
        with torch.inference_mode(inference), torch.no_grad():
            while starts:
                try:
                    start = starts.popleft()
                except IndexError:  # another thread has just taken the last one
                    return
                end = min(start + step, rows)
                work(start, end, memory[:, : end - start])

    try:
        with ThreadPoolExecutor(max(1, len(others))) as pool:
            running = [pool.submit(run, theirs) for theirs in others]
            run(mine)
            for thread in running:
                thread.result()
    finally:
        torch.set_num_threads(cores)


def _take_one_core(cores: int) -> None:
    """One thread for each operation of the thread that calls. PyTorch takes that for a wish of
    threads that start later as well, which another one takes back."""
    torch.get_num_threads()  # what a thread has not asked for, it would set itself at its first sum
    torch.set_num_threads(1)
    other = threading.Thread(target=torch.set_num_threads, args=(cores,))
    other.start()
    other.join()
