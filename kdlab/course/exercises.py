"""`check`: run an exercise's test on the learner's answer, and say what to try next."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MIME = "application/vnd.kdlab.verdict+json"
_EXERCISES: dict[str, tuple[str, Callable[[Any], None]]] = {}


class Hint(Exception):  # noqa: N818  (not an error of the program: words for the learner)
    """Raised by a check that is not satisfied: what to look at next, never the solution."""


@dataclass(frozen=True)
class Verdict:
    """What a check says: `passed`, and the words that the notebook shows."""

    exercise: str
    title: str
    passed: bool
    words: str

    def __repr__(self) -> str:
        return f"{'✓' if self.passed else '…'} {self.exercise} {self.title}: {self.words}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), MIME: vars(self)}


def exercise(name: str, title: str) -> Callable:
    """Register a check: a function of the learner's answer that raises `Hint` until it is right."""

    def register(test: Callable[[Any], None]) -> Callable[[Any], None]:
        _EXERCISES[name] = title, test
        return test

    return register


def check(name: str, answer: Any) -> Verdict:
    """Test the answer to exercise `name` ("3.1": chapter 3, exercise 1) and return a `Verdict`.

    `...` counts as not begun, and so does a function that returns it. An exception in the learner's
    function becomes words too: a notebook runs through whatever the state of its exercises.
    """
    chapter = name.split(".")[0]
    try:
        importlib.import_module(f"kdlab.course.checks.chapter{int(chapter):02d}")
        title, test = _EXERCISES[name]
    except (ValueError, ImportError, KeyError):
        raise ValueError(f"name: got {name!r}; expected an exercise, as '3.1'") from None
    if answer is ...:
        return Verdict(name, title, False, "not begun")
    try:
        test(answer)
    except Hint as hint:
        return Verdict(name, title, False, str(hint))
    except Exception as error:
        return Verdict(name, title, False, f"your answer raised {type(error).__name__}: {error}")
    return Verdict(name, title, True, "right")
