"""The checks of 07_inside_the_kernel tell the usual mistakes apart; what it shows was measured."""

import ast
import json
import math
import re

import pytest
import torch

from kdlab import course

from .stored import NOTEBOOKS, markdown, read


def merge(x, y, scale=True):
    m = max(x[0], y[0])
    if not scale:
        return m, x[1] + y[1]
    return m, x[1] * math.exp(x[0] - m) + y[1] * math.exp(y[0] - m)


def combine(x, y, bracket=True, symmetric=True):
    m_s, m_t = torch.maximum(x[0], y[0]), torch.maximum(x[2], y[2])
    z_s = z_t = a = 0.0
    for part in (x, y):
        shift_s, shift_t = part[0] - m_s, part[2] - m_t
        z_s = z_s + shift_s.exp() * part[1]
        z_t = z_t + shift_t.exp() * part[3]
        if bracket and (symmetric or part is x):
            a = a + shift_t.exp() * (part[4] + (shift_t - shift_s) * part[3])
        else:
            a = a + shift_t.exp() * part[4]
    return m_s, z_s, m_t, z_t, a


def plain_state(z_s, z_t, beta):
    x_s, x_t = beta * z_s, beta * z_t
    y_s, y_t = x_s - x_s.max(), x_t - x_t.max()
    a = (y_t.exp() * (y_t - y_s)).sum()
    return x_s.max(), y_s.exp().sum(), x_t.max(), y_t.exp().sum(), a


def entropy(chunks, beta, move=True):
    m, z, b = -math.inf, 0.0, 0.0
    for chunk in chunks:
        x = beta * chunk
        larger = max(m, x.max().item())
        if larger == -math.inf:
            continue
        shift = m - larger if m > -math.inf else 0.0
        b = math.exp(shift) * (b + (shift * z if move else 0.0))
        z = math.exp(shift) * z
        y = x - larger
        z += y.exp().sum().item()
        b += (y.exp() * y).nan_to_num(0.0).sum().item()
        m = larger
    return math.log(z) - b / z


RIGHT = {
    "7.1": merge,
    "7.2": lambda x, y, beta: combine(x, y),
    "7.4": 20,
    "7.5": entropy,
}
WRONG = [
    ("7.1", lambda x, y: merge(x, y, scale=False), "different maxima"),
    ("7.1", lambda x, y: (x[0], merge(x, y)[1]), "the maximum of both"),
    ("7.1", lambda x, y: None, "return something"),
    ("7.2", lambda x, y, beta: combine(x, y, bracket=False), "the bracket moves too"),
    ("7.2", lambda x, y, beta: combine(x, y, symmetric=False), "bracket moves too"),
    ("7.2", lambda x, y, beta: combine(x, y)[:4], "five numbers"),
    ("7.3", plain_state, "NaN"),
    ("7.3", lambda z_s, z_t, beta: tuple(torch.zeros(5)), "not its sum"),
    ("7.4", 10, "float32 has four"),
    ("7.4", 12, "forward sweep reads too"),
    ("7.4", 21, "count the accesses"),
    ("7.5", lambda chunks, beta: entropy(chunks, beta, move=False), "when m does"),
    ("7.5", lambda chunks, beta: float("nan"), "NaN"),
]


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass(name):
    verdict = course.check(name, RIGHT[name])
    assert verdict.passed, verdict


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answers_get_a_hint(name, answer, words):
    verdict = course.check(name, answer)
    assert not verdict.passed and words in verdict.words, verdict


def test_its_times_and_counters_are_those_of_the_files():
    (cell,) = (c for c in read("07_inside_the_kernel").cells if c.source.startswith("# Milli"))
    path = NOTEBOOKS.parent / re.match(r".*; (\S+\.json)", cell.source)[1]
    shown = ast.literal_eval(re.search(r"measured = (\{.*?\n\})", cell.source, re.DOTALL)[1])
    tables = json.loads(path.read_text())["runs"][-1]["tables"]
    names = ("look-back, as it was", "teams: 4w, 1 loads, 8 tiles, 4 programs")
    names += ("mse_logits, one sweep (differences.py)",)
    found = [[t["ms"][name] for t in tables] for name in names]
    assert list(map(list, shown.values())) == [*found, [t["copy_ms"] for t in tables]]
    counters = json.loads((path.parent / path.name.replace("tiles-", "counters-")).read_text())
    logits = counters["rows"] * counters["classes"]
    moved = counters["dram__bytes_read.sum"] + counters["dram__bytes_write.sum"]
    link = counters["lts__ltcfabric2ltc_cycles_active.avg.pct_of_peak_sustained_elapsed"]
    text = (
        f"{moved / logits:.1f} bytes a class, and the link between L2's halves is busy {link:.0f} %"
    )
    assert text in markdown(read("07_inside_the_kernel"))
    assert 0.19 < counters["samples"]["listening"] < 0.21  # a fifth
