"""The kernels compiled for chips that are not here: no spills, and 128-bit loads and stores.

Covered: every kernel with every divergence for sm_90, in bf16 and fp32 at the widest tile, α = ½,
with mask and T²; in fp64 js and mse, which have most to hold. And, pairwise, what the launcher can
choose: kernel, divergence, α (0, between, 1), tile, architecture (sm_80, 90, 100), the dtype of the
student, that of the teacher, mask or none, T² or none, and rows that start on 16 bytes or not. Any
value of one of these occurs together with any value of another, where the launcher can make the two
meet; three at a time do not all occur. `make kernel-check` lets any four, and teams all. How the
arguments of real calls are specialised: tests/emulated/test_launches.py.
"""

import inspect
import os
import random
import re
import subprocess
from itertools import combinations, product
from pathlib import Path

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
from kdlab.kernels import parts, results
from kdlab.kernels.instructions import A_BYTE, disassembly, loops
from kdlab.kernels.resources import (
    ARCHITECTURES,
    BACKWARD,
    BYTES,
    KERNELS,
    TEAMS,
    compile_kernel,
    compiled,
    main,
    runs,
)
from kdlab.kernels.row_state import DIVERGENCE
from kdlab.kernels.tiles import MAX_BLOCK, team_tiles
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

OTHERS = [k for k in KERNELS if k != TEAMS]  # of any dtypes, aligned or not
PAIRS = [(k, d) for k, d in product(OTHERS, DIVERGENCE) if runs(k, d)]
NO_LABELS = ("forward + gradient, mse_logits", "mse_logits")  # the only kernel with α = 0 only
SWEEPS = ("forward", "forward + gradient", "backward")
STRENGTH = int(os.environ.get("KDLAB_COMPILE_STRENGTH", 2))
CONSTRAINED = (OTHERS, list(DIVERGENCE), [0.0, 0.5, 1.0], [1 << n for n in range(4, 14)])
FREE = (ARCHITECTURES, list(BYTES), list(BYTES), *[[True, False]] * 3)


def covering(strength):
    """Configurations in which any `strength` choices that can meet do: for each such set that is
    still missing, of some that have it the one that has the most others."""
    rng = random.Random(0)
    legal = [c for c in product(*CONSTRAINED) if runs(*c)]
    having = {}  # by some of the choices that don't go with all others: configurations with them
    for c in legal:
        for n in range(strength + 1):
            for some in combinations(enumerate(c), n):
                having.setdefault(some, []).append(c)
    free = [[(i, v) for v in choice] for i, choice in enumerate(FREE, len(CONSTRAINED))]
    missing = {
        some + others
        for some in having
        if 0 <= strength - len(some) <= len(free)
        for places in combinations(free, strength - len(some))
        for others in product(*places)
    }
    chosen = []
    for wanted in rng.sample(sorted(missing, key=str), len(missing)):
        if wanted in missing:
            fixed = dict(wanted)
            first = having[tuple(pair for pair in wanted if pair[0] < len(CONSTRAINED))]
            tries = [
                rng.choice(first)
                + tuple(fixed.get(i, rng.choice(v)) for i, v in enumerate(FREE, len(CONSTRAINED)))
                for _ in range(20)
            ]
            new = [missing & set(combinations(enumerate(c), strength)) for c in tries]
            best = max(range(20), key=lambda k: len(new[k]))
            missing -= new[best]
            chosen.append(tries[best])
    return chosen


