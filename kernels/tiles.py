"""How wide: tiles and warps, how many programs share a row or hold it, what the compiler is told.

Every number that the launcher chooses is chosen here, from sizes alone.
"""

import math
from typing import Any, NamedTuple

import torch
import triton

MAX_BLOCK = 8192
PART_TILES = 4
SCALE_TILE = {"BLOCK": 4096, "num_warps": 8, "enable_fp_fusion": False}
TEAM_WARPS = 4
TEAM_PROGRAMS = 4  # on a multiprocessor: a thread may have a quarter of 65,536 registers over 128
# What a row costs a team beside its tiles (telling, waiting, joining), in tiles: on an H100 eight
# tiles took 2.42 ms where six took 2.70, for 8192 × 128,256 logits in bfloat16.
TEAM_OVERHEAD = 5


class Tile(NamedTuple):
    """How many classes a program holds at a time, how many neighbours a lane gathers, warps."""

    block: int
    vector: int
    warps: int


def whole_tile(classes: int, divergence: str, sizes: tuple[int, ...], aligned: bool = True) -> Tile:
    """For rows that fit one tile, and for backward, which goes over a row only once.

    `sizes` are the bytes of a logit, student's and teacher's. A thread holds two 128-bit loads a
    tensor: sixteen elements in half precision, eight in single, four in double. js, with its
    logarithms, spills at sixteen, and at eight in some wider tiles: it gets four warps. Double, and
    rows that start anywhere, get eight. tests/test_compile.py holds all kernels to no spills.

    >>> whole_tile(10, "kl", (2, 2)), whole_tile(128_256, "kl", (2, 2))
    (Tile(block=16, vector=1, warps=1), Tile(block=8192, vector=8, warps=16))
    >>> whole_tile(128_256, "kl", (4, 4)), whole_tile(128_256, "js", (2, 2))
    (Tile(block=4096, vector=4, warps=16), Tile(block=1024, vector=8, warps=4))
    """
    each, warps = 32 // max(sizes), 16 if aligned and 8 not in sizes else 8
    if divergence == "js":
        each, warps = min(each, 8), 4
    widest = min(MAX_BLOCK, 32 * each * warps)
    block = min(widest, max(16, triton.next_power_of_2(classes)))
    return _tile(block, block // (32 * each) or 1, sizes)


def sweep_tile(divergence: str, sizes: tuple[int, ...]) -> Tile:
    """For rows that are swept tile by tile: two 128-bit loads a tensor a thread, four warps; for
    js, which spills at sixteen logits a thread, half of that in half precision.

    Small programs, so that many share a multiprocessor and some of them always wait for memory
    while others compute; and few warps, since what a program does once, for its part, each of them
    does: `benchmarks/results/tiles-*.json`.

    >>> sweep_tile("kl", (2, 2)), sweep_tile("kl", (4, 4))
    (Tile(block=2048, vector=8, warps=4), Tile(block=1024, vector=4, warps=4))
    """
    each, warps = 32 // min(sizes), 4
    if divergence == "js":
        each = min(each, 8)
    if 8 in sizes:
        each, warps = 4, 8
    return _tile(min(MAX_BLOCK, 32 * each * warps), warps, sizes)


def _tile(block: int, warps: int, sizes: tuple[int, ...]) -> Tile:
    """With at least one element a thread, and not more neighbours a lane than a thread has."""
    warps = min(warps, max(1, block // 32))
    return Tile(block, max(1, min(16 // min(sizes), block // (32 * warps))), warps)


def row_parts(rows: int, classes: int, block: int, programs: int) -> tuple[int, int]:
    """(parts, classes a part): how many programs share a row, so that `programs` have work.

    >>> row_parts(8, 262_144, 2048, 528), row_parts(8192, 262_144, 2048, 528)
    ((64, 4096), (1, 262144))
    """
    tiles = triton.cdiv(classes, block)
    parts = min(tiles, triton.cdiv(programs, max(rows, 1))) if rows < programs // 2 else 1
    size = triton.cdiv(tiles, parts) * block
    return (1, classes) if parts == 1 else (triton.cdiv(classes, size), size)


def lookback_parts(rows: int, classes: int, block: int, programs: int) -> tuple[int, int, int]:
    """(parts, classes a part, lag) where loss and gradient come from one launch.

    Parts of up to `PART_TILES` tiles: what a program does once, for its part, costs little beside
    the sweeps, and a part is short enough to wait in L2 for its next sweep. The lag is the least
    that it may be and an eighth of `programs` more, so that fewer have to wait: notebook 07 has a
    model of it. On an H100 this lag was best or nearly so for 128,256 classes, while 32,000 liked a
    longer one and smaller tiles better, by 5 % (`benchmarks/results/tiles-*.json`).

    >>> lookback_parts(8192, 128_256, 2048, 528), lookback_parts(8, 262_144, 2048, 528)
    ((16, 8192, 81), (64, 4096, 129))
    """
    tiles = triton.cdiv(classes, block)
    parts = max(triton.cdiv(tiles, PART_TILES), min(tiles, triton.cdiv(programs, max(rows, 1))))
    size = triton.cdiv(tiles, parts) * block
    parts = triton.cdiv(classes, size)
    return parts, size, parts - 1 + programs // 8


class Team(NamedTuple):
    """How many programs hold a row, and how many tiles of which shape each of them."""

    members: int
    tiles: int
    tile: Tile


def team_tiles(divergence: str, hard: bool) -> tuple[int, ...]:
    """How many tiles a member may hold, in up to 64 of a thread's 128 registers: as many as leave
    room for the sums. js, with its logarithms, leaves room for none."""
    if divergence == "js":
        return ()
    return (6,) if divergence == "tv" and hard else (8, 6)


def team_tile(size: int) -> Tile:
    """One 128-bit load a thread of logits of `size` bytes."""
    return Tile(32 * TEAM_WARPS * 16 // size, 16 // size, TEAM_WARPS)


def team(
    rows: int, classes: int, divergence: str, hard: bool, size: int, programs: int
) -> Team | None:
    """Who holds a row where loss and gradient come from one launch; None: look-back makes them.

    `size` is the bytes of a logit, `programs` how many run at once.

    >>> team(8192, 128_256, "kl", False, 2, 528)
    Team(members=16, tiles=8, tile=Tile(block=1024, vector=8, warps=4))
    >>> team(8, 262_144, "kl", False, 4, 528)
    Team(members=64, tiles=8, tile=Tile(block=512, vector=4, warps=4))
    """
    tile = team_tile(size)
    found, least = None, math.inf
    for tiles in team_tiles(divergence, hard):
        members = triton.cdiv(classes, tiles * tile.block)
        if members > min(programs, 32 * TEAM_WARPS):
            continue
        cost = triton.cdiv(rows, programs // members) * (tiles + TEAM_OVERHEAD)
        if cost < least:
            found, least = Team(members, tiles, tile), cost
    return found


def programs_that_fill(device: torch.device) -> int:
    """Four programs a multiprocessor; the interpreter, which runs one at a time, wants one."""
    if device.type != "cuda":
        return 1
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count


def programs_at_once(device: torch.device) -> int:
    """How many members of teams run at the same time; the interpreter has no such thing."""
    if device.type != "cuda":
        return 0
    return TEAM_PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count


def team_sizes(tiles: int, tile: Tile) -> dict[str, int]:
    lanes = 32 * tile.warps
    return {"TILES": tiles, "BLOCK": tile.block, "VECTOR": tile.vector, "LANES": lanes}


def team_options(architecture: int) -> dict[str, Any]:
    """As `compiler_options`, with the registers that let `TEAM_PROGRAMS` run at once on an
    sm_<architecture>. For sm_80, ptxas is asked to use few: else it spills some of what a row needs
    once. So it does for sm_100, 8 bytes, of reverse_kl up to 16 and of tv 48, since Triton 3.7 asks
    ptxas 13 for another register allocation than its own, around a fault in it. With its own only
    tv's would spill, 8. Triton 3.9 compiles for sm_90 with ptxas 13, too.
    """
    registers = 65_536 // (32 * TEAM_WARPS * TEAM_PROGRAMS)
    options: dict[str, Any] = {
        "num_warps": TEAM_WARPS,
        "maxnreg": registers,
        "enable_fp_fusion": False,
    }
    if architecture < 90:
        options["ptx_options"] = "--register-usage-level=0"
    return options


def programs_that_fit(divergence: str, whole: bool, architecture: int) -> int:
    """How many programs of four warps a multiprocessor is to have registers for: five, where that
    spills nothing; four for `whole_tile`'s sixteen logits a thread, and for sweeps on sm_100.

    >>> programs_that_fit("kl", False, 90), programs_that_fit("kl", True, 90)
    (5, 4)
    """
    if whole:
        return 5 if divergence == "js" else 4
    return 4 if architecture >= 100 else 5


def compiler_options(
    warps: int, sizes: tuple[int, ...], aligned: bool, programs: int
) -> dict[str, int]:
    """The compiler does not fuse multiplications with additions, so that a product is rounded the
    same wherever it is used, p − q is 0 where student and teacher agree, and a GPU does the
    arithmetic that the interpreter tests, but for its approximate functions. Where fusing pays and
    says the same of equals, the kernels ask for it (`tl.fma`).

    ptxas sometimes spills a few bytes to make room for one more program. So it is told how many
    registers there are: all with double precision, or where rows start anywhere; in programs of
    four warps so many that `programs` fit on a multiprocessor (ptxas takes eight at a time).

    >>> compiler_options(16, (2, 2), True, 5)
    {'num_warps': 16, 'enable_fp_fusion': False}
    >>> compiler_options(4, (2, 2), True, 5)
    {'num_warps': 4, 'enable_fp_fusion': False, 'maxnreg': 96}
    >>> compiler_options(8, (8, 8), True, 5)
    {'num_warps': 8, 'enable_fp_fusion': False, 'maxnreg': 255}
    """
    options = {"num_warps": warps, "enable_fp_fusion": False}
    if 8 in sizes or not aligned:
        options["maxnreg"] = min(255, 65_536 // (32 * warps))
    elif warps == 4:
        options["maxnreg"] = 65_536 // (32 * warps * programs) // 8 * 8
    return options
