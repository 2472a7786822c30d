"""Make `kdlab.kernels` importable from a checkout that is not installed.

Installing maps kdlab.kernels to kernels/ at the top of the repository. A machine without a network,
or with a read-only Python, runs the checkout as it is: there the repository's root joins the places
where sub-packages of kdlab are looked for. `pytest -p benchmarks.checkout` does the same for tests.
"""

import importlib.util
from pathlib import Path

import kdlab

ROOT = Path(__file__).resolve().parent.parent

if importlib.util.find_spec("kdlab.kernels") is None:
    kdlab.__path__.append(str(ROOT))
