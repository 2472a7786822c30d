"""Run through Triton's interpreter, chosen before Triton is imported: a process of their own."""

import os

import pytest


def pytest_collection_modifyitems(items):
    if os.environ.get("TRITON_INTERPRET") != "1":
        skip = pytest.mark.skip(reason="needs TRITON_INTERPRET=1 pytest tests/kernels")
        for item in items:
            if "tests/kernels" in str(item.path.as_posix()):
                item.add_marker(skip)
