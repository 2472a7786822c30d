"""The course's notebooks as the tests see them: exercises, solutions, links."""

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).parent.parent.parent / "notebooks"

# The course in its order: each notebook links to the one before and the one after.
COURSE = [
    "00_start_here",
    "01_background",
    "02_core_concepts",
    "03_algorithm",
    "04_code",
    "05_trends_and_challenges",
    "06_faq",
    "07_inside_the_kernel",
    "08_hints",
    "09_prune_then_distil",
    "10_policy_distillation",
    "11_the_missing_digit",
    "12_language_model",
    "13_errata",
]

_SOLUTION = re.compile(r"<summary>\s*Solution (\d+\.\d+)\s*</summary>(.*?)</details>", re.DOTALL)
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
_HEADING = re.compile(r"^### Exercise (\d+\.\d+) (?:\(([^)]+)\) )?(\S.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+(?:\([^()]*\))?[^()\s]*)\)")


@dataclass(frozen=True)
class Exercise:
    """One `course.check` cell: its code, the call by itself, and the code of its solution."""

    notebook: str
    name: str
    code: str
    call: str
    solution: str | None
    output: str
    setup: str


def read(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def markdown(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def headings(notebook):
    """(number, level or "", title) of each exercise, as its heading has them."""
    return _HEADING.findall(markdown(notebook))


def links(text):
    return _LINK.findall(text)


def exercises(name):
    """Every exercise of a notebook, in its order."""
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    setup = "\n".join(c.source for c in code if "setup" in c.metadata.get("tags", []))
    solutions = {
        number: textwrap.dedent(_PYTHON.search(body).group(1)) if _PYTHON.search(body) else None
        for number, body in _SOLUTION.findall(markdown(notebook))
    }
    return [
        Exercise(name, number, cell.source, call, solutions.get(number), _text(cell), setup)
        for cell in code
        for number, call in _checks(cell.source)
    ]


def _checks(source):
    """(number, source) of each call of `course.check` in a cell."""
    if "course.check(" not in source:
        return []
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        (call.args[0].value, ast.unparse(call))
        for call in calls
        if ast.unparse(call.func) == "course.check"
    ]


def _text(cell):
    return "".join(o.get("data", {}).get("text/plain", "") for o in cell.outputs)
