"""What is installed here, which backend will run, and what to do about what is missing."""

import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kdlab.extras import INSTALL
from kdlab.functional import OLDEST_TRITON, default_backend, triton_version

# What the extra `lab` in pyproject.toml installs; a test holds this to it.
COURSE = (
    "jupyterlab",
    "ipywidgets",
    "bqplot",
    "bqplot-image-gl",
    "anywidget",
    "contourpy",
    "voila",
    "matplotlib",
    "scikit-learn",
    "mnist1d",
    "scipy",
    "gymnasium",
    "ipykernel",
    "nbclient",
    "nbformat",
)


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


def _front_end(package: str, extension: str) -> Check:
    """A widget shows nothing unless JupyterLab finds its JavaScript in share/jupyter."""
    there = (Path(sys.prefix) / "share" / "jupyter" / "labextensions" / extension).is_dir()
    state = f"{_version(package)}, front end {'found' if there else 'not found'}"
    return Check(package, there, state, f"pip install --force-reinstall --no-deps {package}")


def library() -> list[Check]:
    """What the library needs, in the order of the report."""
    cuda = torch.cuda.is_available()
    if cuda:
        major, minor = torch.cuda.get_device_capability()
        device = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
    else:
        device = f"CPU, {torch.get_num_threads()} threads (no CUDA GPU that PyTorch can use)"
    linux = sys.platform == "linux"
    oldest = ".".join(map(str, OLDEST_TRITON))
    install = f"pip install 'triton>={oldest}'"
    backend = default_backend(torch.device("cuda" if cuda else "cpu"))
    found = triton_version()
    triton = _version("triton") or _version("pytorch-triton")
    triton = triton or ("missing" if linux else f"missing (not needed on {sys.platform})")
    if found and found < OLDEST_TRITON:
        triton += f", older than {oldest}"
    good = found >= OLDEST_TRITON if found else not linux
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
        Check("triton", good, triton, install),
        Check("device", True, device),
        Check("backend", backend == "triton" or not cuda, why, install),
    ]


def course() -> list[Check]:
    """What the course needs beside it: a line for all that is missing together."""
    missing = [name for name in COURSE if _version(name) is None]
    checks = [
        Check("jupyterlab", True, _version("jupyterlab") or ""),
        _front_end("ipywidgets", "@jupyter-widgets/jupyterlab-manager"),
        _front_end("bqplot", "bqplot"),
        _front_end("bqplot-image-gl", "bqplot-image-gl"),
        Check("mnist1d", True, _version("mnist1d") or ""),
    ]
    checks = [check for check in checks if check.name not in missing]
    if missing:
        remedy = f"{INSTALL}, in a checkout pip install -e '.[lab]'"
        checks.append(Check("packages", False, f"missing: {', '.join(missing)}", remedy))
    return checks


def diagnose() -> list[Check]:
    """All checks: of the library, then of the course."""
    return library() + course()


def report(checks: list[Check] | None = None) -> str:
    """One line a check, or more where there is a remedy; all checks if none are given."""
    return "\n".join(map(str, diagnose() if checks is None else checks))
