"""Run through Triton's interpreter, chosen before Triton is imported: a process of their own."""

import os

import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    if os.environ.get("TRITON_INTERPRET") != "1":
        skip = pytest.mark.skip(reason="needs TRITON_INTERPRET=1 pytest tests/kernels")
        for item in items:
            if "tests/kernels" in str(item.path.as_posix()):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _rounded_once(monkeypatch):
    """fma as a GPU has it: the interpreter's rounds the product before it adds."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def fma(self, x, y, z):
        wide = np.float64 if z.data.dtype == np.float32 else np.longdouble
        exact = x.data.astype(wide) * y.data + z.data
        return TensorHandle(exact.astype(z.data.dtype), z.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)
