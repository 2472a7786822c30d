"""Every exercise of every notebook: blank it does not pass, solved it does."""

import re
from pathlib import Path

import pytest

import kdlab.course.checks
from kdlab import course

from .stored import COURSE, exercises

EXERCISES = [exercise for name in COURSE for exercise in exercises(name)]
each_exercise = pytest.mark.parametrize(
    "exercise", EXERCISES, ids=[f"{e.notebook}-{e.name}" for e in EXERCISES]
)


def run(exercise, code):
    """The verdict on `code`, run after the notebook's setup and nothing else."""
    names = {"__name__": "__main__"}
    exec(compile(exercise.setup, f"{exercise.notebook} setup", "exec"), names)
    exec(compile(code, f"{exercise.notebook} exercise {exercise.name}", "exec"), names)
    return eval(exercise.call, names)


@each_exercise
def test_blank_does_not_pass(exercise):
    verdict = run(exercise, exercise.code)
    assert not verdict.passed
    assert "raised" not in verdict.words
    assert exercise.output == repr(verdict), "the stored output is of another check: run it again"


@each_exercise
def test_solution_passes(exercise):
    assert exercise.solution, f"no <summary>Solution {exercise.name}</summary> with ```python"
    verdict = run(exercise, exercise.solution)
    assert verdict.passed, verdict.words


def test_every_check_has_its_exercise_and_every_exercise_its_check():
    assert sorted(course.registered()) == sorted(exercise.name for exercise in EXERCISES)


def test_no_number_is_given_twice_or_in_another_notebooks_file():
    for folder in kdlab.course.checks.__path__:
        for file in Path(folder).glob("chapter*.py"):
            numbers = re.findall(r'^@exercise\(\s*"([\d.]+)"', file.read_text(), re.MULTILINE)
            assert len(numbers) == len(set(numbers)), file.name
            assert {int(n.split(".")[0]) for n in numbers} == {int(file.stem[-2:])}, file.name