def check(kernel, divergence, label_weight, block, architecture, dtypes, keep, scaled, aligned):
    options = dict(teacher_dtype=dtypes[1], keep=keep, temperature_scaling=scaled, aligned=aligned)
    r = compile_kernel(kernel, architecture, dtypes[0], divergence, label_weight, block, **options)
    assert r.spilt_bytes == 0, r
    if kernel in ("join of the parts", "scale in place") or not aligned:
        return  # one reads no logits; the other may not read, and its branch decides how
    # 16 bytes a load: what a thread holds of each tensor that is read, once for each of its places
    each = r.block / (32 * r.warps)
    student, teacher = (each * BYTES[dtype] / 16 for dtype in dtypes)
    if min(student, teacher) < 1:
        return  # a thread of a narrow tile has less than 16 bytes
    soft = label_weight < 1
    places, stores = 1, 1
    if kernel in ("forward", "forward + gradient", "part of a row"):
        places = 5  # `sweep`: the last tile and those before; maxima, and both again, with care
    if kernel in ("forward", "forward + gradient") and soft and divergence in ("js", "tv"):
        places += 1
    if kernel == "forward + gradient, mse_logits":
        places, stores = 2, 2 + keep
    if kernel == "forward + gradient":
        # its last tile, and those before; zeros for rows that don't count
        places, stores = places + 2, 2 + keep
    assert r.wide_loads == places * (student + teacher * soft), r
    wanted = BACKWARD.get(kernel, ())
    to_student, to_teacher = "gradient" in kernel or "STUDENT" in wanted, "TEACHER" in wanted
    assert r.wide_stores == stores * (to_student * student + to_teacher * teacher), r


@pytest.mark.parametrize(
    ("kernel", "divergence", "dtype"),
    [
        *((*pair, dtype) for pair, dtype in product([*PAIRS, NO_LABELS], ("bf16", "fp32"))),
        *((*pair, "fp64") for pair in PAIRS if pair[1] in ("js", "mse")),
    ],
)
def test_widest_tile(kernel, divergence, dtype):
    label_weight = 0.5 if runs(kernel, divergence) else 0.0
    check(kernel, divergence, label_weight, MAX_BLOCK, 90, (dtype, dtype), True, True, True)


@pytest.mark.parametrize("configuration", covering(STRENGTH), ids=str)
def test_choices_together(configuration):
    *choices, student, teacher, keep, scaled, aligned = configuration
    check(*choices, (student, teacher), keep, scaled, aligned)


@pytest.mark.parametrize(
    ("kernel", "divergence", "block", "architecture", "dtypes", "keep"),
    [
        ("backward, all three", "kl", 2048, 100, ("fp16", "fp16"), True),
        ("backward, all three", "tv", 2048, 90, ("bf16", "bf16"), False),
        ("forward, one tile", "tv", 2048, 100, ("bf16", "fp16"), True),
        ("forward, one tile", "tv", 2048, 80, ("bf16", "bf16"), True),
        ("forward", "kl", MAX_BLOCK, 100, ("bf16", "fp32"), False),
        ("forward + gradient", "kl", MAX_BLOCK, 100, ("bf16", "bf16"), False),
    ],
)
def test_where_room_for_five_programs_would_spill(
    kernel, divergence, block, architecture, dtypes, keep
):
    check(kernel, divergence, 0.5, block, architecture, dtypes, keep, True, True)


