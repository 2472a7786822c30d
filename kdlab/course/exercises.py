"""`check`: run an exercise's test on the learner's answer, and say what to try next."""

import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any

from kdlab.course.panel import HINT, PASSED, QUIET, panel

MIME = "application/vnd.kdlab.verdict+json"
_CHECKS = "kdlab.course.checks"
_EXERCISES: dict[str, tuple[str, Callable[[Any], None]]] = {}


class Hint(Exception):  # noqa: N818  (not an error of the program: words for the learner)
    """Raised by a check that is not satisfied: what to look at next, never the solution."""


@dataclass(frozen=True)
class Verdict:
    """What a check says: `passed`, whether the answer was `begun`, and the words to show.

    `kdlab grade` reads it from the cell's output, under `MIME`.
    """

    exercise: str
    title: str
    passed: bool
    words: str
    begun: bool = True

    def __repr__(self) -> str:
        return f"{'✓' if self.passed else '…'} {self.exercise} {self.title}: {self.words}"

    def _repr_html_(self) -> str:
        colour = PASSED if self.passed else HINT if self.begun else QUIET
        title = f"{self.exercise} {self.title}:"
        return panel(colour, "✓" if self.passed else "…", title, self.words)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME: asdict(self)}


def exercise(name: str, title: str) -> Callable:
    """Register a check: a function of the learner's answer that raises `Hint` until it is right.

    It belongs in `checks/chapterNN.py`, NN being the notebook's number, with the name "N.k".
    """

    def register(test: Callable[[Any], None]) -> Callable[[Any], None]:
        _EXERCISES[name] = title, test
        return test

    return register


def check(name: str, answer: Any) -> Verdict:
    """Test the answer to exercise `name` ("3.1": notebook 03, exercise 1) and return a `Verdict`.

    An answer that is still blank (see `blank`) is never right and gets a first hint. An exception
    in the learner's code becomes words too: a notebook runs through whatever the state of its
    exercises.

    Raises:
        ValueError: there is no such exercise; the message lists those that exist.

    >>> check("0.1", ...)
    … 0.1 A β that makes the teacher sure: not begun: write your answer in place of the three dots
    >>> check("0.1", 1.0)
    … 0.1 A β that makes the teacher sure: at that β the teacher is 88.1% sure; ...
    """
    title, test = _find(name)
    begun = not blank(answer)
    if answer is ... or answer is None:
        words = "not begun: write your answer in place of the three dots"
        return Verdict(name, title, False, words, begun)
    try:
        test(answer)
    except Hint as hint:
        return Verdict(name, title, False, str(hint), begun)
    except Exception as error:
        if begun:
            return Verdict(name, title, False, _raised(error))
    if not begun:
        return Verdict(name, title, False, "not begun: fill in its body", begun)
    return Verdict(name, title, True, "right")


def blank(answer: Any) -> bool:
    """Whether an answer is as the notebook gives it: `...`, None, or a function that does nothing.

    A tuple, list or dict is blank if all that it holds is.

    >>> def f(x): ...
    >>> blank(f), blank((..., f)), blank(lambda x: x), blank(0.0)
    (True, True, False, False)
    """
    if answer is None or answer is ...:
        return True
    if isinstance(answer, dict):
        answer = tuple(answer.values())
    if isinstance(answer, (tuple, list)):
        return bool(answer) and all(map(blank, answer))
    return isinstance(answer, FunctionType) and answer.__code__.co_code in _NOTHING


def _only_dots() -> None: ...


def _only_words() -> None:
    """Its docstring moves the constant None, so that the code differs."""
    ...


_NOTHING = {_only_dots.__code__.co_code, _only_words.__code__.co_code}


def attempt(function: Any, *arguments: Any) -> Any:
    """Call the learner's function, for a check; hint where it is no function or returns nothing.

    >>> attempt(lambda x: 2 * x, 3)
    6
    >>> attempt(lambda x: None, 3)
    Traceback (most recent call last):
    kdlab.course.exercises.Hint: your function returns nothing yet: end it with `return`
    """
    if not callable(function):
        raise Hint(f"hand over the function itself, not {type(function).__name__}")
    value = function(*arguments)
    if value is None or value is ...:
        raise Hint("your function returns nothing yet: end it with `return`")
    return value


def registered() -> dict[str, str]:
    """Every exercise of the course and its title, in the order of the notebooks.

    >>> registered()["0.1"]
    'A β that makes the teacher sure'
    """
    for number in _chapters():
        importlib.import_module(f"{_CHECKS}.chapter{number:02d}")
    names = sorted(_EXERCISES, key=lambda name: tuple(map(int, name.split("."))))
    return {name: _EXERCISES[name][0] for name in names}


def _chapters() -> list[int]:
    package = importlib.import_module(_CHECKS)
    modules = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(int(m.removeprefix("chapter")) for m in modules if m.startswith("chapter"))


def _find(name: str) -> tuple[str, Callable[[Any], None]]:
    try:
        chapter = int(name.split(".")[0])
    except (ValueError, AttributeError):
        raise ValueError(f"name: got {name!r}; expected an exercise's number, as '3.1'") from None
    if chapter not in _chapters():
        raise ValueError(f"name: got {name!r}; expected an exercise of notebooks {_chapters()}")
    importlib.import_module(f"{_CHECKS}.chapter{chapter:02d}")
    if name not in _EXERCISES:
        there = ", ".join(e for e in registered() if e.startswith(f"{chapter}."))
        raise ValueError(f"name: got {name!r}; expected one of {there}")
    return _EXERCISES[name]


def _raised(error: Exception) -> str:
    """The exception in words, with the line of the learner's cell where it arose."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if "ipykernel" in frame.filename or frame.filename.startswith("<ipython")
    ]
    where = f" (line {lines[-1]} of the cell)" if lines else ""
    return f"your answer raised {type(error).__name__}: {error}{where}"
