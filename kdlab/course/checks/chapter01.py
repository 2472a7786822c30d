"""Exercises of 01_background."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from kdlab import metrics, models
from kdlab.course.exercises import Hint, exercise


def begun(value: Any) -> Any:
    if value is None or value is ...:
        raise Hint("your function returns nothing yet; what should it return, and of what type?")
    return value


@exercise("1.1", "Half the bits")
def _(answer: int) -> None:
    right = metrics.parameter_bytes(models.ConvNet1d(width=64).bfloat16())
    if answer == 2 * right:
        raise Hint("that is float32; how many bytes does a bfloat16 number take?")
    if answer == right // 2:
        raise Hint("that is the number of parameters; a bfloat16 number takes more than one byte")
    if answer != right:
        raise Hint("metrics.parameter_bytes counts them as stored; model.bfloat16() converts")


@exercise("1.2", "Count FLOPs by hand")
def _(mlp_flops: Callable[[Sequence[int]], int]) -> None:
    begun(mlp_flops([40, 10]))
    for widths in ([40, 10], [40, 32, 32, 10], [7, 3, 5]):
        expected = metrics.flops(
            models.MLP(widths[0], widths[1:-1], widths[-1]), torch.zeros(1, widths[0])
        )
        got = mlp_flops(widths)
        if 2 * got == expected:
            raise Hint("half of what is expected: do multiplications and additions both count?")
        biases = sum(widths[1:])
        if got == expected + 2 * biases or got == expected + biases:
            raise Hint("biases are not to be counted")
        if got != expected:
            raise Hint(
                f"for widths {widths} you count {got}; take one layer at a time, from a to b"
            )


@exercise("1.3", "Same size, other kind")
def _(matching_width: Callable[[int], int]) -> None:
    begun(matching_width(2698))
    sizes = {w: metrics.parameter_count(models.ConvNet1d(width=w)) for w in range(1, 129)}
    for wanted in (2698, 28298, 100, 50_000):
        got = matching_width(wanted)
        if got not in sizes:
            raise Hint(f"for {wanted} parameters: got {got!r}; expected 1 to 128")
        best = min(abs(size - wanted) for size in sizes.values())
        if abs(sizes[got] - wanted) != best:
            raise Hint(
                f"for {wanted} parameters: width {got} has {sizes[got]}; another width is nearer "
                "(nearer from either side)"
            )


@exercise("1.4", "When does it pay?")
def _(queries: Callable[[float, float, int, int], float]) -> None:
    if begun(queries(10, 10, 5, 5)) != math.inf or queries(5, 10, 5, 5) != math.inf:
        raise Hint("what does an answer save if the student costs as much as the teacher, or more?")
    for teacher, student, examples, steps in (
        (100, 10, 0, 30),
        (100, 10, 9, 0),
        (387_200, 5_248, 4_000, 400_000),
    ):
        got = queries(teacher, student, examples, steps)
        invested = examples * teacher + 3 * steps * student
        if got == math.ceil((examples * teacher + steps * student) / (teacher - student)):
            if steps:
                raise Hint("a training step is a forward and a backward pass: how much together?")
        elif got == math.ceil(invested / teacher):
            raise Hint("an answer by the student is not free: what does it save?")
        if got != math.ceil(invested / (teacher - student)):
            raise Hint(
                f"for teacher {teacher}, student {student}, {examples} examples labelled and "
                f"{steps} trained on: invested {invested}; how many savings pay that back?"
            )


@exercise("1.5", "The front")
def _(front: Callable[[Sequence[float], Sequence[float]], list[int]]) -> None:
    got = list(begun(front([1, 2, 3], [0.5, 0.4, 0.6])))
    if 1 in got:
        raise Hint("model 1 costs more than model 0 and is right less often, and is still there")
    if list(front([3, 1, 2], [0.9, 0.5, 0.7])) != [1, 2, 0]:
        raise Hint("all three of costs 3, 1, 2 with accuracies .9, .5, .7 stay, the cheapest first")
    if sorted(front([1, 1], [0.5, 0.5])) != [0, 1]:
        raise Hint("two equal models: neither is strictly better, so both stay")
    draw = random.Random(0)
    for _i in range(20):
        cost = [draw.randint(1, 6) for _ in range(12)]
        accuracy = [draw.randint(0, 6) / 6 for _ in range(12)]
        kept = set(front(cost, accuracy))
        for i in range(12):
            beaten = any(
                cost[j] <= cost[i]
                and accuracy[j] >= accuracy[i]
                and (cost[j], accuracy[j]) != (cost[i], accuracy[i])
                for j in range(12)
            )
            if beaten == (i in kept):
                raise Hint(
                    f"costs {cost}, accuracies {[round(a, 2) for a in accuracy]}: model {i} "
                    f"{'is dominated and kept' if beaten else 'is not dominated and missing'}"
                )
