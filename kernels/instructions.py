"""How many instructions a compiled kernel spends on a logit, read off its disassembly.

A kernel that moves b bytes a logit can only be as fast as memory while it issues no more than
`A_BYTE` · b instructions for it. That is the roofline's ridge counted in instructions rather than
in floating-point operations: comparisons, conversions and addresses take their turn as well. (An
exponential takes more than one turn: 16 a clock and multiprocessor against 128.)
"""

import inspect
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton
from kdlab.kernels.sweep import load_tile, widen

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# NVIDIA H100 SXM, data sheet: 67e12 fp32 operations a second, two to a fused multiply-add, so
# 33.5e12 instructions (each for one lane); 3.35e12 bytes a second.
A_BYTE = 10
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
_LABEL = re.compile(r"\s*(\.L_x_\d+):")
_SOURCE = re.compile(r'\s*//## File ".*?(\w+\.py)", line (\d+)')
_LOAD = re.compile(r"\bLDG\.E(?:\.\w+)*")
_WIDTH = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


class Instruction(NamedTuple):
    """Its text, and the line of Python from which it comes."""

    text: str
    file: str
    line: int


def run_tool(tool: str, *arguments: str) -> str:
    """Output of one of the tools that Triton's wheel brings (cuobjdump, nvdisasm)."""
    return subprocess.run(
        [str(TOOLS / tool), *arguments], capture_output=True, text=True, check=True
    ).stdout


def disassembly(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return run_tool("nvdisasm", "-c", "-g", file.name)


def loops(code: str) -> tuple[list[Instruction], list[list[Instruction]]]:
    """All instructions of a kernel, and the bodies of its loops: from a label to a jump back."""
    labels: dict[str, int] = {}
    listing: list[Instruction] = []
    bodies = []
    source = "", 0
    for text in code.splitlines():
        if label := _LABEL.match(text):
            labels[label[1]] = len(listing)
        elif line := _SOURCE.match(text):
            source = line[1], int(line[2])
        elif instruction := _INSTRUCTION.match(text):
            listing.append(Instruction(instruction[1], *source))
            to = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", instruction[1])
            if to and labels.get(to[1], len(listing)) < len(listing) - 1:
                bodies.append(listing[labels[to[1]] :])
    return listing, bodies


def loaded_bytes(body: list[Instruction]) -> int:
    """Bytes of logits that a thread loads in one turn of a loop; other loops join, or wait."""
    # Triton 3.8 says of some loads that they stand a few lines further down: in `widen`.
    _, first = inspect.getsourcelines(load_tile.fn)
    lines, last = inspect.getsourcelines(widen.fn)
    load_lines = range(first, last + len(lines))
    total = 0
    for text, file, line in body:
        load = _LOAD.search(text)
        if load and file == "sweep.py" and line in load_lines:
            total += next((_WIDTH[part] for part in load[0].split(".") if part in _WIDTH), 4)
    return total


def per_logit(cubin: bytes, bytes_a_logit: int, logits_a_thread: float) -> list[float]:
    """Instructions a logit in each sweep of the row, in order; of all the kernel if it has none.

    A loop that the compiler unrolls leaves a second one behind, for the rest of the row.

    bytes_a_logit: student's and teacher's, as a sweep loads them; logits_a_thread: where there is
    no loop, how many the kernel's one tile gives a thread.
    """
    listing, bodies = loops(disassembly(cubin))
    sweeps = [(len(body), loaded_bytes(body) / bytes_a_logit) for body in bodies]
    found = [instructions / logits for instructions, logits in sweeps if logits >= 1]
    return found or [len(listing) / logits_a_thread]
