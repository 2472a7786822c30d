"""The stepper's own `combine`: a monoid whose end is the library's KL, for any tiles."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdlab import reference
from kdlab.widgets import row_walk
from kdlab.widgets.row_examples import example_rows

INF = math.inf
logits = st.one_of(st.floats(-50, 50), st.just(-INF))
rows = st.lists(st.tuples(logits, logits), min_size=2, max_size=9)


def walk(student, teacher, beta, size):
    state = row_walk.EMPTY
    for s, t in zip(student.split(size), teacher.split(size), strict=True):
        state = row_walk.combine(state, row_walk.tile(s, t, beta), beta)
    return state


@given(rows, st.sampled_from([0.25, 1.0, 3.0]), st.integers(1, 4))
def test_any_row_in_any_tiles_ends_at_the_reference(pairs, beta, size):
    student, teacher = torch.tensor(pairs, dtype=torch.float64).T
    found = row_walk.finish(walk(student, teacher, beta, size))
    if not (student.isfinite().any() and teacher.isfinite().any()):
        assert math.isnan(found)
        return
    expected = reference.kl(student, teacher, beta).item()
    # The reference loses digits of a small KL where the logits are far apart; the sums don't.
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(rows, st.integers(1, 8), st.integers(1, 8))
def test_combine_is_associative(pairs, i, j):
    i, j = sorted((min(i, len(pairs)), min(j, len(pairs))))
    row = torch.tensor(pairs, dtype=torch.float64)
    parts = [row[:i], row[i:j], row[j:]]
    x, y, z = (row_walk.tile(*part.T, 0.5) if len(part) else row_walk.EMPTY for part in parts)
    left = row_walk.combine(row_walk.combine(x, y, 0.5), z, 0.5)
    right = row_walk.combine(x, row_walk.combine(y, z, 0.5), 0.5)
    assert left == pytest.approx(right, rel=1e-9, abs=1e-9)


def test_the_empty_state_changes_nothing():
    some = row_walk.tile(torch.tensor([1.0, 2.0]), torch.tensor([0.0, -INF]), 2.0)
    assert row_walk.combine(row_walk.EMPTY, some, 2.0) == some
    assert row_walk.combine(some, row_walk.EMPTY, 2.0) == some
    assert row_walk.combine(row_walk.EMPTY, row_walk.EMPTY, 2.0) == row_walk.EMPTY


def test_the_examples_break_what_they_are_meant_to_break():
    made = example_rows()
    assert all(map(math.isnan, row_walk.without_guard(*made["first classes all −∞"], 1.0, 8)))
    assert row_walk.without_maximum(*made["far maximum in the last tile"], 1.0)[:2] == (INF, INF)
    near = made["student almost its teacher"]
    exact = row_walk.finish(walk(*near, 1.0, 8))
    assert row_walk.without_maximum(*near, 1.0)[2] != pytest.approx(exact, rel=0.1)
    fine = made["a row of 32 classes"]
    assert row_walk.without_maximum(*fine, 1.0)[2] == pytest.approx(
        row_walk.finish(walk(*fine, 1.0, 8)), rel=1e-4
    )
