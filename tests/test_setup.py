"""pyproject.toml, constraints.txt and environment.yml say the same; imports stay light."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = re.compile(r"[A-Za-z0-9_.-]+")


def names(requirements):
    return {NAME.match(r).group().lower() for r in requirements} - {"kdlab"}


def ranges():
    extras = PROJECT["project"]["optional-dependencies"]
    every = [*PROJECT["project"]["dependencies"], *(r for rs in extras.values() for r in rs)]
    return names(every)


def test_every_dependency_is_pinned_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins)
    assert names(pins) == ranges()


def test_conda_has_the_libraries_ranges():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {d.replace("pytorch", "torch") for d in dependencies if isinstance(d, str)}
    lab = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["lab"]
    from_pip = {"triton>=3.4; sys_platform == 'linux'", "mnist1d>=0.0.2"}
    assert set(lab) - from_pip <= conda


def test_kernels_are_installed_under_kdlab_only():
    setuptools = PROJECT["tool"]["setuptools"]
    assert "kernels" not in setuptools["packages"]
    assert setuptools["package-dir"] == {"kdlab.kernels": "kernels"}
    import kdlab.kernels

    assert Path(kdlab.kernels.__file__).parent == ROOT / "kernels"


def test_importing_kdlab_stays_light():
    heavy = {"triton", "matplotlib", "ipywidgets", "IPython", "bqplot"}
    # torch may look for Triton by itself: what counts is what kdlab adds.
    code = "import sys, torch, torch._dynamo; before = set(sys.modules); import kdlab; "
    code += f"print(*({heavy} & (set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_local_links_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page}: {target}"


def test_doctor_reports_in_about_ten_lines():
    done = subprocess.run([sys.executable, "-m", "kdlab", "doctor"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert 8 <= len(done.stdout.splitlines()) <= 14
    for word in ("python", "torch", "triton", "device", "backend", "bqplot"):
        assert word in done.stdout
