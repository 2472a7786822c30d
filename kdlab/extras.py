"""The course's packages, which the library itself does without."""

from collections.abc import Iterator
from contextlib import contextmanager

INSTALL = "pip install 'kdlab[lab]'"


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Where an import in the block finds no such package, say what needs it and how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{what} needs {error.name}, one of the course's packages: {INSTALL}", name=error.name
        ) from error
