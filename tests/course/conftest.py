"""Solutions draw figures: into memory, not onto a screen."""

import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _environment_stays():
    """The setup of lab 7 sets TRITON_INTERPRET: no later test may meet it."""
    saved = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(saved)