def teams():
    """All divergences, α and dtypes, on sm_90 with the most tiles that a member may hold, where
    registers are scarcest, with mask and T²; a sixth of them also without; a third of what holds
    fewer tiles; half of the fullest on sm_80, the other half on sm_100. For `make kernel-check`,
    all of it with all of it."""
    every = [
        (d, a, tiles, dtype)
        for d, a, dtype in product(DIVERGENCE, (0.0, 0.5, 1.0), ("bf16", "fp32"))
        if runs(TEAMS, d, a)
        for tiles in team_tiles(d, a > 0)
    ]
    if STRENGTH > 2:
        everywhere = product(ARCHITECTURES, every, (True, False), (True, False))
        return [(architecture, *c, *options) for architecture, c, *options in everywhere]
    fullest = [c for c in every if c[2] == max(team_tiles(c[0], c[1] > 0))]
    smaller = [c for c in every if c not in fullest]
    half = {c for i, c in enumerate(fullest) if (i + i // 2) % 2}  # some of each dtype
    return [
        *((90, *c, True, True) for c in fullest + smaller[::3]),
        *((90, *c, False, False) for c in fullest[::6]),
        *((100 if c in half else 80, *c, True, True) for c in fullest),
    ]


def spilt_by_ptxas_itself(ptx):
    """Bytes, where it allocates registers in its own way instead of Triton's."""
    tool = triton.knobs.nvidia.ptxas_blackwell.path
    options = ["--gpu-name=sm_100a", "--fmad=false", "--verbose", "--output-file=/dev/null", "-"]
    found = subprocess.run([tool, *options], input=ptx, capture_output=True, text=True, check=True)
    return int(re.search(r"(\d+) bytes stack frame", found.stderr)[1])


@pytest.mark.parametrize(
    ("architecture", "divergence", "label_weight", "tiles", "dtype", "keep", "scaled"), teams()
)
def test_teams(architecture, divergence, label_weight, tiles, dtype, keep, scaled):
    given = (TEAMS, architecture, dtype, divergence, label_weight, MAX_BLOCK)
    options = dict(keep=keep, temperature_scaling=scaled, tiles=tiles)
    r = compile_kernel(*given, **options)
    # On sm_100: a few registers, of what a row needs once, not of its logits: `team_options`.
    most = 48 if divergence == "tv" else 8 if scaled or divergence != "reverse_kl" else 16
    assert r.spilt_bytes <= (most if architecture == 100 else 0), r
    if architecture == 100:
        ptx = compiled(*given, **options).asm["ptx"]
        assert spilt_by_ptxas_itself(ptx) <= (8 if divergence == "tv" else 0), r
    assert r.registers <= 128, r  # four programs of four warps on a multiprocessor
    assert r.wide_loads == tiles * (1 + (label_weight < 1)), r
    assert r.wide_stores == tiles + keep, r


CHEAP = [
    *((k, d, a) for k, d, a in product(SWEEPS, DIVERGENCE, (0.0, 0.5)) if runs(k, d, a)),
    (*NO_LABELS, 0.0),
    *((TEAMS, d, a) for d, a in product(DIVERGENCE, (0.0, 0.5)) if runs(TEAMS, d, a)),
]


@pytest.mark.parametrize(("kernel", "divergence", "label_weight"), CHEAP)
def test_arithmetic_leaves_memory_the_bottleneck(kernel, divergence, label_weight):
    """On an H100, in bf16; but js, whose logarithms cost more than its bytes there, and mse and tv
    in teams, whose count holds the rare sweep with care as well, in fp32."""
    dear = ("js", "mse", "tv") if kernel == TEAMS else ("js",)
    dtype = "fp32" if divergence in dear else "bf16"
    r = compile_kernel(kernel, 90, dtype, divergence, label_weight, MAX_BLOCK)
    read, written = 2 * BYTES[dtype], BYTES[dtype]
    *sweeps, last = r.instructions
    assert all(sweep <= A_BYTE * read for sweep in sweeps), r
    assert last <= A_BYTE * (read if kernel == "forward" else read + written), r


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_look_back_waits_before_it_reads_and_writes_before_it_arrives(divergence, architecture):
    """In the order of the instructions, for each of a row's sums: what a part leaves, a fence, its
    arrival; what the last to arrive reads, with L1 emptied, and leaves, a fence, its arrival; a
    wait that empties L1, and what is read then."""
    binary = compiled("forward + gradient", architecture, "bf16", divergence, 0.0, MAX_BLOCK)
    listing, _ = loops(disassembly(binary.asm["cubin"]))

    def places(pattern, function=None):
        lines, first = inspect.getsourcelines(function.fn) if function else ([], 0)
        name = Path(inspect.getsourcefile(function.fn)).name if function else ""
        span = range(first, first + len(lines))
        return [
            i
            for i, (text, file, line) in enumerate(listing)
            if re.search(pattern, text) and (function is None or (file == name and line in span))
        ]

    kept = places(r"\bSTG", parts.store_state), places(r"\bSTG", parts.store_sums)
    asked = places(r"\bLDG", parts.load_states), places(r"\bLDG", parts.join_sums)
    fences, arrivals = places(r"\bMEMBAR\S*GPU"), places(r"\b(RED|ATOM)G?\.E\.ADD\.STRONG\.GPU")
    waits, fresh = places(r"\bLDG?\.E\S*\.STRONG\.GPU"), places(r"\bCCTL\.IVALL")
    joined = places(r"\bSTG", results.store_softmaxes), places(r"\bSTG", results.write_loss)
    read = places(r"\bLDG", results.load_softmaxes)
    number, *arrivals = arrivals
    rounds = 1 + (divergence == "js")
    assert len(arrivals) == 2 * len(waits) == 2 * rounds
    assert number < min(kept[0]) and all(kept[i] and asked[i] and joined[i] for i in range(rounds))
    for i, (part, row, wait) in enumerate(zip(arrivals[::2], arrivals[1::2], waits, strict=True)):
        assert any(max(kept[i]) < fence < part for fence in fences)
        assert any(part < f < min(asked[i]) for f in fresh)
        assert any(max(joined[i]) < fence < row for fence in fences)
        assert any(row < wait < f < min(r for r in read if r > wait) for f in fresh)


@pytest.mark.parametrize("kernel", [k for k, (f, _) in KERNELS.items() if "mix" in f.arg_names])
def test_a_launch_passes_mix_and_label_weight_in_float64(kernel):
    """What Triton's launcher makes of Python floats, which it would otherwise pass as fp32."""
    function, _ = KERNELS[kernel]
    backend = make_backend(GPUTarget("cuda", 90, 32))
    bind = create_function_from_signature(function.signature, function.params, backend)
    _, types, _ = bind(*[0.3 if n in ("label_weight", "mix") else 1 for n in function.arg_names])
    passed = {n: t[0] for n, t in zip(function.arg_names, types, strict=True)}
    assert passed["mix"] == passed.get("label_weight", "fp64") == "fp64"


@pytest.mark.parametrize("dtype", ["fp64", "fp32"])
@pytest.mark.parametrize(("kernel", "divergence"), [p for p in PAIRS if p[1] in ("js", "mse")])
def test_each_precision_keeps_to_itself(kernel, divergence, dtype):
    """α and mix arrive as fp64; fp64 kernels round nothing to fp32, fp32 ones only those two, and
    what they leave of 1."""
    code = compiled(kernel, 90, dtype, divergence, 0.5, MAX_BLOCK).asm["ttir"]
    numbers = len(re.findall(r"%(?:label_weight|mix): f64", code))
    function, _ = KERNELS[kernel]
    assert numbers == len({"label_weight", "mix"} & set(function.arg_names))
    lines = [line for line in code.splitlines() if line.lstrip().startswith("%")]
    if dtype == "fp64":  # the label's 1 and 0 are widened, and lose nothing
        narrow = [line for line in lines if "truncf" in line or "extf" in line]
        assert all("%hard" in line and "extf" in line for line in narrow)
    else:
        doubles = [line for line in lines if "f64" in line]
        made = [line for line in doubles if "truncf" not in line]
        assert len(doubles) - len(made) <= 2 * numbers
        assert all(re.search(r"arith\.(subf|constant 1\.0)", line) for line in made)


@pytest.mark.parametrize("kernel", ["forward", "backward", "join of the parts", TEAMS])
def test_offsets_of_statistics_are_64_bit(kernel):
    """8 n_rows passes 2³¹ from 2²⁸ rows on. (Look-back has a program for each part of each row,
    and no grid has 2³¹ of them.)"""
    ttir = compiled(kernel, 90, "bf16", "kl", 0.5, MAX_BLOCK).asm["ttir"]
    assert "%n_rows" in ttir and not re.search(r"muli .*%n_rows\S*.* : i32", ttir)


def test_the_report_can_be_restricted(capsys):
    main(["--sm", "90", "--dtype", "bf16", "--kernel", "scale"])
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("kernel") and row.split()[:5] == ["scale", "in", "place", "90", "bf16"]
    with pytest.raises(SystemExit, match="2"):
        main(["--kernel", "nothing"])
    assert "--kernel: got 'nothing'; expected a part of ['forward'," in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
