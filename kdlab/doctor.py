"""What is installed here, which backend will run, and what to do about what is missing."""

import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kdlab.functional import OLDEST_TRITON, default_backend, triton_version


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, what was found, and the remedy if it is bad."""

    name: str
    good: bool
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'ok ' if self.good else 'NO '} {self.name:<15} {self.found}"
        return f"{line}\n       → {self.remedy}" if self.remedy and not self.good else line


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _package(name: str) -> Check:
    found = _version(name)
    return Check(name, found is not None, found or "missing", "pip install -e '.[lab]'")


def _front_end(package: str, extension: str) -> Check:
    """A widget shows nothing unless JupyterLab finds its JavaScript in share/jupyter."""
    found = _version(package)
    if found is None:
        return Check(package, False, "missing", "pip install -e '.[lab]'")
    there = (Path(sys.prefix) / "share" / "jupyter" / "labextensions" / extension).is_dir()
    state = f"{found}, front end {'found' if there else 'not found'}"
    return Check(package, there, state, f"pip install --force-reinstall --no-deps {package}")


def diagnose() -> list[Check]:
    """All checks, in the order of the report."""
    cuda = torch.cuda.is_available()
    if cuda:
        major, minor = torch.cuda.get_device_capability()
        device = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
    else:
        device = f"CPU, {torch.get_num_threads()} threads (no CUDA GPU that PyTorch can use)"
    backend = default_backend(torch.device("cuda" if cuda else "cpu"))
    found = triton_version()
    triton = _version("triton") or _version("pytorch-triton")
    triton = triton or f"missing (not needed on {sys.platform})"
    if found and found < OLDEST_TRITON:
        triton += f", older than {'.'.join(map(str, OLDEST_TRITON))}"
    good = found >= OLDEST_TRITON if found else sys.platform != "linux"
    if backend == "triton":
        why = "triton: a CUDA GPU and Triton are here"
    elif cuda:
        why = "torch: a CUDA GPU is here, but no Triton that the kernels could use"
    else:
        why = "torch: no CUDA GPU; Triton's kernels run with TRITON_INTERPRET=1"
    return [
        Check("python", sys.version_info >= (3, 10), platform.python_version(), "Python ≥ 3.10"),
        Check("kdlab", True, _version("kdlab") or "not installed, run from its folder"),
        Check("torch", True, torch.__version__),
        Check("triton", good, triton, "pip install -e ."),
        Check("device", True, device),
        Check("backend", backend == "triton" or not cuda, why, "pip install -e ."),
        _package("jupyterlab"),
        _front_end("ipywidgets", "@jupyter-widgets/jupyterlab-manager"),
        _front_end("bqplot", "bqplot"),
        _front_end("bqplot-image-gl", "bqplot-image-gl"),
        _package("mnist1d"),
    ]


def report() -> str:
    """The report of `kdlab doctor`, one line a check."""
    return "\n".join(map(str, diagnose()))
