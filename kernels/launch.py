"""Tile sizes, warps and launches: the same functions as `kdlab.rows`, through Triton."""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from kdlab.kernels.backward import backward_kernel
from kdlab.kernels.differences import difference_kernel
from kdlab.kernels.forward import forward_kernel, join_kernel, part_kernel, spread_kernel
from kdlab.kernels.lookback import lookback_kernel
from kdlab.kernels.row_state import FIELDS, JS, KL, MSE, MSE_LOGITS, REVERSE_KL, TV
from kdlab.kernels.scale import scale_kernel
from kdlab.kernels.teams import team_kernel
from torch import Tensor

from kdlab.rows import STATS, Settings, compute_dtype

DIVERGENCE = {
    "kl": KL,
    "reverse_kl": REVERSE_KL,
    "js": JS,
    "mse": MSE,
    "mse_logits": MSE_LOGITS,
    "tv": TV,
}

MAX_BLOCK = 8192
PART_TILES = 4
SCALE_TILE = {"BLOCK": 4096, "num_warps": 8}
TEAM_WARPS = 4
TEAM_PROGRAMS = 4  # on a multiprocessor: a thread may have a quarter of 65,536 registers over 128
# What a row costs a team beside its tiles (telling, waiting, joining), in tiles: on an H100 eight
# tiles took 2.42 ms where six took 2.70, for 8192 × 128,256 logits in bfloat16.
TEAM_OVERHEAD = 5
# The fields of a row's state that a divergence asks for; cross-entropy asks for m_s and z_1.
_SOFTMAXES = ("m_s", "z_s", "m_t", "z_t")
TOLD = {
    "kl": (*_SOFTMAXES, "w", "a"),
    "reverse_kl": (*_SOFTMAXES, "w", "a"),
    "mse": (*_SOFTMAXES, "w", "a", "uu", "vv", "ww", "wv"),
    "mse_logits": ("sq",),
    "tv": (*_SOFTMAXES, "w"),
}


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


