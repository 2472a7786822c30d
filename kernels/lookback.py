"""Loss and gradient in one launch, for rows of any length, with each logit read from memory once.

A gradient needs the whole row's statistics, so a row that is longer than a tile is swept twice (by
js and tv three times), and in between it must stay in L2. If each program swept a row of its own,
that would be as many rows as there are multiprocessors. Here a row is cut into parts, and programs
follow each other along the parts of all rows: number t makes the state of part t, and then the
gradient of part t − lag. What must stay in L2 is lag parts, and those on which programs are at
work, whatever the length of a row.

With lag ≥ parts a row − 1, the states that a gradient needs are those of part t and of earlier
ones. So a program looks back: it waits for programs with smaller numbers only, and numbers are
given in the order in which programs start. Nobody waits for a program that has not started, so
nothing stands still, in whatever order and however few at a time the device runs them. With a
larger lag those programs have mostly ended, and nobody waits for long.

Merrill, Garland, "Single-pass Parallel Prefix Scan with Decoupled Look-back", 2016.
"""

import triton
import triton.language as tl
from kdlab.kernels.parts import N_FIELDS, join, join_sums, part_of, store_state, store_sums
from kdlab.kernels.results import (
    gradient_at_label,
    load_softmaxes,
    nothing,
    softmaxes_of,
    statistic,
    store_softmaxes,
    write_loss,
)
from kdlab.kernels.row_state import JS, LOG2_E, TV, finish
from kdlab.kernels.softened import shares, student_gradient
from kdlab.kernels.sweep import lanes, last_tile, load_tile, spread_sweep, sweep


@triton.jit
def arrive(arrived):
    """Say that this program's results (every warp's: hence the barrier) are in memory, and how many
    had arrived before: who is the last may read what the others left."""
    tl.debug_barrier()
    return tl.atomic_add(arrived, 1, sem="acq_rel")


@triton.jit
def wait(arrived, number):
    """Until so many have arrived, whose results can be read from then on."""
    while tl.atomic_add(arrived, 0, sem="acquire") < number:
        pass


@triton.jit
def gradient_tile(
    student,
    teacher,
    grad,
    cols,
    end,
    g,
    b,
    softmaxes,
    dot_s,
    label_weight,
    mix,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    FULL: tl.constexpr,
    ACC: tl.constexpr,
):
    """g times the gradient of one tile. Nobody needs it, or the logits, afterwards: they may leave
    the caches first."""
    s, t = load_tile(student, teacher, cols, end, ACC, SOFT, FULL, LAST=True)
    out = student_gradient(
        s, t, g, b, softmaxes, dot_s, label_weight, mix, DIVERGENCE, SOFT,
        HARD, TEMPERATURE_SCALING, False).to(grad.dtype.element_ty)  # fmt: skip
    if FULL:
        tl.store(grad + cols, out, eviction_policy="evict_first")
    else:
        tl.store(grad + cols, out, mask=cols < end, eviction_policy="evict_first")


