"""Compile the kernels without a GPU and read what the hardware would get.

Triton's wheel brings ptxas and cuobjdump, so registers, spills and the width of loads can be read
on any Linux machine, for chips that are not there. `python -m kdlab.kernels.resources` prints the
table; `tests/test_compile.py` holds the kernels to it.
"""

import argparse
import re
import signal
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import triton
import triton.language as tl
from kdlab.kernels.backward import backward_kernel
from kdlab.kernels.differences import difference_kernel
from kdlab.kernels.forward import forward_kernel
from kdlab.kernels.instructions import disassembly, loops, per_logit, run_tool
from kdlab.kernels.lookback import lookback_kernel
from kdlab.kernels.parts import join_kernel, part_kernel, spread_kernel
from kdlab.kernels.row_state import DIVERGENCE
from kdlab.kernels.scale import scale_kernel
from kdlab.kernels.teams import TOLD, team_kernel, told
from kdlab.kernels.tiles import (
    MAX_BLOCK,
    SCALE_TILE,
    Tile,
    compiler_options,
    programs_that_fit,
    sweep_tile,
    team_options,
    team_sizes,
    team_tile,
    team_tiles,
    whole_tile,
)
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

TEAMS = "forward + gradient, by teams"  # of bf16 or fp32, both the same, in aligned rows
BACKWARD = {  # by whose gradients are asked for
    "backward": ("STUDENT",),
    "backward, teacher": ("TEACHER",),
    "backward, β": ("BETA",),
    "backward, student and teacher": ("STUDENT", "TEACHER"),
    "backward, student and β": ("STUDENT", "BETA"),
    "backward, teacher and β": ("TEACHER", "BETA"),
    "backward, all three": ("STUDENT", "TEACHER", "BETA"),
}
# Each way in which the launcher calls a kernel, with the flags that it sets.
KERNELS = {
    "forward": (forward_kernel, {"GRADIENT": False, "ONE_TILE": False}),
    "forward, one tile": (forward_kernel, {"GRADIENT": False, "ONE_TILE": True}),
    "forward + gradient, one tile": (forward_kernel, {"GRADIENT": True, "ONE_TILE": True}),
    "forward + gradient": (lookback_kernel, {}),
    TEAMS: (team_kernel, {}),
    "forward + gradient, mse_logits": (difference_kernel, {}),
    "part of a row": (part_kernel, {}),
    "second sweep of a part": (spread_kernel, {}),
    "join of the parts": (join_kernel, {}),
    "scale in place": (scale_kernel, {}),
    **{
        name: (
            backward_kernel,
            {f"FOR_{who}": who in wanted for who in ("STUDENT", "TEACHER", "BETA")},
        )
        for name, wanted in BACKWARD.items()
    },
}


def runs(kernel: str, divergence: str, label_weight: float = 0.5, block: int = MAX_BLOCK) -> bool:
    """Whether the launcher ever calls this kernel for this divergence, α and tile."""
    if kernel == "scale in place":  # it knows of none of them
        return (divergence, label_weight, block) == ("kl", 0.5, MAX_BLOCK)
    soft = label_weight < 1
    if kernel == "forward + gradient, mse_logits":
        return (divergence, label_weight, block) == ("mse_logits", 0, MAX_BLOCK)
    if kernel == "forward + gradient" and divergence == "mse_logits":
        return label_weight > 0 and block == MAX_BLOCK
    if kernel == TEAMS:
        needed = divergence != "mse_logits" or label_weight > 0
        return needed and divergence in TOLD and block == MAX_BLOCK
    if kernel == "second sweep of a part":
        return soft and divergence in ("js", "tv") and block == MAX_BLOCK
    if "BETA" in BACKWARD.get(kernel, ()):
        return soft and divergence != "mse_logits"
    if "TEACHER" in BACKWARD.get(kernel, ()):
        return soft
    return block == MAX_BLOCK or "one tile" in kernel or "backward" in kernel


