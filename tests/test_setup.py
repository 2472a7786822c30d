"""The project's files say the same, what is built from them is whole, and imports stay light."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from kdlab import doctor
from kdlab.__main__ import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
NAME = re.compile(r"[A-Za-z0-9_.-]+")


def python(*arguments, **settings):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, **settings)


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
    heavy = {"triton", "matplotlib", "ipywidgets", "IPython", "bqplot", "sklearn"}
    # What a plain `import torch` brings is torch's; import nothing else of it here, or that hides
    # what kdlab adds.
    code = "import sys, torch; before = set(sys.modules); import kdlab; "
    code += f"print(*({heavy} & (set(sys.modules) - before)))"
    assert python("-c", code).stdout.split() == []


WITHOUT = """
import sys

class NotInstalled:
    @staticmethod
    def find_spec(name, path, target):
        if name in ("sklearn", "mnist1d", "matplotlib", "IPython", "nbformat"):
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, NotInstalled)
import kdlab
from kdlab import __main__

def course(): import kdlab.course

for call in (kdlab.data.digits, kdlab.data.mnist1d, kdlab.History().plot, course):
    try:
        call()
    except ImportError as error:
        print(error)
raise SystemExit(__main__.main(["grade", "x.ipynb"]))
"""


def test_what_needs_a_package_of_the_course_says_so():
    done = python("-c", WITHOUT)
    needs = {
        "kdlab.data.digits": "sklearn",
        "kdlab.data.mnist1d": "mnist1d",
        "History.plot": "matplotlib",
        "kdlab.course": "IPython",
        "kdlab grade": "nbformat",
    }
    remedy = "one of the course's packages: pip install 'kdlab[lab]'"
    said = [f"{what} needs {package}, {remedy}" for what, package in needs.items()]
    assert [*done.stdout.splitlines(), *done.stderr.splitlines()] == said
    assert done.returncode == 2


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The names of the files in the sdist and in the wheel, built from a copy: a build leaves
    folders behind."""
    copy = tmp_path_factory.mktemp("checkout") / "kdlab"
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "build", "dist", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=unwanted)
    code = "from setuptools import build_meta as b; print(b.build_sdist('.'), b.build_wheel('.'))"
    sdist, wheel = python("-c", code, cwd=copy).stdout.split()[-2:]
    with tarfile.open(copy / sdist) as packed:
        inside = {name.partition("/")[2] for name in packed.getnames()}
    return inside, set(zipfile.ZipFile(copy / wheel).namelist())


def test_the_sdist_has_all_that_its_tests_need(distributions):
    sdist, _ = distributions
    folders = ("benchmarks", "docs", "kdlab", "kernels", "notebooks", "tests")
    kinds = (".py", ".ipynb", ".md", ".json", ".css")
    there = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in there
        if path.suffix in kinds and ".ipynb_checkpoints" not in path.parts
    }
    wanted = {name for name in wanted if not name.endswith("-quick.json")}
    wanted |= {"CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "constraints.txt", "environment.yml"}
    assert wanted - sdist == set()


def test_the_wheel_is_typed_and_holds_the_packages_only(distributions):
    _, wheel = distributions
    assert "kdlab/py.typed" in wheel and "kdlab/kernels/launch.py" in wheel
    assert {name.partition("/")[0] for name in wheel} == {"kdlab", f"kdlab-{VERSION}.dist-info"}


def test_a_quick_benchmark_leaves_the_checkout_as_it_was():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    name = "benchmarks/results/cpu-2026-11-30-quick.json"
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0


def test_local_links_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page}: {target}"


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"kdlab {VERSION}\n"


def test_doctor_reports_in_about_ten_lines():
    done = python("-m", "kdlab", "doctor", "--course")
    assert done.returncode == 0, done.stdout
    assert 8 <= len(done.stdout.splitlines()) <= 14
    for word in ("the library", "torch", "triton", "device", "backend", "the course", "bqplot"):
        assert word in done.stdout


def test_doctor_knows_what_the_course_installs():
    assert set(doctor.COURSE) == names(PROJECT["project"]["optional-dependencies"]["lab"])


def test_doctor_is_content_with_the_library_alone(monkeypatch, capsys):
    there = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda p: None if p in doctor.COURSE else there(p))
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "the course (optional)" in said and f"missing: {', '.join(doctor.COURSE)}" in said
    assert "pip install 'kdlab[lab]'" in said and said.count("NO ") == 1
    assert main(["doctor", "--course"]) == 1


def test_doctor_fails_where_the_library_lacks_something(monkeypatch):
    monkeypatch.setattr(doctor, "triton_version", lambda: (3, 3))
    monkeypatch.setattr(doctor, "course", list)
    assert main(["doctor"]) == 1
