"""The launches: the same functions as `kdlab.rows`, through Triton."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from kdlab.kernels import tiles
from kdlab.kernels.backward import backward_kernel
from kdlab.kernels.differences import difference_kernel
from kdlab.kernels.forward import forward_kernel
from kdlab.kernels.lookback import lookback_kernel
from kdlab.kernels.parts import join_kernel, part_kernel, spread_kernel
from kdlab.kernels.row_state import DIVERGENCE, FIELDS
from kdlab.kernels.scale import scale_kernel
from kdlab.kernels.teams import team_kernel, told
from torch import Tensor

from kdlab.rows import STATS, Settings, compute_dtype, room


class Rows(NamedTuple):
    """What the forward pass is given, and where its results go; see `kdlab.rows.forward`."""

    student: Tensor
    teacher: Tensor
    labels: Tensor | None
    keep: Tensor | None
    beta: Tensor
    loss: Tensor
    stats: Tensor
    gradient: Tensor
    gradient_scale: Tensor | None
    settings: Settings

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """As the kernels that make a loss take them first."""
        return self[:-1]

    @property
    def logits(self) -> tuple[Tensor, Tensor]:
        return self.student, self.teacher

    @property
    def strides(self) -> tuple[int, int, int]:
        return self.student.stride(0), self.teacher.stride(0), self.beta.stride(0)

    @property
    def grad_stride(self) -> int:
        return self.student.shape[1] if self.gradient_scale is None else self.gradient.stride(0)

    @property
    def constants(self) -> dict:
        return _constants(self.settings, self.keep, self.loss.dtype)

    @property
    def spread(self) -> bool:
        """Whether sums are made that need p and q: those of `softened.spread`."""
        return self.settings.soft and self.settings.divergence in ("js", "tv")


def _constants(settings: Settings, keep: Tensor | None, dtype: torch.dtype) -> dict:
    return {
        "DIVERGENCE": DIVERGENCE[settings.divergence],
        "SOFT": settings.soft,
        "HARD": settings.hard,
        "HAS_KEEP": keep is not None,
        "ACC": tl.float64 if dtype == torch.float64 else tl.float32,
    }


def _aligned(*logits: Tensor) -> bool:
    # Triton looks at pointers and strides in the same way: only multiples of 16 get wide loads.
    return all(z.data_ptr() % 16 == 0 and z.stride(0) % 16 == 0 for z in logits)


def _sizes(*logits: Tensor) -> tuple[int, ...]:
    return tuple(z.element_size() for z in logits)


def _shape(tile: tiles.Tile, x: Rows, whole: bool = False) -> dict:
    shape = {"BLOCK": tile.block, "VECTOR": tile.vector, "ALIGNED": _aligned(*x.logits)}
    return shape | _options(tile.warps, x.settings, *x.logits, whole=whole)


def _options(warps: int, settings: Settings, *logits: Tensor, whole: bool) -> dict:
    programs = tiles.programs_that_fit(settings.divergence, whole, _architecture())
    return tiles.compiler_options(warps, _sizes(*logits), _aligned(*logits), programs)


def _architecture() -> int:
    """Of the current device, 90 for sm_90; the interpreter has none."""
    if triton.knobs.runtime.interpret:
        return 0
    return triton.runtime.driver.active.get_current_target().arch


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
    dtype = compute_dtype(student, teacher)
    gradient = room(student, settings, gradient_scale is not None)
    student, teacher = settings.compared(student), settings.compared(teacher)
    rows, classes = student.shape
    loss = student.new_empty(rows, dtype=dtype)
    stats = student.new_empty(len(STATS), rows, dtype=dtype)
    x = Rows(student, teacher, labels, keep, beta, loss, stats, gradient, gradient_scale, settings)
    if rows:
        sizes = _sizes(student, teacher)
        tile = tiles.whole_tile(classes, settings.divergence, sizes, _aligned(student, teacher))
        if classes <= tile.block:
            _one_program_a_row(x, tile, one_tile=True)
        else:
            tile = tiles.sweep_tile(settings.divergence, sizes)
            if gradient_scale is None:
                _without(x, tile)
            else:
                _with_gradient(x, tile)
    return loss, stats, gradient


def _with_gradient(x: Rows, tile: tiles.Tile) -> None:
    """Loss and gradient of rows that are longer than a tile, in one launch."""
    if x.settings.divergence == "mse_logits" and not x.settings.hard:
        _differences(x, tile)
    elif by := _team(x):
        _by_teams(x, by)
    else:
        _looking_back(x, tile)


def _without(x: Rows, tile: tiles.Tile) -> None:
    """The loss alone of rows that are longer than a tile."""
    programs = tiles.programs_that_fill(x.student.device)
    parts, part_size = tiles.row_parts(*x.student.shape, tile.block, programs)
    if parts > 1:
        _shared_rows(x, tile, parts, part_size)
    else:
        _one_program_a_row(x, tile, one_tile=False)


def _one_program_a_row(x: Rows, tile: tiles.Tile, one_tile: bool) -> None:
    rows, classes = x.student.shape
    with _device_of(x.student):
        forward_kernel[(rows,)](
            *x.tensors,
            *x.strides,
            x.grad_stride,
            rows,
            classes,
            x.settings.label_weight,
            x.settings.mix,
            TEMPERATURE_SCALING=x.settings.temperature_scaling,
            GRADIENT=x.gradient_scale is not None,
            ONE_TILE=one_tile,
            **x.constants,
            **_shape(tile, x, whole=one_tile),
        )


def _differences(x: Rows, tile: tiles.Tile) -> None:
    rows, classes = x.student.shape
    programs = tiles.programs_that_fill(x.student.device)
    parts, part_size, _ = tiles.lookback_parts(rows, classes, tile.block, programs)
    sums = x.loss.new_empty(rows, parts)
    with _device_of(x.student):
        difference_kernel[(rows * parts,)](
            x.student,
            x.teacher,
            x.keep,
            sums,
            x.gradient,
            x.gradient_scale,
            x.student.stride(0),
            x.teacher.stride(0),
            x.grad_stride,
            classes,
            parts,
            part_size,
            HAS_KEEP=x.constants["HAS_KEEP"],
            ACC=x.constants["ACC"],
            **_shape(tile, x),
        )
    x.stats.zero_()[STATS.index("soft")] = x.loss.copy_(sums.sum(-1))


def _looking_back(x: Rows, tile: tiles.Tile) -> None:
    rows, classes = x.student.shape
    programs = tiles.programs_that_fill(x.student.device)
    parts, part_size, lag = tiles.lookback_parts(rows, classes, tile.block, programs)
    states = x.loss.new_empty(rows, parts, len(FIELDS))
    sums = x.loss.new_empty((rows, parts, 3) if x.spread else 0)
    counters = torch.zeros(rows + 1, dtype=torch.int32, device=x.loss.device)
    with _device_of(x.student):
        lookback_kernel[(rows * parts + (1 + x.spread) * lag,)](
            *x.tensors,
            states,
            sums,
            counters,
            *x.strides,
            x.grad_stride,
            rows,
            classes,
            parts,
            part_size,
            lag,
            x.settings.label_weight,
            x.settings.mix,
            TEMPERATURE_SCALING=x.settings.temperature_scaling,
            **x.constants,
            **_shape(tile, x),
        )


def _team(x: Rows) -> tiles.Team | None:
    """Who holds a row, if any team can: rows start on 16 bytes, and both sides have one dtype, not
    float16, which has no number that is as good as none (PADDING in `teams.py`)."""
    rows, classes = x.student.shape
    dtype = x.student.dtype
    held = x.teacher.dtype == dtype and dtype in (torch.bfloat16, torch.float32)
    if not held or classes % 16 or not _aligned(*x.logits, x.gradient):
        return None
    programs = tiles.programs_at_once(x.student.device)
    size = x.student.element_size()
    return tiles.team(rows, classes, x.settings.divergence, x.settings.hard, size, programs)


def _by_teams(x: Rows, by: tiles.Team) -> None:
    rows, classes = x.student.shape
    teams = min(rows, tiles.programs_at_once(x.student.device) // by.members)
    states = x.loss.new_full((rows, len(FIELDS), by.members), -1, dtype=torch.int32)
    sums = x.loss.new_full((rows, 2, by.members) if x.spread else (0,), -1, dtype=torch.int32)
    with _device_of(x.student):
        team_kernel[(teams * by.members,)](
            *x.tensors,
            states,
            sums,
            *x.strides,
            x.grad_stride,
            rows,
            classes,
            by.members,
            x.settings.label_weight,
            x.settings.mix,
            TEMPERATURE_SCALING=x.settings.temperature_scaling,
            USED=told(x.settings.divergence, x.settings.soft, x.settings.hard),
            **tiles.team_sizes(by.tiles, by.tile),
            launch_cooperative_grid=True,
            **x.constants,
            **tiles.team_options(_architecture()),
        )


def _shared_rows(x: Rows, tile: tiles.Tile, parts: int, part_size: int) -> None:
    """Few rows, many classes: several programs a row, then one that combines their states."""
    rows, classes = x.student.shape
    states = x.loss.new_empty(rows, parts, len(FIELDS))
    sums = x.loss.new_empty(rows, parts, 3)
    cut = *x.strides, classes, part_size
    constants = x.constants
    with _device_of(x.student):
        part_kernel[(rows, parts)](
            *x.logits, x.keep, x.beta, states, *cut, **constants, **_shape(tile, x)
        )
        if x.spread:
            without_soft = {k: v for k, v in constants.items() if k != "SOFT"}
            spread_kernel[(rows, parts)](
                *x.logits, x.keep, x.beta, states, sums, *cut, x.settings.mix,
                **without_soft, **_shape(tile, x))  # fmt: skip
        join_kernel[(rows,)](
            x.student,
            x.labels,
            x.keep,
            x.beta,
            states,
            sums,
            x.loss,
            x.stats,
            x.student.stride(0),
            x.beta.stride(0),
            rows,
            parts,
            x.settings.label_weight,
            x.settings.mix,
            TEMPERATURE_SCALING=x.settings.temperature_scaling,
            **constants,
            **_options(1, x.settings, *x.logits, whole=False),
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
    grad_loss = grad_loss.resolve_neg()
    for_student, for_teacher, for_beta = wanted
    through_beta = for_beta and settings.soft and settings.divergence != "mse_logits"
    grad_student = room(student, settings, for_student)
    grad_teacher = room(teacher, settings, for_teacher)
    student, teacher = settings.compared(student), settings.compared(teacher)
    rows, classes = student.shape
    grad_beta = beta.new_zeros(rows if for_beta else 0)
    if rows == 0:
        return grad_student, grad_teacher, grad_beta
    sizes, aligned = _sizes(student, teacher), _aligned(student, teacher)
    block, _, warps = tiles.whole_tile(classes, settings.divergence, sizes, aligned)
    n_tiles = triton.cdiv(classes, block)
    beta_parts = stats.new_empty((rows, n_tiles) if through_beta else 0)
    if not settings.soft and for_teacher:
        grad_teacher.zero_()
    if for_student or through_beta or (for_teacher and settings.soft):
        with _device_of(student):
            backward_kernel[(rows * n_tiles,)](
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
                grad_student.stride(0) if for_student else classes,
                grad_teacher.stride(0) if for_teacher else classes,
                rows,
                classes,
                n_tiles,
                settings.label_weight,
                settings.mix,
                TEMPERATURE_SCALING=settings.temperature_scaling,
                FOR_STUDENT=for_student,
                FOR_TEACHER=for_teacher and settings.soft,
                FOR_BETA=through_beta,
                ONE_TILE=n_tiles == 1,
                BLOCK=block,
                **_options(warps, settings, student, teacher, whole=True),
                **_constants(settings, keep, stats.dtype),
            )
    if through_beta:
        total = beta_parts.sum(-1)
        scaled = settings.temperature_scaling
        grad_beta = (total - 2 * stats[6]) / beta / beta / beta if scaled else total / beta
        grad_beta = (1 - settings.label_weight) * grad_loss * grad_beta
        if keep is not None:
            grad_beta = torch.where(keep, grad_beta, 0.0)
    return grad_student, grad_teacher, grad_beta


def scale_(gradient: Tensor, factor: Tensor) -> None:
    """gradient *= factor, 0-dim, without waiting for the device and free where it is 1."""
    n, factor = gradient.numel(), factor.resolve_neg()
    if n:
        n_tiles = triton.cdiv(n, tiles.SCALE_TILE["BLOCK"])
        programs = min(n_tiles, tiles.programs_that_fill(gradient.device))
        with _device_of(gradient):
            scale_kernel[(programs,)](gradient, factor, n, **tiles.SCALE_TILE)


def _device_of(tensor: Tensor):
    """Triton launches on the current device: make that the tensor's (nothing to do on the CPU)."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)
