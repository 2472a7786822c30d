"""Where the device tests run: a CUDA GPU, or nowhere.

With KDLAB_GPU_DRY_RUN=1 and TRITON_INTERPRET=1, as `make gpu-check`'s dry run sets them, the same
tests run at small sizes through Triton's interpreter on the CPU, to see that they themselves work.
"""

import os
from dataclasses import dataclass

import pytest
import torch

DRY = os.environ.get("KDLAB_GPU_DRY_RUN") == "1"


def pytest_collection_modifyitems(items):
    if DRY or torch.cuda.is_available():
        return
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU; make gpu-check on one"))


@dataclass(frozen=True)
class Machine:
    """The device under test; `size` keeps a size, or makes it small in a dry run."""

    device: torch.device
    dry: bool

    def size(self, real: int, dry: int) -> int:
        return dry if self.dry else real

    def need_memory(self, gigabytes: float) -> None:
        if not self.dry:
            free, _ = torch.cuda.mem_get_info()
            if free < gigabytes * 1e9:
                pytest.skip(f"needs {gigabytes} GB free on the GPU, has {free / 1e9:.0f}")


@pytest.fixture
def machine():
    return Machine(torch.device("cpu" if DRY else "cuda"), DRY)


@pytest.fixture
def cuda_only():
    if DRY:
        pytest.skip("dry run: this one needs CUDA itself")


@pytest.fixture(autouse=True)
def _give_memory_back():
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
