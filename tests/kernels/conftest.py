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
def _as_a_gpu_adds(monkeypatch):
    """fma rounded once, where the interpreter rounds the product before it adds; and sums in a
    tree, where NumPy adds rows of a matrix one after the other, small ones to a large one."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, TensorHandle

    def fma(self, x, y, z):
        wide = np.float64 if z.data.dtype == np.float32 else np.longdouble
        exact = x.data.astype(wide) * y.data + z.data
        return TensorHandle(exact.astype(z.data.dtype), z.dtype.scalar)

    def tree(self, x):
        terms = np.moveaxis(x.handle.data, self.axis, 0)
        while len(terms) > 1:
            terms = terms[: len(terms) // 2] + terms[len(terms) // 2 :]
        total = np.moveaxis(terms, 0, self.axis) if self.keep_dims else terms[0]
        return self.to_tensor(total, x.dtype)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)
    monkeypatch.setattr(ReduceOps, "sum", tree)
