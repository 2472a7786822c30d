"""Time the kernels' tile shapes on a GPU: `python -m benchmarks.tune`, one table a case.

`kernels/tiles.py` chooses tiles from what the compiler says of them (registers, spills,
instructions). Which of those that don't spill is fastest, only a GPU can say: this times them
beside each other and beside a copy of the bytes that each must move, and writes
`results/tiles-<device>-<date>.json`. What it finds belongs into `whole_tile`, `sweep_tile`,
`PART_TILES`, `team_tiles` and, for the gradient's place, `functional.gradient_in_forward`.

    sweep       the value alone, row by row: warps and 128-bit loads a thread
    teams       value and gradient in one launch, by teams: tiles that a member holds, its warps
    gradient    the same by look-back: warps, loads, tiles a part, and the lag
    backward    the value, and the gradient in a backward pass: that pass's tile
    shared      few rows: programs a multiprocessor that share them

--dry-run goes through all of it at tiny sizes; with TRITON_INTERPRET=1, on a CPU, all but teams,
whose members wait for each other.
"""

import argparse
import datetime
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import checkout  # noqa: F401  (before kdlab.kernels is looked for)

# isort: split
from kdlab.kernels import tiles
from kdlab.kernels.tiles import Tile

from benchmarks.cases import DTYPES, Case
from benchmarks.measure import Inputs, Run, copy_run, interleaved
from benchmarks.run import RESULTS, attempt, environment, quartiles, write
from kdlab import distillation_loss, functional

CASES = (
    ("teams sweep gradient backward", Case("kl", "bf16", 16384, 32000)),
    ("teams sweep gradient backward", Case("kl", "bf16", 8192, 128256)),
    ("shared", Case("kl", "bf16", 8, 262144)),
    ("shared", Case("kl", "bf16", 64, 128256)),
    ("teams sweep gradient backward", Case("kl", "fp32", 8192, 32000)),
    ("sweep backward", Case("js", "bf16", 8192, 32000)),
    ("sweep gradient backward", Case("kl", "bf16", 8192, 50257)),
)
# Just more classes than one tile holds.
TINY = tuple((kinds, Case(case.divergence, case.dtype, 2, 8200)) for kinds, case in CASES[2:6])


def choices(kind: str, dtype: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A name for each shape, and what is to stand in `tiles` for it."""
    vector = 16 // DTYPES[dtype].itemsize
    if kind == "shared":
        for programs in (1, 2, 4, 8, 16):
            yield (
                f"{programs} a multiprocessor",
                {"programs_that_fill": partial(on_each_multiprocessor, programs)},
            )
        return
    if kind == "teams":
        yield "look-back", {"team_tiles": no_teams}
        for warps, n in product((2, 4, 8), (4, 5, 6, 8)):
            shape = {"TEAM_WARPS": warps, "TEAM_PROGRAMS": 16 // warps}
            shape |= {"team_tiles": lambda *_, n=n: (n,)}
            yield f"{n} tiles, {warps} warps, {16 // warps} programs", shape
        return
    place = "whole_tile" if kind == "backward" else "sweep_tile"
    for warps, loads in product((4, 8, 16, 32), (1, 2)):
        tile = Tile(32 * warps * loads * vector, vector, warps)
        name = f"{tile.block}, {warps} warps"
        shape = {place: lambda *_, tile=tile: tile}
        if kind != "gradient":
            yield name, shape
            continue
        for n in (2, 4, 8):
            yield f"{name}, {n} a part", shape | {"PART_TILES": n, "team_tiles": no_teams}
    if kind == "gradient":  # the lag follows from it
        for programs in (1, 2, 8, 16, 32):
            name = f"lag of {programs / 8:g} a multiprocessor"
            lag = {"programs_that_fill": partial(on_each_multiprocessor, programs)}
            yield name, lag | {"team_tiles": no_teams}


def no_teams(*_: object) -> tuple[int, ...]:
    return ()


def on_each_multiprocessor(programs: int, device: torch.device) -> int:
    if device.type != "cuda":
        return programs
    return programs * torch.cuda.get_device_properties(device).multi_processor_count


def timed(kind: str, case: Case, inputs: Inputs, answers: dict[str, Any]) -> Run:
    """One call of the loss, or of loss and gradient, with these tiles."""

    def rule(student: Tensor, *_: object) -> bool:
        return kind in ("gradient", "teams")

    def run(i: int) -> object:
        student, teacher = inputs.student[i % inputs.count], inputs.teacher[i % inputs.count]
        with ExitStack() as stack:
            for name, answer in answers.items():
                stack.enter_context(patch.object(tiles, name, answer))
            stack.enter_context(patch.object(functional, "gradient_in_forward", rule))
            if kind in ("sweep", "shared"):
                student = student.detach()
            value = distillation_loss(
                student, teacher, beta=0.5, divergence=case.divergence, backend="triton"
            )
            return value, student.requires_grad and torch.autograd.grad(value, student)

    return run


def tune(kind: str, case: Case, device: torch.device, rounds: int, seconds: float) -> dict:
    """Seconds of every choice, of what the launcher chooses, and of a copy."""
    inputs = Inputs(case, device)
    mode = "forward" if kind in ("sweep", "shared") else "full"
    runs = {"copy": copy_run(case, mode, device)}
    failed: dict[str, str | None] = {}
    for name, answers in [("as it is", {}), *choices(kind, case.dtype)]:
        run = timed(kind, case, inputs, answers)
        _, reason = attempt(lambda run=run: run(0))  # compiles
        if reason is None:
            runs[name] = run
        else:
            failed[name] = reason
    times = {k: quartiles(v) for k, v in interleaved(runs, device, rounds, seconds).items()}
    copy = times["copy"]["median"]
    share = {name: copy / found["median"] for name, found in times.items()}
    result = vars(case) | {"kind": kind, "seconds": times, "share_of_copy": share}
    return result | {"failed": failed}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--rounds", type=int, default=20, help="samples of each choice, at most")
    parser.add_argument("--seconds", type=float, default=300, help="start no table after this")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("no CUDA GPU that PyTorch can use; --dry-run with TRITON_INTERPRET=1 needs none")
        return 2
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    device = torch.device("cuda" if torch.cuda.is_available() and not interpreted else "cpu")
    rounds, seconds = (3, 0.1) if options.dry_run else (options.rounds, 4.0)
    now = datetime.datetime.now(datetime.timezone.utc)
    record: dict[str, Any] = {"date": now.isoformat(timespec="seconds")} | environment(device)
    record |= {"dry_run": options.dry_run, "tables": []}
    slug = re.sub(r"[^a-z0-9]+", "-", record["device"]["name"].lower()).strip("-")
    path = options.out / f"tiles-{slug}-{now:%Y-%m-%d}.json"
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for kinds, case in TINY if options.dry_run else CASES:
        for kind in kinds.split():
            if time.perf_counter() - began > options.seconds:
                print(f"{kind} {case}: out of time")
                continue
            if kind == "teams" and device.type != "cuda":
                print(f"{kind} {case}: only on a GPU, where all programs run at once")
                continue
            table = tune(kind, case, device, rounds, seconds)
            record["tables"].append(table)
            write(path, record)
            print(f"{kind} {case}")
            for name, part in sorted(table["share_of_copy"].items(), key=lambda x: -x[1]):
                ms = table["seconds"][name]["median"] * 1e3
                print(f"    {name:28} {ms:9.3f} ms  {part:6.1%} of a copy's speed")
            for name, reason in table["failed"].items():
                print(f"    {name:28} {reason}", flush=True)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