def accumulate_dtype(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype == torch.float64 else tl.float32


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
    if divergence not in TOLD:
        return ()
    return (6,) if divergence == "tv" and hard else (8, 6, 5)


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


def told(divergence: str, soft: bool, hard: bool) -> int:
    """A bit for each field of a row's state that a team's members tell each other."""
    fields = TOLD[divergence] if soft else ()
    fields += ("m_s", "z_1") if hard else ()
    return sum(1 << k for k, name in enumerate(FIELDS) if name in fields)


def team_options(architecture: int) -> dict[str, Any]:
    """As `compiler_options`, with the registers that let `TEAM_PROGRAMS` run at once on an
    sm_<architecture>. For sm_80, ptxas is asked to use few: else it spills some of what a row needs
    once. So it does for sm_100, up to 40 bytes, since Triton 3.7 asks ptxas 13 for another register
    allocation than its own, around a fault in it. With its own it would spill 8 bytes, for tv only.
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


def compiler_options(warps: int, sizes: tuple[int, ...], aligned: bool) -> dict[str, int]:
    """The compiler does not fuse multiplications with additions, so that a product is rounded the
    same wherever it is used, p − q is 0 where student and teacher agree, and a GPU does the
    arithmetic that the interpreter tests, but for its approximate functions. Where fusing pays and
    says the same of equals, the kernels ask for it (`tl.fma`).

    ptxas sometimes spills a few bytes to make room for one more program. So it is told how many
    registers there are: all with double precision, or where rows start anywhere; in programs of
    four warps enough for five of them on a multiprocessor.

    >>> compiler_options(16, (2, 2), True)
    {'num_warps': 16, 'enable_fp_fusion': False}
    >>> compiler_options(4, (2, 2), True)
    {'num_warps': 4, 'enable_fp_fusion': False, 'maxnreg': 96}
    >>> compiler_options(8, (8, 8), True)
    {'num_warps': 8, 'enable_fp_fusion': False, 'maxnreg': 255}
    """
    options = {"num_warps": warps, "enable_fp_fusion": False}
    if 8 in sizes or not aligned:
        options["maxnreg"] = min(255, 65_536 // (32 * warps))
    elif warps == 4:
        options["maxnreg"] = 96
    return options


def _aligned(*logits: Tensor) -> bool:
    # Triton looks at pointers and strides in the same way: only multiples of 16 get wide loads.
    return all(z.data_ptr() % 16 == 0 and z.stride(0) % 16 == 0 for z in logits)


def _team_dtype(student: Tensor, teacher: Tensor) -> bool:
    # float16 has no number that is as good as none: see PADDING in `teams.py`.
    return student.dtype == teacher.dtype and student.dtype in (torch.bfloat16, torch.float32)


def _sizes(tile: Tile, *logits: Tensor) -> dict:
    sizes = {"BLOCK": tile.block, "VECTOR": tile.vector, "ALIGNED": _aligned(*logits)}
    return sizes | _options(tile.warps, *logits)


def _options(warps: int, *logits: Tensor) -> dict:
    return compiler_options(warps, tuple(z.element_size() for z in logits), _aligned(*logits))


def _constants(settings: Settings, keep: Tensor | None, dtype: torch.dtype) -> dict:
    return {
        "DIVERGENCE": DIVERGENCE[settings.divergence],
        "SOFT": settings.soft,
        "HARD": settings.hard,
        "HAS_KEEP": keep is not None,
        "ACC": accumulate_dtype(dtype),
    }


def forward(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    settings: Settings,
    gradient_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Row losses (N,), statistics (9, N) and the gradient; arguments as `kdlab.rows.forward`."""
    rows, classes = student.shape
    dtype = compute_dtype(student, teacher)
    loss = student.new_empty(rows, dtype=dtype)
    stats = student.new_empty(len(STATS), rows, dtype=dtype)
    wanted = gradient_scale is not None
    gradient = student.new_empty(student.shape if wanted else 0)
    if rows == 0:
        return loss, stats, gradient
    sizes = student.element_size(), teacher.element_size()
    tile = whole_tile(classes, settings.divergence, sizes, _aligned(student, teacher))
    one_tile = classes <= tile.block
    if not one_tile:
        tile = sweep_tile(settings.divergence, sizes)
    constants = _constants(settings, keep, dtype)
    if gradient_scale is not None and not one_tile:
        if settings.divergence == "mse_logits" and not settings.hard:
            _differences(student, teacher, keep, loss, stats, gradient, gradient_scale, constants,
                         tile)  # fmt: skip
            return loss, stats, gradient
        by = None
        if classes % 16 == 0 and _aligned(student, teacher) and _team_dtype(student, teacher):
            by = team(rows, classes, settings.divergence, settings.hard, sizes[0],
                      programs_at_once(student.device))  # fmt: skip
        if by is None:
            _looking_back(student, teacher, labels, keep, beta, loss, stats, gradient,
                          gradient_scale, settings, constants, tile)  # fmt: skip
        else:
            _by_teams(student, teacher, labels, keep, beta, loss, stats, gradient, gradient_scale,
                      settings, constants, by)  # fmt: skip
        return loss, stats, gradient
    parts, part_size = row_parts(rows, classes, tile.block, programs_that_fill(student.device))
    if parts > 1:
        _shared_rows(student, teacher, labels, keep, beta, loss, stats, settings, constants,
                     parts, part_size, tile)  # fmt: skip
        return loss, stats, gradient
    with _device_of(student):
        forward_kernel[(rows,)](
            student,
            teacher,
            labels,
            keep,
            beta,
            loss,
            stats,
            gradient,
            gradient_scale,
            student.stride(0),
            teacher.stride(0),
            beta.stride(0),
            classes,
            rows,
            classes,
            settings.label_weight,
            settings.mix,
            TEMPERATURE_SCALING=settings.temperature_scaling,
            GRADIENT=wanted,
            ONE_TILE=one_tile,
            **constants,
            **_sizes(tile, student, teacher),
        )
    return loss, stats, gradient


def _differences(
    student: Tensor,
    teacher: Tensor,
    keep: Tensor | None,
    loss: Tensor,
    stats: Tensor,
    gradient: Tensor,
    gradient_scale: Tensor,
    constants: dict,
    tile: Tile,
) -> None:
    """Loss and gradient of mse_logits without labels, for rows that are longer than a tile."""
    rows, classes = student.shape
    programs = programs_that_fill(student.device)
    parts, part_size, _ = lookback_parts(rows, classes, tile.block, programs)
    sums = loss.new_empty(rows, parts)
    with _device_of(student):
        difference_kernel[(rows * parts,)](
            student,
            teacher,
            keep,
            sums,
            gradient,
            gradient_scale,
            student.stride(0),
            teacher.stride(0),
            classes,
            classes,
            parts,
            part_size,
            HAS_KEEP=constants["HAS_KEEP"],
            ACC=constants["ACC"],
            **_sizes(tile, student, teacher),
        )
    stats.zero_()[STATS.index("soft")] = loss.copy_(sums.sum(-1))


def _looking_back(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    loss: Tensor,
    stats: Tensor,
    gradient: Tensor,
    gradient_scale: Tensor,
    settings: Settings,
    constants: dict,
    tile: Tile,
) -> None:
    """Loss and gradient of rows that are longer than a tile, in one launch."""
    rows, classes = student.shape
    programs = programs_that_fill(student.device)
    parts, part_size, lag = lookback_parts(rows, classes, tile.block, programs)
    spread = settings.soft and settings.divergence in ("js", "tv")
    states = loss.new_empty(rows, parts, len(FIELDS))
    sums = loss.new_empty((rows, parts, 3) if spread else 0)
    counters = torch.zeros(rows + 1, dtype=torch.int32, device=loss.device)
    with _device_of(student):
        lookback_kernel[(rows * parts + (1 + spread) * lag,)](
            student,
            teacher,
            labels,
            keep,
            beta,
            loss,
            stats,
            gradient,
            gradient_scale,
            states,
            sums,
            counters,
            student.stride(0),
            teacher.stride(0),
            beta.stride(0),
            classes,
            rows,
            classes,
            parts,
            part_size,
            lag,
            settings.label_weight,
            settings.mix,
            TEMPERATURE_SCALING=settings.temperature_scaling,
            **constants,
            **_sizes(tile, student, teacher),
        )


def _by_teams(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    loss: Tensor,
    stats: Tensor,
    gradient: Tensor,
    gradient_scale: Tensor,
    settings: Settings,
    constants: dict,
    by: Team,
) -> None:
    """Loss and gradient of rows that are longer than a tile, each held by a team of programs."""
    rows, classes = student.shape
    teams = min(rows, programs_at_once(student.device) // by.members)
    spread = settings.soft and settings.divergence == "tv"
    states = loss.new_full((rows, len(FIELDS), by.members), -1, dtype=torch.int32)
    sums = loss.new_full((rows, 2, by.members) if spread else (0,), -1, dtype=torch.int32)
    with _device_of(student):
        architecture = triton.runtime.driver.active.get_current_target().arch
        team_kernel[(teams * by.members,)](
            student,
            teacher,
            labels,
            keep,
            beta,
            loss,
            stats,
            gradient,
            gradient_scale,
            states,
            sums,
            student.stride(0),
            teacher.stride(0),
            beta.stride(0),
            classes,
            rows,
            classes,
            by.members,
            settings.label_weight,
            settings.mix,
            TEMPERATURE_SCALING=settings.temperature_scaling,
            USED=told(settings.divergence, settings.soft, settings.hard),
            **team_sizes(by.tiles, by.tile),
            launch_cooperative_grid=True,
            **constants,
            **team_options(architecture),
        )


def _shared_rows(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    loss: Tensor,
    stats: Tensor,
    settings: Settings,
    constants: dict,
    parts: int,
    part_size: int,
    tile: Tile,
) -> None:
    """Few rows, many classes: several programs a row, then one that combines their states."""
    rows, classes = student.shape
    states = loss.new_empty(rows, parts, len(FIELDS))
    sums = loss.new_empty(rows, parts, 3)
    strides = student.stride(0), teacher.stride(0), beta.stride(0)
    with _device_of(student):
        part_kernel[(rows, parts)](
            student, teacher, keep, beta, states, *strides, classes, part_size,
            **constants, **_sizes(tile, student, teacher))  # fmt: skip
        if settings.soft and settings.divergence in ("js", "tv"):
            without_soft = {k: v for k, v in constants.items() if k != "SOFT"}
            spread_kernel[(rows, parts)](
                student, teacher, keep, beta, states, sums, *strides, classes, part_size,
                settings.mix, **without_soft, **_sizes(tile, student, teacher))  # fmt: skip
        join_kernel[(rows,)](
            student,
            labels,
            keep,
            beta,
            states,
            sums,
            loss,
            stats,
            student.stride(0),
            beta.stride(0),
            rows,
            parts,
            settings.label_weight,
            settings.mix,
            TEMPERATURE_SCALING=settings.temperature_scaling,
            **constants,
            **_options(1, student, teacher),
        )


def backward(
    grad_loss: Tensor,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    keep: Tensor | None,
    beta: Tensor,
    stats: Tensor,
    settings: Settings,
    wanted: tuple[bool, bool, bool] = (True, False, False),
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients for z_s, z_t and β; arguments and results as `kdlab.rows.backward`."""
    rows, classes = student.shape
    for_student, for_teacher, for_beta = wanted
    through_beta = for_beta and settings.soft and settings.divergence != "mse_logits"
    grad_student = student.new_empty(student.shape if for_student else 0)
    grad_teacher = teacher.new_empty(teacher.shape if for_teacher else 0)
    grad_beta = beta.new_zeros(rows if for_beta else 0)
    if rows == 0:
        return grad_student, grad_teacher, grad_beta
    sizes = student.element_size(), teacher.element_size()
    aligned = _aligned(student, teacher)
    block, _, warps = whole_tile(classes, settings.divergence, sizes, aligned)
    tiles = triton.cdiv(classes, block)
    beta_parts = stats.new_empty((rows, tiles) if through_beta else 0)
    if not settings.soft and for_teacher:
        grad_teacher.zero_()
    if for_student or through_beta or (for_teacher and settings.soft):
        with _device_of(student):
            backward_kernel[(rows * tiles,)](
                grad_loss,
                student,
                teacher,
                labels,
                keep,
                beta,
                stats,
                grad_student,
                grad_teacher,
                beta_parts,
                grad_loss.stride(0),
                student.stride(0),
                teacher.stride(0),
                beta.stride(0),
                classes,
                classes,
                rows,
                classes,
                tiles,
                settings.label_weight,
                settings.mix,
                TEMPERATURE_SCALING=settings.temperature_scaling,
                FOR_STUDENT=for_student,
                FOR_TEACHER=for_teacher and settings.soft,
                FOR_BETA=through_beta,
                ONE_TILE=tiles == 1,
                BLOCK=block,
                **compiler_options(warps, sizes, aligned),
                **_constants(settings, keep, stats.dtype),
            )
    if through_beta:
        total = beta_parts.sum(-1)
        scaled = settings.temperature_scaling
        grad_beta = (total - 2 * stats[6]) / beta.pow(3) if scaled else total / beta
        grad_beta = (1 - settings.label_weight) * grad_loss * grad_beta
        if keep is not None:
            grad_beta = torch.where(keep, grad_beta, 0.0)
    return grad_student, grad_teacher, grad_beta


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor, 0-dim, without waiting for the device and free where it is 1."""
    n = gradient.numel()
    if n:
        tiles = triton.cdiv(n, SCALE_TILE["BLOCK"])
        programs = min(tiles, programs_that_fill(gradient.device))
        with _device_of(gradient):
            scale_kernel[(programs,)](gradient, factor, n, **SCALE_TILE)


def _device_of(tensor: Tensor):
    """Triton launches on the current device: make that the tensor's (nothing to do on the CPU)."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)
