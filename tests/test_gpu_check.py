"""The plumbing of `make gpu-check`, which must hold on a machine that nobody here can look at."""

import json
import subprocess
import sys
import sysconfig
import time

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.checkout import ROOT
from benchmarks.gpu_check import Stage

PRINT = "print('hello')"
SLEEP = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
JUNIT = """<testsuites><testsuite>
<testcase classname="a" name="good"/>
<testcase classname="a" name="bad"><failure message="no"/></testcase>
<testcase classname="a" name="late"><skipped message="out of time"/></testcase>
</testsuite></testsuites>"""


def stage(code, **settings):
    return Stage("one", 60, 0, lambda _: [sys.executable, "-c", code], **settings)


def test_a_stage_is_logged(tmp_path):
    found = gpu_check.run(stage(PRINT), 60, tmp_path)
    assert found["status"] == "passed" and (tmp_path / "one.log").read_text() == "hello\n"


def test_a_stage_that_fails_says_so(tmp_path):
    assert gpu_check.run(stage("raise SystemExit(3)"), 60, tmp_path)["exit"] == 3


def test_a_stage_ends_in_time_with_all_that_it_started(tmp_path):
    began = time.monotonic()
    found = gpu_check.run(stage(SLEEP), 3, tmp_path)
    assert found["status"] == "out of time" and time.monotonic() - began < 30


def test_junit_is_read(tmp_path):
    (tmp_path / "one.xml").write_text(JUNIT)
    found = gpu_check.run(stage(PRINT), 60, tmp_path)
    assert found["tests"] == 3 and found["failed"] == ["a::bad"]
    assert found["skipped"] == {"out of time": 1}


def test_late_stages_give_way_and_missing_ones_say_why(tmp_path, monkeypatch):
    def three(out, dry):
        return [stage(PRINT, missing="not installed: nbval"), stage(PRINT)]

    monkeypatch.setattr(gpu_check, "stages", three)
    status = gpu_check.main([str(tmp_path), "--dry-run", "--seconds", "20"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert status == 0 and summary["dry_run"]
    assert "nothing here is a result about a GPU" in summary["note"]
    assert summary["stages"]["one"]["status"] == "not run"  # 5 s left


def test_every_stage_leaves_the_next_its_time(tmp_path):
    tests, notebooks, benchmark = gpu_check.stages(tmp_path, dry=False)
    assert tests.most + notebooks.most + benchmark.most >= gpu_check.TOTAL_SECONDS
    assert tests.leave >= 150 and notebooks.leave >= 150 and gpu_check.TOTAL_SECONDS <= 540


def test_the_cells_of_a_notebook_run_in_one_process(tmp_path):
    pytest.importorskip("xdist")
    found = gpu_check.run(gpu_check.stages(tmp_path, dry=True)[1], 120, tmp_path)
    assert found["status"] == "passed" and found["tests"] > 5 and not found["failed"]


def test_without_a_gpu_it_refuses(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu_check.main([str(tmp_path / "out")]) == 2
    assert "no CUDA GPU" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_a_checkout_that_is_not_installed_has_its_kernels():
    pytest.importorskip("triton")
    code = f"import sys; sys.path += [{sysconfig.get_paths()['purelib']!r}, '.']; "
    code += "import benchmarks.tune, kdlab.kernels.launch as l; print(l.__file__)"
    done = subprocess.run(  # -S: without the finders of installed packages
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(ROOT / "kernels" / "launch.py")
