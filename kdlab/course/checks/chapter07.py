"""Exercises of 07_inside_the_kernel."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from kdlab import reference
from kdlab.course.exercises import Hint, exercise


def _begun(answer: Any) -> Any:
    if answer is None or answer is ...:
        raise Hint("return something: the function gives nothing back yet")
    return answer


def _logits(n: int, generator: torch.Generator) -> Tensor:
    return 3 * torch.randn(n, generator=generator, dtype=torch.float64)


def _cuts(n: int, pieces: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n - 1, generator=generator)[: pieces - 1].sort().values + 1


@exercise("7.1", "Join two halves")
def _(merge: Callable) -> None:
    generator = torch.Generator().manual_seed(71)
    for trial in range(50):
        # Both orders: the larger maximum on either side, and far apart.
        a, b = _logits(5, generator), _logits(7, generator) + (-1) ** trial * trial
        states = [(x.max().item(), (x - x.max()).exp().sum().item()) for x in (a, b)]
        joined = _begun(merge(*states))
        if not isinstance(joined, tuple | list) or len(joined) != 2:
            raise Hint("return two numbers, the new m and the new Z")
        m, z = joined
        if not math.isclose(m, max(states[0][0], states[1][0])):
            raise Hint("the first number: the maximum of both parts")
        if math.isclose(z, states[0][1] + states[1][1]):
            raise Hint("the two sums are about different maxima; move both to the new one first")
        both = torch.cat([a, b])
        if not math.isclose(z, (both - both.max()).exp().sum().item(), rel_tol=1e-9):
            raise Hint(
                "Z is about the old maximum m; about m' each of its terms is e^(m − m') of it"
            )


def _state(z_s: Tensor, z_t: Tensor, beta: float) -> tuple[Tensor, ...]:
    """(m_s, Z_s, m_t, Z_t, A) about the maxima of β z, with masked classes left out."""
    x_s, x_t = beta * z_s, beta * z_t
    m_s, m_t = x_s.max(), x_t.max()
    y_s = x_s - m_s.masked_fill(m_s == -torch.inf, 0.0)
    y_t = x_t - m_t.masked_fill(m_t == -torch.inf, 0.0)
    terms = (y_t.exp() * (y_t - y_s)).masked_fill(x_t == -torch.inf, 0.0)
    return m_s, y_s.exp().sum(), m_t, y_t.exp().sum(), terms.sum()


@exercise("7.2", "combine")
def _(combine: Callable) -> None:
    generator = torch.Generator().manual_seed(72)
    names = ("m_s", "Z_s", "m_t", "Z_t", "A")
    for _ in range(30):
        z_s, z_t = _logits(40, generator), _logits(40, generator)
        beta = 0.2 + 2 * torch.rand((), generator=generator).item()
        cuts = _cuts(40, 2, generator)
        parts = [
            _state(a, b, beta)
            for a, b in zip(z_s.tensor_split(cuts), z_t.tensor_split(cuts), strict=True)
        ]
        joined = _begun(combine(parts[0], parts[1], beta))
        if not isinstance(joined, tuple | list) or len(joined) != 5:
            raise Hint("return five numbers: m_s, Z_s, m_t, Z_t, A")
        for name, got, expected in zip(names, joined, _state(z_s, z_t, beta), strict=True):
            if not math.isclose(float(got), float(expected), rel_tol=1e-8, abs_tol=1e-10):
                raise Hint(_COMBINE[name])
        swapped = combine(parts[1], parts[0], beta)
        for got, expected in zip(swapped, joined, strict=True):
            if not math.isclose(float(got), float(expected), rel_tol=1e-8, abs_tol=1e-10):
                raise Hint("combine(y, x) differs from combine(x, y): treat the two parts alike")
    _any_order(combine, generator)


_COMBINE = {
    "m_s": "m_s: the maximum of both parts' m_s",
    "Z_s": "Z_s: as in 7.1, about the student's maxima",
    "m_t": "m_t: the maximum of both parts' m_t",
    "Z_t": "Z_t: as in 7.1, about the teacher's maxima",
    "A": "A: its weights move with m_t as Z_t does; the bracket moves too, by the same amount for "
    "every class. What is a constant times the sum of the weights?",
}


def _any_order(combine: Callable, generator: torch.Generator) -> None:
    for _ in range(20):
        z_s, z_t = _logits(60, generator), _logits(60, generator)
        cuts = _cuts(60, 5, generator)
        pairs = zip(z_s.tensor_split(cuts), z_t.tensor_split(cuts), strict=True)
        parts = [_state(a, b, 0.5) for a, b in pairs]
        while len(parts) > 1:
            i, j = torch.randperm(len(parts), generator=generator)[:2].tolist()
            joined = combine(parts[i], parts[j], 0.5)
            parts = [part for k, part in enumerate(parts) if k not in (i, j)] + [joined]
        _, z, _, y, a = map(float, parts[0])
        exact = reference.kl(z_s, z_t, 0.5).item()
        if not math.isclose(a / y + math.log(z / y), exact, rel_tol=1e-8, abs_tol=1e-10):
            raise Hint(
                "two parts join well; five in random order don't. Does a state change hands?"
            )


@exercise("7.3", "The state of a masked tile")
def _(safe_state: Callable) -> None:
    generator = torch.Generator().manual_seed(73)
    both = torch.full((6,), -torch.inf, dtype=torch.float64)
    for masked in ("nothing", "some in the teacher", "some in both", "the teacher", "both"):
        z_s, z_t = _logits(6, generator), _logits(6, generator)
        if masked == "some in the teacher":
            z_t[:3] = -torch.inf
        if masked == "some in both":
            z_s[2:4] = z_t[2:4] = -torch.inf
        if masked in ("the teacher", "both"):
            z_t = both
        if masked == "both":
            z_s = both
        state = _begun(safe_state(z_s.clone(), z_t.clone(), 0.5))
        if not isinstance(state, tuple | list) or len(state) != 5:
            raise Hint("return five numbers: m_s, Z_s, m_t, Z_t, A")
        for name, got, expected in zip(
            ("m_s", "Z_s", "m_t", "Z_t", "A"), state, _state(z_s, z_t, 0.5), strict=True
        ):
            found, wanted = float(got), float(expected)
            if math.isnan(found):
                raise Hint(f"masked: {masked}. {name} is NaN: an inf minus itself, or 0 times inf?")
            if not math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-12):
                raise Hint(f"masked: {masked}. {name} is {found:.4g}, which is not its sum")


@exercise("7.4", "Bytes on paper")
def _(answer: float) -> None:
    if answer == 10:
        raise Hint("that is bf16, two bytes a number; float32 has four")
    if answer == 12:
        raise Hint("that is the backward sweep, or the floor; the forward sweep reads too")
    if answer == 5:
        raise Hint("that many accesses; of how many bytes each?")
    if answer != 20:
        raise Hint("count the accesses of an element, forward and backward, times 4 bytes")


@exercise("7.5", "The teacher's entropy in one sweep")
def _(entropy: Callable) -> None:
    generator = torch.Generator().manual_seed(75)
    for trial in range(40):
        z_t = _logits(80, generator) + 200 * (trial % 3)
        cuts = _cuts(80, 6, generator)
        pieces = list(z_t.tensor_split(cuts))
        if trial >= 10:  # a masked piece: first, somewhere, or single classes
            pieces[0 if trial % 2 else 3].fill_(-torch.inf)
        p = reference.soften(z_t, 0.3)
        exact = torch.special.entr(p).sum().item()
        chunks: Iterator[Tensor] = (piece.clone() for piece in pieces)
        got = float(_begun(entropy(chunks, 0.3)))
        if math.isnan(got):
            raise Hint(
                "NaN on a row whose first piece is all −inf: what is the maximum so far then?"
                if trial >= 10
                else "NaN: does an exponential overflow, or is a chunk read a second time?"
            )
        if not math.isclose(got, exact, rel_tol=1e-8, abs_tol=1e-10):
            raise Hint(
                f"{got:.4g} where H is {exact:.4g}. Σ e^y y with y = x − m: by how much does every "
                "y change when m does?"
            )
