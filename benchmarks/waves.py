"""A candidate for `kernels/lookback.py`, not yet timed on a GPU: its second read is meant for L1.

On an H100 what held look-back at 80 % of a copy's speed was the link between the two halves of L2,
which the second read of every logit crosses as often as the first
(`results/counters-nvidia-h100-80gb-hbm3-2026-11-26.json`). Here the program that made the state of
a part makes its gradient too, so that its multiprocessor may still have the logits in its L1. That
must not be emptied in between, as every acquire does, so programs tell each other numbers rather
than counts: a word of memory that is all ones has not been written yet, any other is a float32.

All programs run at once, in a cooperative launch, and go along the parts of all rows in waves:
program r sums part r of wave k, and then makes the gradient of its part of wave k − 1. The row of
that part ends in wave k at the latest (a wave has at least as many parts as a row), and in no wave
does anybody wait before its part is summed. So nobody waits for ever, and mostly nobody waits,
since a whole wave has gone by.

Not for js and tv, which would need a wave more, nor for double precision.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from kdlab.kernels.forward import (
    JOIN,
    N_FIELDS,
    softmaxes_of,
    store_softmaxes,
    sweep,
    write_loss,
)
from kdlab.kernels.launch import Tile, _aligned
from kdlab.kernels.lookback import gradient_sweep, nothing, part_of
from kdlab.kernels.row_state import FIELDS, LOG2_E, collapse, combine, empty, finish
from kdlab.kernels.softened import as_number
from torch import Tensor

from kdlab.rows import Settings

UNWRITTEN = tl.constexpr(-1)  # all ones: a NaN that no arithmetic gives
LOW = tl.constexpr(-0x800000)  # −∞
ROW_WORDS = tl.constexpr(8)  # m_s, z_s, m_t, z_t, z_1 and dot_s of a row; a sector of memory
USES = {  # the fields of a state that anybody asks for
    "kl": ("m_s", "z_s", "m_t", "z_t", "w", "a"),
    "reverse_kl": ("m_s", "z_s", "m_t", "z_t", "w", "a"),
    "mse": ("m_s", "z_s", "m_t", "z_t", "w", "uu", "vv", "ww", "wv"),
    "mse_logits": ("sq",),
}


@triton.jit
def tell(word, x):
    """Write a number where others wait for it, at once and without making them wait for more."""
    bits = tl.where(x == x, x, float("nan")).to(tl.int32, bitcast=True)
    tl.atomic_xchg(word, bits, sem="relaxed")


@triton.jit
def look(word, there, other, USED: tl.constexpr):
    """A word as it is now, not as L1 may have kept it."""
    if USED:
        out = tl.load(word, mask=there, other=other, volatile=True)
    else:
        out = tl.full(there.shape, other, tl.int32)
    return out


@triton.jit
def look_at_states(x, there, USED: tl.constexpr):
    return (
        look(x, there, LOW, USED & 1),
        look(x + 1, there, 0, USED & 2),
        look(x + 2, there, LOW, USED & 4),
        look(x + 3, there, 0, USED & 8),
        look(x + 4, there, 0, USED & 16),
        look(x + 5, there, 0, USED & 32),
        look(x + 6, there, 0, USED & 64),
        look(x + 7, there, 0, USED & 128),
        look(x + 8, there, 0, USED & 256),
        look(x + 9, there, 0, USED & 512),
        look(x + 10, there, 0, USED & 1024),
        look(x + 11, there, 0, USED & 2048),
    )


@triton.jit
def look_at_row(x):
    return (
        tl.load(x, volatile=True),
        tl.load(x + 1, volatile=True),
        tl.load(x + 2, volatile=True),
        tl.load(x + 3, volatile=True),
        tl.load(x + 4, volatile=True),
        tl.load(x + 5, volatile=True),
    )


@triton.jit
def missing(words):
    out = words[0] == UNWRITTEN
    for k in tl.static_range(1, len(words)):
        out = out | (words[k] == UNWRITTEN)
    return out


@triton.jit
def numbers(words):
    out = ()
    for k in tl.static_range(len(words)):
        out = out + (words[k].to(tl.float32, bitcast=True),)  # noqa: RUF005
    return out


@triton.jit
def join(
    states,
    parts,
    c,
    USED: tl.constexpr,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
):
    """The state of a row, when all its parts have told theirs."""
    state = empty(JOIN, tl.float32)
    for first in range(0, parts, JOIN):
        part = first + tl.arange(0, JOIN)
        words = look_at_states(states + part * N_FIELDS, part < parts, USED)
        while tl.max(missing(words).to(tl.int32), 0) > 0:
            words = look_at_states(states + part * N_FIELDS, part < parts, USED)
        state = combine(state, numbers(words), c, DIVERGENCE, SOFT, HARD)
    return collapse(state, c, DIVERGENCE, SOFT, HARD)


@triton.jit
def waves_kernel(
    student,
    teacher,
    labels,
    keep,
    beta,
    loss,
    stats,
    grad,
    grad_scale,
    states,
    ready,
    arrived,
    student_stride,
    teacher_stride,
    beta_stride,
    grad_stride,
    n_rows,
    n_classes,
    parts,
    part_size,
    label_weight: tl.float64,
    mix: tl.float64,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    USED: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """`states` (rows, parts, 12) and `ready` (rows, 8): all ones. `arrived` (rows): zeros."""
    label_weight = as_number(label_weight, ACC)
    mix = as_number(mix, ACC)
    g = tl.load(grad_scale).to(ACC)
    wave = tl.num_programs(0)
    everything = n_rows * parts

    for number in range(tl.program_id(0), everything + wave, wave):
        if number < everything:
            row, begin, end = part_of(number, parts, part_size, n_classes)
            counts = True
            if HAS_KEEP:
                counts = tl.load(keep + row) != 0
                end = tl.where(counts, end, begin)  # a row that counts for nothing is not even read
            b = tl.load(beta + row * beta_stride).to(ACC)
            student_row = student + row * student_stride
            state = sweep(student_row, teacher + row * teacher_stride, begin, end, b * LOG2_E,
                          DIVERGENCE, SOFT, HARD, ACC, BLOCK, VECTOR, ALIGNED)  # fmt: skip
            for k in tl.static_range(N_FIELDS):
                if (USED >> k) & 1:
                    tell(states + (row * parts + number % parts) * N_FIELDS + k, state[k])
            if tl.atomic_add(arrived + row, 1, sem="relaxed") == parts - 1:
                state = join(states + row * parts * N_FIELDS, parts, b * LOG2_E, USED, DIVERGENCE,
                             SOFT, HARD)  # fmt: skip
                softmaxes = softmaxes_of(state)
                soft, dot_s, dot_t = finish(state, DIVERGENCE)
                for k in tl.static_range(5):
                    tell(ready + row * ROW_WORDS + k, softmaxes[k])
                tell(ready + row * ROW_WORDS + 5, dot_s)
                store_softmaxes(softmaxes, stats, row, n_rows)
                write_loss(
                    softmaxes, soft, dot_s, dot_t, student_row, labels, loss, stats, row, n_rows, b,
                    counts, label_weight, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, False,
                    ACC)  # fmt: skip

        if number >= wave:
            row, begin, end = part_of(number - wave, parts, part_size, n_classes)
            counts = True
            if HAS_KEEP:
                counts = tl.load(keep + row) != 0
            if counts:
                b = tl.load(beta + row * beta_stride).to(ACC)
                label = 0
                if HARD:
                    label = tl.load(labels + row)
                words = look_at_row(ready + row * ROW_WORDS)
                while missing(words):
                    words = look_at_row(ready + row * ROW_WORDS)
                m_s, z_s, m_t, z_t, z_1, dot_s = numbers(words)
                gradient_sweep(
                    student + row * student_stride, teacher + row * teacher_stride,
                    grad + row * grad_stride, label, begin, end, g, b, (m_s, z_s, m_t, z_t, z_1),
                    dot_s, label_weight, mix, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, ACC,
                    BLOCK, VECTOR, ALIGNED)  # fmt: skip
            else:
                nothing(grad + row * grad_stride, begin, end, BLOCK, VECTOR, ALIGNED)


def looking_back(
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
    constants: dict[str, Any],
    tile: Tile,
    *,
    part_tiles: int,
    each: int,
) -> None:
    """What `launch._looking_back` does. `each`: programs on each multiprocessor, for as many of
    which its registers must do."""
    rows, classes = student.shape
    part_size = part_tiles * tile.block
    parts = triton.cdiv(classes, part_size)
    programs = programs_at_once(student.device, each)
    uses = USES[settings.divergence] if settings.soft else ()
    uses += ("m_s", "z_1") if settings.hard else ()
    if parts > programs:
        raise ValueError(f"{parts} parts a row, but only {programs} programs at a time")
    n_states = rows * parts * len(FIELDS)
    words = torch.full(
        (n_states + ROW_WORDS.value * rows,), UNWRITTEN.value, dtype=torch.int32, device=loss.device
    )
    waves_kernel[(programs,)](
        student,
        teacher,
        labels,
        keep,
        beta,
        loss,
        stats,
        gradient,
        gradient_scale,
        words[:n_states],
        words[n_states:],
        torch.zeros(rows, dtype=torch.int32, device=loss.device),
        student.stride(0),
        teacher.stride(0),
        beta.stride(0),
        classes,
        rows,
        classes,
        parts,
        part_size,
        settings.label_weight,
        settings.mix,
        TEMPERATURE_SCALING=settings.temperature_scaling,
        USED=sum(1 << k for k, name in enumerate(FIELDS) if name in uses),
        BLOCK=tile.block,
        VECTOR=tile.vector,
        ALIGNED=_aligned(student, teacher),
        num_warps=tile.warps,
        maxnreg=min(255, 65_536 // (32 * tile.warps * each) // 8 * 8),
        enable_fp_fusion=False,
        launch_cooperative_grid=True,
        **constants,
    )


def programs_at_once(device: torch.device, each: int) -> int:
    """`each` on every multiprocessor; elsewhere that many in all."""
    if device.type != "cuda":
        return each
    return each * torch.cuda.get_device_properties(device).multi_processor_count
