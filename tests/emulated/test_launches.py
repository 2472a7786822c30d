"""What the launcher launches, compiled as Triton would for a call on a GPU: its sizes, strides and
addresses are specialised as they come. Nothing runs."""

import os

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from kdlab.kernels import tiles
from kdlab.kernels.resources import usage
from triton.runtime import driver
from triton.runtime.cache import get_cache_manager

import kdlab
from benchmarks.cases import DTYPES
from kdlab import functional
from tests.emulated.device import Driver

MULTIPROCESSORS = 132  # of an H100

# The kernels that should come, rows, classes, dtypes of student and teacher, what else is given.
TEAM, LOOK_BACK = "team scale", "lookback scale"
CALLS = {
    "a language model": (TEAM, 64, 128_256, "bf16", "bf16", {}),
    "mask and labels": (TEAM, 64, 32_000, "bf16", "bf16", {"mask": True, "label_weight": 0.5}),
    "β a row": (TEAM, 48, 151_936, "fp32", "fp32", {"beta": True}),
    "reverse_kl": (TEAM, 40, 50_304, "bf16", "bf16", {"divergence": "reverse_kl"}),
    "mse": (TEAM, 64, 32_000, "bf16", "bf16", {"divergence": "mse"}),
    "tv": (TEAM, 64, 32_000, "bf16", "bf16", {"divergence": "tv", "label_weight": 0.1}),
    "js": (LOOK_BACK, 64, 32_000, "fp32", "fp32", {"divergence": "js"}),
    "a wider teacher": (LOOK_BACK, 64, 32_000, "bf16", "fp32", {"label_weight": 0.5}),
    "an odd vocabulary": (LOOK_BACK, 33, 50_257, "bf16", "bf16", {}),
    "rows": ("forward backward", 272, 32_000, "bf16", "bf16", {"divergence": "js", "for": "rows"}),
    "float16": ("part join backward", 64, 32_000, "fp16", "fp16", {"label_weight": 0.5}),
    "a value": ("part spread join", 8, 262_144, "bf16", "bf16", {"divergence": "tv", "for": ""}),
    "pictures": ("forward scale", 256, 1_000, "fp32", "fp32", {"label_weight": 0.5}),
    "all three": (
        "forward backward",
        64,
        2_048,
        "bf16",
        "bf16",
        {"label_weight": 0.5, "for": "all"},
    ),
}

LAUNCHED: dict[str, bytes] = {}


class Recorder:
    """In a launcher's place: notes the kernel's name and binary, and runs nothing."""

    def __init__(self, _src, metadata):
        self.name = metadata.name
        files = get_cache_manager(metadata.hash).get_group(f"{metadata.name}.json")
        with open(files[f"{metadata.name}.cubin"], "rb") as file:
            self.cubin = file.read()

    def __call__(self, *_):
        LAUNCHED[self.name] = self.cubin


class RecordingDriver(Driver):
    launcher_cls = Recorder

    def get_current_device(self):  # of which Triton keeps what has been compiled
        return f"recorded sm_{self.architecture}"


@pytest.fixture(autouse=True)
def recorded(monkeypatch):
    monkeypatch.setattr(driver, "_active", RecordingDriver())
    monkeypatch.setattr(functional, "_interpreted", lambda: True)
    monkeypatch.setattr(tiles, "programs_that_fill", lambda _: 4 * MULTIPROCESSORS)
    monkeypatch.setattr(tiles, "programs_at_once", lambda _: tiles.TEAM_PROGRAMS * MULTIPROCESSORS)
    LAUNCHED.clear()


def call(rows, classes, student_dtype, teacher_dtype, given):
    given = dict(given)
    wanted = given.pop("for", "student")
    s = torch.zeros(rows, classes, dtype=DTYPES[student_dtype])
    t = torch.zeros(rows, classes, dtype=DTYPES[teacher_dtype])
    if "label_weight" in given:
        given["labels"] = torch.zeros(rows, dtype=torch.int64)
    if "mask" in given:
        given["mask"] = torch.ones(rows, dtype=torch.bool)
    if "beta" in given:
        given["beta"] = torch.ones(rows)
    if wanted == "all":
        given["beta"] = torch.ones((), requires_grad=True)
        t.requires_grad_()
    s.requires_grad_(wanted != "")
    reduction = "none" if wanted == "rows" else "mean"
    loss = kdlab.distillation_loss(s, t, reduction=reduction, backend="triton", **given)
    if wanted:
        loss.sum().backward()


@pytest.mark.parametrize("name", CALLS)
def test_what_is_launched_spills_nothing(name):
    kernels, *given = CALLS[name]
    call(*given)
    found = {kernel: usage(cubin) for kernel, cubin in LAUNCHED.items()}
    assert set(found) == {f"{kernel}_kernel" for kernel in kernels.split()}
    assert all(spilt == 0 for _registers, spilt in found.values()), found
