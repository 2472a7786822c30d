"""Measure and write `results/<device>-<date>.json`: `python -m benchmarks.run`, or `make bench`."""

import argparse
import datetime
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import checkout  # noqa: F401  (before kdlab.kernels is looked for)
from benchmarks.accuracy import Exact, near_student
from benchmarks.cases import CPU, GPU, GPU_SHORT, QUICK, Case
from benchmarks.measure import Inputs, Run, cache_bytes, copy_run, interleaved, peak_extra_bytes
from benchmarks.peers import PEERS, TEMPERATURE, Loss, not_run
from kdlab import reference

RESULTS = Path(__file__).parent / "results"
MODES = ("forward", "full")


def quartiles(samples: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high, "min": min(samples), "n": len(samples)}


def forward_run(loss: Loss, inputs: Inputs) -> Run:
    """The value alone, as in evaluation: nothing is kept for a backward pass."""

    def run(i: int) -> object:
        with torch.no_grad():
            return loss(inputs.student[i % inputs.count], inputs.teacher[i % inputs.count])

    return run


def full_run(loss: Loss, inputs: Inputs) -> Run:
    """The value and the gradient for the student's logits, as in a training step."""

    def run(i: int) -> object:
        student = inputs.student[i % inputs.count]
        value = loss(student, inputs.teacher[i % inputs.count])
        return value, torch.autograd.grad(value, student)

    return run