@triton.jit
def gradient_sweep(
    student,
    teacher,
    grad,
    label,
    begin,
    end,
    g,
    b,
    softmaxes,
    dot_s,
    label_weight,
    mix,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """g times the gradient of the classes from begin to end, from the end backwards: what was read
    last is the likeliest to be in L2 still."""
    offsets = lanes(BLOCK, VECTOR, ALIGNED)
    last = last_tile(begin, end, BLOCK)
    gradient_tile(student, teacher, grad, last + offsets, end, g, b, softmaxes, dot_s, label_weight,
                  mix, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, False, ACC)  # fmt: skip
    for i in range((last - begin) // BLOCK - 1, -1, -1):
        cols = begin + i * BLOCK + offsets
        gradient_tile(student, teacher, grad, cols, end, g, b, softmaxes, dot_s, label_weight, mix,
                      DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, True, ACC)  # fmt: skip
    if HARD:
        gradient_at_label(
            student, teacher, grad, label, begin, end, g, b, softmaxes, dot_s, label_weight, mix,
            DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, ACC)  # fmt: skip


@triton.jit
def lookback_kernel(
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
    sums,
    counters,
    student_stride,
    teacher_stride,
    beta_stride,
    grad_stride,
    n_rows,
    n_classes,
    parts,
    part_size,
    lag,
    label_weight: tl.float64,
    mix: tl.float64,
    DIVERGENCE: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    HAS_KEEP: tl.constexpr,
    TEMPERATURE_SCALING: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    VECTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """`counters`, zeros: how many parts of each row have arrived, and one more when the last has
    joined them all; for js and tv, then the same once more. At the end, how many programs began."""
    SPREAD: tl.constexpr = SOFT and (DIVERGENCE == JS or DIVERGENCE == TV)
    label_weight = shares(label_weight, ACC)
    mix = shares(mix, ACC)
    number = tl.atomic_add(counters + n_rows, 1, sem="relaxed")
    everything = n_rows * parts

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
        states += row * parts * N_FIELDS
        store_state(states + number % parts * N_FIELDS, state)
        if arrive(counters + row) == parts - 1:
            state = join(states, parts, b * LOG2_E, DIVERGENCE, SOFT, HARD, ACC)
            softmaxes = softmaxes_of(state, DIVERGENCE)
            store_softmaxes(softmaxes, stats, row, n_rows)
            if not SPREAD:
                soft, dot_s, dot_t = finish(state, DIVERGENCE)
                write_loss(
                    softmaxes, soft, dot_s, dot_t, student_row, labels, loss, stats, row, n_rows, b,
                    counts, label_weight, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, False,
                    ACC)  # fmt: skip
            arrive(counters + row)
    number -= lag

    if SPREAD:
        if (number >= 0) & (number < everything):
            row, begin, end = part_of(number, parts, part_size, n_classes)
            counts = True
            if HAS_KEEP:
                counts = tl.load(keep + row) != 0
                end = tl.where(counts, end, begin)
            b = tl.load(beta + row * beta_stride).to(ACC)
            student_row = student + row * student_stride
            wait(counters + row, parts + 1)
            softmaxes = load_softmaxes(stats, row, n_rows)
            dot_s, dot_t, soft = spread_sweep(
                student_row, teacher + row * teacher_stride, begin, end, b * LOG2_E, softmaxes, mix,
                DIVERGENCE, False, ACC, BLOCK, VECTOR, ALIGNED)  # fmt: skip
            sums += row * parts * 3
            store_sums(sums + number % parts * 3, dot_s, dot_t, soft)
            if arrive(counters + row) == 2 * parts:
                dot_s, dot_t, soft = join_sums(
                    sums, parts, softmaxes[1], softmaxes[3], mix, DIVERGENCE, ACC)  # fmt: skip
                write_loss(
                    softmaxes, soft, dot_s, dot_t, student_row, labels, loss, stats, row, n_rows, b,
                    counts, label_weight, DIVERGENCE, SOFT, HARD, TEMPERATURE_SCALING, False,
                    ACC)  # fmt: skip
                arrive(counters + row)
        number -= lag

    if number >= 0:
        row, begin, end = part_of(number, parts, part_size, n_classes)
        grad += row * grad_stride
        counts = True
        if HAS_KEEP:
            counts = tl.load(keep + row) != 0
        if counts:
            b = tl.load(beta + row * beta_stride).to(ACC)
            g = tl.load(grad_scale).to(ACC)
            label = 0
            if HARD:
                label = tl.load(labels + row)
            wait(counters + row, (parts + 1) * (1 + SPREAD))
            softmaxes = load_softmaxes(stats, row, n_rows)
            dot_s = tl.load(statistic(stats, 4, row, n_rows))
            gradient_sweep(student + row * student_stride, teacher + row * teacher_stride, grad,
                           label, begin, end, g, b, softmaxes, dot_s, label_weight, mix, DIVERGENCE,
                           SOFT, HARD, TEMPERATURE_SCALING, ACC, BLOCK, VECTOR,
                           ALIGNED)  # fmt: skip
        else:
            nothing(grad, begin, end, BLOCK, VECTOR, ALIGNED)
