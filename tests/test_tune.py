"""The tuner tries what the launcher may choose, and runs through without a GPU."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

from benchmarks.checkout import ROOT


def test_a_dry_run_times_every_choice_beside_a_copy(tmp_path):
    command = [sys.executable, "-m", "benchmarks.tune", "--dry-run", "--seconds", "4"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("tiles-*.json")
    record = json.loads(path.read_text())
    assert record["dry_run"] and record["tables"]
    for table in record["tables"]:
        assert table["failed"] == {}
        assert {"copy", "as it is"} < table["seconds"].keys() == table["share_of_copy"].keys()


def test_without_a_gpu_it_says_so(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    command = [sys.executable, "-m", "benchmarks.tune", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no CUDA GPU" in done.stdout
    assert not list(tmp_path.iterdir())