ARCHITECTURES = (80, 90, 100)
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}
# Arguments that are multiples of 16: Triton specialises on it, and only then may it emit 128-bit
# loads. PyTorch's memory begins on such addresses; a β for all rows has stride 0.
_ALLOCATED = {
    *("student", "teacher", "labels", "keep", "beta", "loss", "stats", "grad", "grad_scale"),
    *("grad_loss", "grad_student", "grad_teacher", "gradient", "factor"),
    *("states", "sums", "counters", "beta_parts", "beta_stride"),
}
# These in the common case. With 50,257 classes, say, most rows start where no wide load can.
_ALIGNED = {
    *("student_stride", "teacher_stride"),
    *("grad_stride", "grad_student_stride", "grad_teacher_stride"),
    *("n_classes", "part_size", "n"),
}


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes: registers a thread, bytes spilt, its logit accesses."""

    kernel: str
    architecture: int
    dtype: str
    divergence: str
    label_weight: float
    block: int
    warps: int
    registers: int
    spilt_bytes: int
    wide_loads: int
    wide_stores: int
    binary: bytes = field(repr=False)
    bytes_a_logit: int = field(repr=False)
    logits_a_thread: float = field(repr=False)

    @cached_property
    def instructions(self) -> list[float]:
        """How many a logit costs in each sweep, by a disassembly, which takes long."""
        if self.kernel == TEAMS:  # a row is one turn, which holds the rare sweep with care as well
            _, bodies = loops(disassembly(self.binary))
            return [len(max(bodies, key=len)) / self.logits_a_thread]
        return per_logit(self.binary, self.bytes_a_logit, self.logits_a_thread)


def _whole(kernel: str) -> bool:
    """Whether its tile is that of `whole_tile`."""
    return "one tile" in kernel or "backward" in kernel


def tile_of(
    kernel: str, classes: int, divergence: str, dtypes: tuple[str, str], aligned: bool = True
) -> Tile:
    """The tile with which the launcher calls this kernel."""
    if kernel == "scale in place":
        return Tile(SCALE_TILE["BLOCK"], 1, SCALE_TILE["num_warps"])
    if kernel == "join of the parts":
        return Tile(classes, 1, 1)
    sizes = BYTES[dtypes[0]], BYTES[dtypes[1]]
    if kernel == TEAMS:
        return team_tile(sizes[0])
    if _whole(kernel):
        return whole_tile(classes, divergence, sizes, aligned)
    return sweep_tile(divergence, sizes)


def most_tiles(divergence: str, label_weight: float) -> int:
    return max(team_tiles(divergence, label_weight > 0))


def compiled(
    kernel: str,
    architecture: int,
    dtype: str,
    divergence: str,
    label_weight: float,
    block: int,
    *,
    teacher_dtype: str | None = None,
    keep: bool = True,
    temperature_scaling: bool = True,
    aligned: bool = True,
    tiles: int | None = None,
) -> CompiledKernel:
    """One configuration for sm_<architecture>, as the launcher would have it; needs no GPU.

    `tiles`: how many a member of a team holds, the most if None; for other kernels nothing."""
    function, flags = KERNELS[kernel]
    double = "fp64" in (dtype, teacher_dtype)
    tile = tile_of(kernel, block, divergence, (dtype, teacher_dtype or dtype), aligned)
    flags = flags | {
        "DIVERGENCE": DIVERGENCE[divergence].value,
        "SOFT": label_weight < 1,
        "HARD": label_weight > 0,
        "HAS_KEEP": keep,
        "TEMPERATURE_SCALING": temperature_scaling,
        "ONE_TILE": flags.get("ONE_TILE", block <= tile.block),
        "ACC": tl.float64 if double else tl.float32,
        "BLOCK": tile.block,
        "VECTOR": tile.vector,
        "ALIGNED": aligned,
    }
    if kernel == TEAMS:
        tiles = tiles or most_tiles(divergence, label_weight)
        flags |= team_sizes(tiles, tile)
        flags |= {"USED": told(divergence, flags["SOFT"], flags["HARD"])}
    names = function.arg_names
    constants = {name: value for name, value in flags.items() if name in names}
    numbers = ("beta", "loss", "stats", "grad_loss", "grad_scale", "states", "sums", "beta_parts")
    types = {"labels": "*i64", "keep": "*i1", "counters": "*i32"}
    types |= dict.fromkeys(("student", "grad", "grad_student", "gradient"), f"*{dtype}")
    types |= dict.fromkeys(("teacher", "grad_teacher"), f"*{teacher_dtype or dtype}")
    types |= dict.fromkeys((*numbers, "factor"), "*fp64" if double else "*fp32")
    if kernel == TEAMS:
        types |= dict.fromkeys(("states", "sums"), "*i32")
    types |= {p.name: p.annotation_type for p in function.params if p.annotation_type}
    absent = {"keep": not keep, "labels": not flags["HARD"]}
    absent["grad_scale"] = "gradient" not in kernel
    constants |= {name: None for name in names if absent.get(name)}
    types |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        function,
        {name: types.get(name, "i32") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(names)
            if name not in constants and (name in _ALLOCATED or (aligned and name in _ALIGNED))
        },
    )
    target = GPUTarget("cuda", architecture, 32)
    options: dict[str, Any] = {"num_warps": tile.warps, "enable_fp_fusion": False}
    if kernel == TEAMS:
        options = team_options(architecture)
    elif kernel != "scale in place":
        sizes = BYTES[dtype], BYTES[teacher_dtype or dtype]
        programs = programs_that_fit(divergence, _whole(kernel), architecture)
        options = compiler_options(tile.warps, sizes, aligned, programs)
    return triton.compile(source, target=target, options=options)


def compile_kernel(
    kernel: str,
    architecture: int,
    dtype: str,
    divergence: str,
    label_weight: float,
    block: int,
    **options: Any,
) -> Resources:
    """Compile one configuration (arguments as for `compiled`) and read its resources."""
    binary = compiled(kernel, architecture, dtype, divergence, label_weight, block, **options)
    registers, spilt_bytes = usage(binary.asm["cubin"])
    dtypes = dtype, options.get("teacher_dtype") or dtype
    tile = tile_of(kernel, block, divergence, dtypes, options.get("aligned", True))
    tiles = 1
    if kernel == TEAMS:
        tiles = options.get("tiles") or most_tiles(divergence, label_weight)
    return Resources(
        kernel,
        architecture,
        dtype,
        divergence,
        label_weight,
        tile.block,
        tile.warps,
        registers,
        spilt_bytes,
        wide_loads=_wide("ld", binary.asm["ptx"]),
        wide_stores=_wide("st", binary.asm["ptx"]),
        binary=binary.asm["cubin"],
        bytes_a_logit=BYTES[dtypes[0]] + (BYTES[dtypes[1]] if label_weight < 1 else 0),
        logits_a_thread=tiles * tile.block / (32 * tile.warps),
    )


def usage(cubin: bytes) -> tuple[int, int]:
    """Registers a thread, and bytes spilt, of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = run_tool("cuobjdump", "-res-usage", file.name)

    def number(name: str) -> int:
        match = re.search(rf"\b{name}:(\d+)", report)
        if match is None:
            raise RuntimeError(f"cuobjdump: no {name} in its report: {report!r}")
        return int(match.group(1))

    return number("REG"), number("STACK") + number("LOCAL")


