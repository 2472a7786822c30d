"""The source of a function in a notebook, coloured as the page colours Python, light or dark."""

import ast
import inspect
import textwrap
from typing import Any

from IPython.display import Markdown


def source(*functions: Any, docstrings: bool = True) -> Markdown:
    """Functions or classes as they stand in their files, each under its name; kernels as Python.

    >>> from kdlab import reference
    >>> print(source(reference.l_teach, docstrings=False).data)
    ```python
    # kdlab.reference.l_teach
    def l_teach(teacher_outputs: Tensor, student_outputs: Tensor) -> Tensor:
        return (teacher_outputs - student_outputs).square().sum(-1).mean()
    ```
    """
    texts = [_text(getattr(function, "fn", function), docstrings) for function in functions]
    return Markdown("```python\n" + "\n".join(texts) + "```")


def _text(function: Any, docstring: bool) -> str:
    name = f"# {function.__module__}.{function.__qualname__}\n"
    text = textwrap.dedent(inspect.getsource(function))
    definition = ast.parse(text).body[0]
    assert isinstance(definition, (ast.FunctionDef, ast.ClassDef))
    if docstring or ast.get_docstring(definition) is None:
        return name + text
    words, lines = definition.body[0], text.splitlines(keepends=True)
    return "".join([name, *lines[: words.lineno - 1], *lines[words.end_lineno :]])
