"""How it is measured: inputs past the cache, interleaved times, peak memory, a copy as yardstick.

Every peer runs once a round, in an order shuffled each round, so that a machine that slows down
slows all of them: times may drift, ratios within a round hold. Inputs are random and rotate through
enough sets that none is still in the last-level cache when its turn comes again.
"""

import ctypes
import gc
import math
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import DTYPES, Case

Run = Callable[[int], object]  # does its work on the i-th set of inputs
SHORTEST_SAMPLE = (
    2e-3  # seconds of work in one sample on the CPU, so that the clock's grain is lost
)
AHEAD_CYCLES = 6_000_000  # GPU cycles that a sample waits, so that the host is ahead of the device


def cache_bytes(device: torch.device) -> int:
    """The size of the last cache before memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    levels = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    sizes = [int(level.read_text().strip().rstrip("K")) * 1024 for level in levels]
    return max(sizes, default=64 << 20)


class Inputs:
    """Student and teacher logits, N(0, 3²), in as many sets as it takes to outgrow the cache."""

    def __init__(self, case: Case, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(0)
        bytes_a_set = 2 * case.elements * case.bytes_per_value
        self.count = min(1024, max(2, math.ceil(2 * cache_bytes(device) / bytes_a_set)))
        shape = (self.count, case.rows, case.classes)

        def logits() -> Tensor:
            out = torch.empty(shape, dtype=DTYPES[case.dtype], device=device)
            return out.normal_(0, 3, generator=generator)

        self.teacher = list(logits())
        self.student = [s.detach().requires_grad_() for s in logits()]


def copy_run(case: Case, mode: str, device: torch.device) -> Run:
    """A copy that moves the floor's bytes: half of them read, half written."""
    half = case.floor_bytes(mode) // 2
    places = min(1024, max(1, math.ceil(2 * cache_bytes(device) / (2 * half))))
    # Copied in the logits' dtype: random bytes would do as well, a page of zeros would not.
    count = half // case.bytes_per_value
    source = torch.empty(places, count, dtype=DTYPES[case.dtype], device=device).normal_()
    target = source.clone()
    return lambda i: target[i % places].copy_(source[i % places])


def interleaved(
    runs: dict[str, Run], device: torch.device, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of one call of each run, one sample a round: `rounds`, or fewer in `seconds`."""
    order, clock = list(runs), random.Random(0)
    repeats = dict.fromkeys(runs, 1)
    if device.type == "cpu":
        for name, run in runs.items():
            took = _cpu_sample(run, 0, 1)
            repeats[name] = max(1, math.ceil(SHORTEST_SAMPLE / max(took, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    turn = 1
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - began > seconds:
            break
        clock.shuffle(order)
        for name in order:
            if device.type == "cuda":
                sample = _cuda_sample(runs[name], turn)
            else:
                sample = _cpu_sample(runs[name], turn, repeats[name])
            times[name].append(sample)
            turn += repeats[name]
    return times


def _cpu_sample(run: Run, turn: int, repeats: int) -> float:
    began = time.perf_counter()
    for i in range(repeats):
        run(turn + i)
    return (time.perf_counter() - began) / repeats


def _cuda_sample(run: Run, turn: int) -> float:
    """Device time between two events. The wait in front lets the host queue the call meanwhile."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(AHEAD_CYCLES)
    start.record()
    run(turn)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def peak_extra_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """Most memory held during a call beyond what was held before; None where it can't be seen.

    CUDA: PyTorch's allocator. CPU: the process's peak resident size, which Linux lets one reset, so
    that everything counts, whoever allocated it; memory that malloc kept from before is given back
    first.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
        del result
        return peak - before
    if sys.platform != "linux":
        return None
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM")
    del result
    return max(0, peak - before)


def _status(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match.group(1)) * 1024
