"""What is measured: sizes, dtypes and divergences, the most important first.

A run that runs out of time leaves out the last ones, so the order matters.
"""

from dataclasses import dataclass

import torch

DIVERGENCES = ("kl", "reverse_kl", "js", "mse", "mse_logits", "tv")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Case:
    """Logits of `rows` × `classes` in `dtype`, compared by `divergence`."""

    divergence: str
    dtype: str
    rows: int
    classes: int

    @property
    def elements(self) -> int:
        return self.rows * self.classes

    @property
    def bytes_per_value(self) -> int:
        return DTYPES[self.dtype].itemsize

    def floor_bytes(self, mode: str) -> int:
        """What any method must move: both logits read once and, in full, the gradient written."""
        return self.elements * self.bytes_per_value * (2 if mode == "forward" else 3)

    def __str__(self) -> str:
        return f"{self.divergence} {self.dtype} {self.rows} × {self.classes}"


CPU = (
    Case("kl", "fp32", 1024, 32000),
    *(Case(d, "fp32", 256, 32000) for d in DIVERGENCES[1:]),
    Case("kl", "bf16", 512, 32000),
    Case("kl", "fp32", 8, 262144),
    Case("kl", "fp32", 8192, 1000),
    Case("kl", "fp32", 4096, 100),
)

_SWEEP = 1 << 28  # elements of each size of the class sweep
GPU = (
    Case("kl", "bf16", 8192, 128256),
    Case("kl", "bf16", 16384, 32000),
    Case("kl", "bf16", 8, 262144),
    *(Case(d, "bf16", 8192, 32000) for d in DIVERGENCES),
    *(Case(d, "fp32", 8192, 32000) for d in DIVERGENCES),
    Case("kl", "fp16", 8192, 32000),
    *(Case("kl", "bf16", _SWEEP // v, v) for v in (1024, 4096, 16384, 65536, 262144)),
    Case("kl", "bf16", 8192, 50257),
    Case("kl", "bf16", 64, 128256),
    Case("js", "bf16", 8, 262144),
)
GPU_SHORT = (GPU[0], GPU[1], GPU[2], *(Case(d, "bf16", 8192, 32000) for d in DIVERGENCES[1:]))

# A few seconds on any machine: shows that every part works, and measures nothing worth reading.
QUICK = (Case("kl", "fp32", 16, 512), Case("mse", "bf16", 8, 300))
