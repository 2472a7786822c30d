"""How far long work has come."""

from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

_IN_A_NOTEBOOK = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


def progress(
    iterable: Iterable[Any] | None,
    unit: str = "it",
    total: int | None = None,
    disable: bool = False,
) -> tqdm:
    """The iterable, with a tqdm bar: how many units are done, how long the rest will take.

    `total` is for iterables that have no length, and for None: a bar to `update` by hand. In a
    notebook the bar goes when it is full, and nothing of it is stored with the cell's output.

    >>> [digit for digit in progress(range(3), "digit", disable=True)]
    [0, 1, 2]
    """
    settings: dict[str, Any] = {"unit": unit, "total": total, "disable": disable}
    if disable or not _IN_A_NOTEBOOK:
        return tqdm(iterable, **settings)
    from IPython.display import display

    bar: Any = tqdm(iterable, **settings, leave=False, display=False)
    # Not closed but hidden: Voilà draws a page when all has run, and misses a widget that is gone.
    bar.container.close = lambda: bar.container.layout.set_trait("display", "none")
    nothing = {"text/plain": "", "text/html": ""}  # for pages on which no kernel runs
    display({**bar.container._repr_mimebundle_(), **nothing}, raw=True)
    return bar