def _wide(access: str, ptx: str) -> int:
    """128-bit accesses to global memory: ptxas neither joins nor splits them."""
    of = {"b32": 4, "b64": 2}
    return sum(
        int(n) == of[kind] for n, kind in re.findall(rf"\b{access}\.global\S*\.v(\d)\.(b\d+)", ptx)
    )


def main(arguments: list[str] | None = None) -> None:
    """The table of `make kernel-report`: every kernel at its widest tile, on every architecture."""
    parser = argparse.ArgumentParser(
        prog="python -m kdlab.kernels.resources",
        description="Compile every kernel at its widest tile and print its resources; all of them "
        "take some minutes.",
    )
    parser.add_argument("--sm", nargs="+", type=int, choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("--dtype", nargs="+", choices=BYTES, default=list(BYTES))
    parser.add_argument(
        "--kernel", default="", help="a part of its name, such as teams or backward"
    )
    options = parser.parse_args(arguments)
    kernels = [kernel for kernel in KERNELS if options.kernel in kernel]
    if not kernels:
        parser.error(f"--kernel: got {options.kernel!r}; expected a part of {list(KERNELS)}")
    header = f"{'kernel':<31} {'sm':<4} {'dtype':<6} {'divergence':<11} {'α':<4} {'tile':<6} "
    header += f"{'warps':<6} {'registers':<10} {'spilt':<6} {'wide loads/stores':<18} "
    print(header + "instructions a logit, each sweep", flush=True)
    for kernel, divergence in product(kernels, DIVERGENCE):
        label_weight = next((a for a in (0.5, 0.0) if runs(kernel, divergence, a)), None)
        if label_weight is None:
            continue
        for architecture, dtype in product(options.sm, options.dtype):
            if kernel == TEAMS and dtype not in ("bf16", "fp32"):
                continue
            r = compile_kernel(kernel, architecture, dtype, divergence, label_weight, MAX_BLOCK)
            row = f"{r.kernel:<31} {r.architecture:<4} {r.dtype:<6} {r.divergence:<11} "
            row += f"{r.label_weight:<4} {r.block:<6} {r.warps:<6} {r.registers:<10} "
            row += f"{r.spilt_bytes:<6} {f'{r.wide_loads}/{r.wide_stores}':<18} "
            print(row + " + ".join(f"{n:.0f}" for n in r.instructions), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly where `| head` has read enough
    main()