def attempt(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """What the call returns, or why it failed: one peer that breaks must not end the run."""
    try:
        return call(), None
    except Exception as error:
        words = str(error).strip().splitlines() or [""]
        return None, f"failed: {type(error).__name__}: {words[0][:200]}"


def measure(
    case: Case, device: torch.device, rounds: int, seconds: float, names: Iterable[str] = PEERS
) -> dict[str, Any]:
    """Everything about one case; `seconds` bounds the timed part of each mode."""
    torch._dynamo.reset()  # each case is compiled for its own shape
    inputs = Inputs(case, device)
    losses: dict[str, Loss] = {}
    status: dict[str, str] = {}
    for name, make in PEERS.items():
        reason = not_run(name, case.divergence, case.dtype, device.type)
        if reason is None and name not in names:
            reason = "not run: not asked for"
        if reason is None:
            made, reason = attempt(lambda make=make: make(case.divergence))
        if reason is None:
            losses[name] = made
        else:
            status[name] = reason

    result: dict[str, Any] = vars(case) | {"sets": inputs.count, "modes": {}}
    for mode, build in zip(MODES, (forward_run, full_run), strict=True):
        runs = {"copy": copy_run(case, mode, device)}
        first, peak = {}, {}
        for name, loss in list(losses.items()):
            run = build(loss, inputs)
            began = time.perf_counter()
            _, reason = attempt(lambda run=run: run(0))
            first[name] = time.perf_counter() - began
            if reason is None:
                peak[name], reason = attempt(
                    lambda run=run: peak_extra_bytes(lambda: run(1), device)
                )
            if reason is None:
                runs[name] = run
            else:
                del losses[name]
                status[name] = reason
        times = interleaved(runs, device, rounds, seconds)
        result["modes"][mode] = summary(case, mode, times, peak, first)
        del runs
    result["not_run"] = status
    result["error"] = errors(case, inputs, losses)
    return result


def summary(
    case: Case,
    mode: str,
    times: dict[str, list[float]],
    peak: dict[str, int | None],
    first: dict[str, float],
) -> dict[str, Any]:
    """Times, memory, and what both mean in bytes, with this mode's own copy as the yardstick."""
    floor = case.floor_bytes(mode)
    copy = quartiles(times["copy"])
    bandwidth = floor / copy["median"]
    peers = {}
    for name in times.keys() - {"copy"}:
        seconds = quartiles(times[name])
        against = times.get("eager", times[name])
        peers[name] = {
            "seconds": seconds,
            "first_call_seconds": first[name],
            "peak_extra_bytes": peak[name],
            # What a copy would have moved in the same time, an element.
            "bytes_per_element": seconds["median"] * bandwidth / case.elements,
            "share_of_copy": copy["median"] / seconds["median"],
            "ratio_to_eager": quartiles([a / b for a, b in zip(times[name], against, strict=True)]),
        }
    return {
        "floor_bytes_per_element": floor / case.elements,
        "copy": {"seconds": copy, "bytes_per_second": bandwidth},
        "peers": {name: peers[name] for name in PEERS if name in peers},
    }


def errors(case: Case, inputs: Inputs, losses: dict[str, Loss]) -> dict[str, Any]:
    """The errors of every peer that ran, in both regimes."""
    found: dict[str, Any] = {}
    students = {"random": inputs.student[0], "near": near_student(inputs.teacher[0])}
    for regime, student in students.items():
        exact = Exact(case, student, inputs.teacher[0])
        found[regime] = {"storage": {"loss": 0.0, "gradient": exact.rounding()}}
        for name, loss in losses.items():
            error, reason = attempt(lambda loss=loss, exact=exact: exact.error(loss))
            found[regime][name] = error if reason is None else {"failed": reason}
    return found


def environment(device: torch.device) -> dict[str, Any]:
    """The machine and the versions."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine = {"name": properties.name, "memory_bytes": properties.total_memory}
    else:
        info = Path("/proc/cpuinfo")
        found = re.search(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else None
        name = found.group(1).strip() if found else platform.processor() or platform.machine()
        machine = {"name": name, "threads": torch.get_num_threads()}
    packages = ("torch", "triton", "liger-kernel", "numpy")
    versions = {"python": platform.python_version()} | {p: installed(p) for p in packages}
    if device.type == "cuda":
        versions["cuda"] = torch.version.cuda
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
    )
    return {
        "device": {"type": device.type, "cache_bytes": cache_bytes(device)} | machine,
        "versions": versions,
        "commit": commit.stdout.strip() or None,
    }


def cores() -> int:
    """How many the process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def load() -> list[float] | None:
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--short", action="store_true", help="the most important cases only")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", type=int, help="on the CPU; default: as many as there are")
    parser.add_argument("--rounds", type=int, default=30, help="samples of each peer, at most")
    parser.add_argument("--seconds", type=float, default=1200, help="start no case after this")
    options = parser.parse_args(arguments)

    kind = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
    if kind == "cpu":
        torch.set_num_threads(options.threads or cores())
    random.seed(0)
    torch.manual_seed(0)
    if options.quick:
        cases, rounds, seconds = QUICK, 3, 0.5
    else:
        short = GPU_SHORT if kind == "cuda" else CPU[:1]
        cases = short if options.short else (GPU if kind == "cuda" else CPU)
        rounds, seconds = max(3, options.rounds), 6.0

    now = datetime.datetime.now(datetime.timezone.utc)
    record: dict[str, Any] = {"format": 1, "date": now.isoformat(timespec="seconds")}
    record |= environment(device)
    record["settings"] = {
        "temperature": TEMPERATURE,
        "rounds": rounds,
        "seconds_a_mode": seconds,
        "quick": options.quick,
        "short": options.short,
    }
    record |= {"load": {"before": load()}, "left_out": [], "cases": []}
    slug = re.sub(r"[^a-z0-9]+", "-", f"{kind} {record['device']['name']}".lower()).strip("-")
    path = options.out / f"{slug}-{now:%Y-%m-%d}{'-quick' if options.quick else ''}.json"
    options.out.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    for case in cases:
        if time.perf_counter() - began > options.seconds:
            record["left_out"].append(f"{case}: out of time")
            continue
        if not hasattr(reference, case.divergence):
            record["left_out"].append(f"{case}: not there yet")
            continue
        print(case, flush=True)
        result, reason = attempt(
            lambda case=case: measure(case, device, rounds, seconds, options.peers)
        )
        if reason is not None:
            record["left_out"].append(f"{case}: {reason}")
            print("   ", reason)
        else:
            record["cases"].append(result)
            for mode, found in result["modes"].items():
                cells = [f"copy {found['copy']['seconds']['median'] * 1e3:.2f} ms"]
                for name, peer in found["peers"].items():
                    cells.append(f"{name} {peer['seconds']['median'] * 1e3:.2f} ms")
                print(f"    {mode:8}", ", ".join(cells), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        record["load"]["after"] = load()
        record["took_seconds"] = round(time.perf_counter() - began, 1)
        write(path, record)  # after each case: a run that is cut short keeps what it has
    print(f"wrote {path}")
    return 0 if record["cases"] else 1


def write(path: Path, record: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
