"""A pytest plugin: tests that have not begun in time are skipped, so that a report still comes out.

`pytest -p benchmarks.deadline` with KDLAB_SECONDS=240 in the environment.
"""

import os
import time

import pytest

SECONDS = float(os.environ.get("KDLAB_SECONDS", "inf"))
_BEGAN = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() - _BEGAN > SECONDS:
        pytest.skip(f"out of time: not begun within {SECONDS:.0f} s")
