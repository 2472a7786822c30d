"""Everything that needs a GPU, by one command, in at most 9 minutes: `make gpu-check OUT=folder`.

For a machine with a CUDA GPU, PyTorch, Triton and pytest, and no network: the checkout is run as it
is. Stages, each with its own limit; what one does not use, the next ones may:

    tests      tests/gpu: the kernels at real sizes, for races, graphs, synchronisation, compilation
    notebooks  the course under nbval, if nbval and Jupyter are installed
    benchmark  as many cases as there is time for, the most important first, beside the peers that
               are installed

Into the folder go summary.json, a log a stage, the tests' junit files and the benchmark's JSON.
summary.json is written after every stage. The exit status is 0 if no stage failed.

--dry-run goes through the same stages on the CPU, at small sizes, to see that they work: its
summary says so and holds no result about a GPU.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import checkout
from benchmarks.run import cores, environment, write

TOTAL_SECONDS = 540
MARGIN = 15  # for start-up and for ending a stage that overruns
NOTEBOOK_NEEDS = ("nbval", "ipykernel", "ipywidgets", "bqplot", "bqplot_image_gl", "contourpy")
NOTEBOOK_NEEDS += ("anywidget", "matplotlib", "sklearn", "mnist1d", "gymnasium", "tqdm")


@dataclass(frozen=True)
class Stage:
    """A command with the most seconds it may take, and how many it must leave to later stages: of
    `TOTAL_SECONDS`, or in proportion."""

    name: str
    most: float
    leave: float
    command: Callable[[float], list[str]]  # of the seconds that it has
    missing: str = ""
    environment: tuple[tuple[str, str], ...] = ()


def stages(out: Path, dry: bool) -> list[Stage]:
    python = [sys.executable, "-m"]
    plugins = ["-p", "benchmarks.checkout", "-p", "benchmarks.deadline"]
    pytest = [*python, "pytest", *plugins, "-q", "-o", "addopts=-ra"]
    by_file: list[str] = []
    if importlib.util.find_spec("xdist") is not None:
        pytest += ["-n", str(min(8, cores()))]
        by_file = ["--dist", "loadfile"]  # a notebook's cells need each other
    absent = [name for name in NOTEBOOK_NEEDS if importlib.util.find_spec(name) is None]
    notebooks = "notebooks/00_start_here.ipynb" if dry else "notebooks"

    def tests(_: float) -> list[str]:
        return [*pytest, "tests/gpu", f"--junitxml={out / 'tests.xml'}"]

    def course(seconds: float) -> list[str]:
        cell = f"--nbval-cell-timeout={max(10, int(seconds))}"
        report = f"--junitxml={out / 'notebooks.xml'}"
        return [*pytest, *by_file, "--nbval", "--nbval-current-env", cell, notebooks, report]

    def bench(seconds: float) -> list[str]:
        # A case takes up to half a minute: start none that could not end.
        size = ["--quick", "--device", "cpu"] if dry else ["--device", "cuda", "--rounds", "15"]
        limit = str(max(1, int(seconds - 30)))
        return [*python, "benchmarks.run", *size, "--out", str(out), "--seconds", limit]

    dry_run = (("KDLAB_GPU_DRY_RUN", "1"), ("TRITON_INTERPRET", "1")) if dry else ()
    return [
        Stage("tests", 240, 180, tests, environment=dry_run),
        Stage(
            "notebooks",
            180,
            150,
            course,
            missing=f"not installed: {', '.join(absent)}" if absent else "",
            # Machines without a display often have another one set.
            environment=(("MPLBACKEND", "module://matplotlib_inline.backend_inline"),),
        ),
        Stage("benchmark", TOTAL_SECONDS, 0, bench),
    ]


def run(stage: Stage, seconds: float, out: Path) -> dict[str, Any]:
    """Run one stage; it and what it started end when its time is over."""
    # Tests stop beginning in time to write their report.
    inner = {"KDLAB_SECONDS": str(seconds * 0.8), "PYTHONUNBUFFERED": "1"}
    log = out / f"{stage.name}.log"
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            stage.command(seconds),
            cwd=checkout.ROOT,
            env=os.environ | inner | dict(stage.environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = "passed" if process.wait(seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            end(process)
    found = {"status": status, "exit": process.returncode, "limit_seconds": round(seconds)}
    found |= {"took_seconds": round(time.monotonic() - began, 1), "log": log.name}
    return found | counts(out / f"{stage.name}.xml")


def end(process: subprocess.Popen) -> None:
    """End the stage's own process group: it, its kernels and its compile workers."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except (ProcessLookupError, PermissionError):
            return
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue


def counts(report: Path) -> dict[str, Any]:
    """Tests, failures and skips of a junit file, with the names of what failed."""
    if not report.exists():
        return {}
    suites = ET.parse(report).getroot()
    cases = list(suites.iter("testcase"))
    bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    reasons: dict[str, int] = {}
    for skipped in suites.iter("skipped"):
        reason = skipped.get("message", "")
        reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "tests": len(cases),
        "failed": [f"{case.get('classname')}::{case.get('name')}" for case in bad],
        "skipped": reasons,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder for everything that comes out")
    parser.add_argument("--dry-run", action="store_true", help="the same stages on the CPU")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="for all of it")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("no CUDA GPU that PyTorch can use; --dry-run shows on the CPU that the stages work")
        return 2
    began = time.monotonic()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu" if options.dry_run else "cuda")
    summary: dict[str, Any] = {"dry_run": options.dry_run}
    if options.dry_run:
        summary["note"] = "a dry run on the CPU: nothing here is a result about a GPU"
    summary |= environment(device) | {"stages": {}}
    path = out / "summary.json"
    share = options.seconds / TOTAL_SECONDS
    for stage in stages(out, options.dry_run):
        left = options.seconds - MARGIN - (time.monotonic() - began)
        seconds = min(share * stage.most, left - share * stage.leave)
        if stage.missing:
            found: dict[str, Any] = {"status": "not run", "reason": stage.missing}
        elif seconds < 10:
            found = {
                "status": "not run",
                "reason": f"{left:.0f} s left, {share * stage.leave:.0f} reserved",
            }
        else:
            found = run(stage, seconds, out)
        summary["stages"][stage.name] = found
        summary["took_seconds"] = round(time.monotonic() - began, 1)
        write(path, summary)
        print(stage.name, json.dumps(found, ensure_ascii=False), flush=True)
    print(f"wrote {path}")
    return int(any(s["status"] in ("failed", "out of time") for s in summary["stages"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
