"""`kdlab grade`: run a learner's notebook from top to bottom and report on its exercises.

The notebook runs in memory, in a fresh kernel of this Python: the file stays as it is, and stored
outputs count for nothing, but for the predictions: those were clicks, and exist only there. Running
a notebook runs the code in it; do that where you would run a stranger's program.
"""

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tqdm import tqdm

from kdlab.course import exercises, prediction

_CHECK = re.compile(r"course\.check\(\s*[\"'](\d+\.\d+)[\"']")


@dataclass(frozen=True)
class Result:
    """One exercise: its state is "passed", "hint", "not begun" or "no verdict"."""

    exercise: str
    title: str
    state: str
    words: str = ""

    def __str__(self) -> str:
        words = f": {self.words}" if self.state in ("hint", "no verdict") else ""
        return f"  {self.state:<10}  {self.exercise} {self.title}{words}"


@dataclass(frozen=True)
class Report:
    """What one notebook is worth: its exercises, the learner's predictions, the cells that failed.

    predictions counts "right", "wrong" and "not committed"; seconds is the time of the run.
    """

    notebook: str
    results: tuple[Result, ...]
    predictions: dict[str, int]
    failures: tuple[str, ...]
    seconds: float

    @property
    def passed(self) -> int:
        return sum(result.state == "passed" for result in self.results)

    @property
    def complete(self) -> bool:
        """Every exercise passed and every cell ran."""
        return self.passed == len(self.results) and not self.failures

    def __str__(self) -> str:
        head = f"{self.notebook}: {self.passed} of {len(self.results)} exercises passed"
        lines = [f"{head} ({self.seconds:.0f} s)", *map(str, self.results)]
        lines += [f"  failed      {failure}" for failure in self.failures]
        if self.predictions:
            said = ", ".join(f"{count} {state}" for state, count in self.predictions.items())
            lines.append(f"  predictions {said}")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """The same as plain data, for JSON."""
        return {"passed": self.passed, "of": len(self.results), **asdict(self)}


def grade(path: Path, *, time_limit: float = 600.0, progress: bool = True) -> Report:
    """Run the notebook at `path` and report on it.

    time_limit is in seconds, for the whole notebook; what did not run by then has no verdict.

    Raises:
        ValueError: time_limit is not positive, or the file is not a notebook.
        FileNotFoundError: there is no such file.
    """
    if not time_limit > 0:
        raise ValueError(f"time_limit: got {time_limit}; expected seconds above 0")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError, AttributeError, KeyError):
        raise ValueError(f"path: got {str(path)!r}; expected a Jupyter notebook") from None
    clicked = {p["question"]: p["committed"] for p in _outputs(notebook, prediction.MIME)}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    start = time.perf_counter()
    failures = _run(notebook, path.resolve().parent, start + time_limit, progress)
    seconds = time.perf_counter() - start
    scores = {p["question"]: p for p in _outputs(notebook, prediction.MIME)}
    predictions = Counter(
        _outcome(score["committed"] or clicked.get(question), score["answer"])
        for question, score in scores.items()
    )
    return Report(str(path), _results(notebook), dict(predictions), tuple(failures), seconds)


def _run(notebook: Any, folder: Path, deadline: float, progress: bool) -> list[str]:
    """Run all cells in place, on through those that fail; the failures in words."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    # disable=None: a bar only where somebody is watching.
    bar = tqdm(total=len(code), unit="cell", disable=None if progress else True)
    begun: list[int] = []

    def count(cell: Any, cell_index: int) -> None:
        begun.append(cell_index)
        bar.update()

    client = NotebookClient(
        notebook,
        kernel_name="python3",
        allow_errors=True,
        timeout_func=lambda cell: max(1, int(deadline - time.perf_counter())),
        on_cell_execute=count,
        resources={"metadata": {"path": str(folder)}},
    )
    stopped = None
    try:
        client.execute()
    except CellTimeoutError:
        stopped = "the time limit was reached here; the cells below did not run"
    except DeadKernelError:
        stopped = "the kernel died here; the cells below did not run"
    finally:
        bar.close()
    failures = [
        f"In [{number}]: {output.ename}: {output.evalue}"
        for number, cell in enumerate(code[: len(begun) - 1 if stopped else None], 1)
        for output in cell.outputs
        if output.output_type == "error"
    ]
    return [*failures, f"In [{len(begun)}]: {stopped}"] if stopped else failures


def _results(notebook: Any) -> tuple[Result, ...]:
    """A result for every exercise of the chapters that the notebook has checks of."""
    verdicts = {v["exercise"]: v for v in _outputs(notebook, exercises.MIME)}
    source = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    chapters = {name.split(".")[0] for name in {*verdicts, *_CHECK.findall(source)}}
    return tuple(
        _result(name, title, verdicts.get(name))
        for name, title in exercises.registered().items()
        if name.split(".")[0] in chapters
    )


def _result(name: str, title: str, verdict: dict | None) -> Result:
    if verdict is None:
        why = "its cell failed, did not run, is gone, or does not end with the check"
        return Result(name, title, "no verdict", why)
    state = "passed" if verdict["passed"] else "hint" if verdict["begun"] else "not begun"
    return Result(name, title, state, verdict["words"])


def _outcome(committed: str | None, answer: str) -> str:
    if committed is None:
        return "not committed"
    return "right" if committed == answer else "wrong"


def _outputs(notebook: Any, mime: str) -> list[dict]:
    """What the code cells put out as `mime`, in order."""
    outputs: Sequence[Any] = [o for c in notebook.cells for o in c.get("outputs", [])]
    return [o["data"][mime] for o in outputs if mime in o.get("data", {})]
