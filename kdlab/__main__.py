"""`kdlab doctor` and `kdlab grade`, also as `python -m kdlab`."""

import argparse
import json
import sys
from pathlib import Path

from kdlab import __version__, doctor
from kdlab.extras import needed_by


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status.

    doctor: 0 if all that the library needs is here (with --course, that the course needs too), else
    1. grade: 0 if every exercise passed and every cell ran, 1 if not, 2 if a notebook could not be
    read or what runs it is missing.
    """
    parser = argparse.ArgumentParser(prog="kdlab", description=__doc__)
    parser.add_argument("--version", action="version", version=f"kdlab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser(
        "doctor", help="what is installed here, and which backend will run"
    )
    checking.add_argument(
        "--course", action="store_true", help="also fail if the course's are missing"
    )
    grading = commands.add_parser("grade", help="run notebooks and report on their exercises")
    grading.add_argument("notebooks", nargs="+", type=Path, metavar="notebook.ipynb")
    grading.add_argument("--json", action="store_true", help="the report as JSON")
    grading.add_argument(
        "--time-limit", type=float, default=600, metavar="SECONDS", help="a notebook; default 600"
    )
    options = parser.parse_args(arguments)
    if options.command == "grade":
        return _grade(options.notebooks, options.json, options.time_limit)
    return _doctor(options.course)


def _doctor(course_too: bool) -> int:
    library, course = doctor.library(), doctor.course()
    print(f"the library\n{doctor.report(library)}")
    print(f"the course{'' if course_too else ' (optional)'}\n{doctor.report(course)}")
    needed = library + course if course_too else library
    return 0 if all(check.good for check in needed) else 1


def _grade(notebooks: list[Path], as_json: bool, time_limit: float) -> int:
    # Not needed by `doctor`, which must run where the notebooks' packages are missing.
    try:
        with needed_by("kdlab grade"):
            from kdlab.grade import grade
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2

    reports = []
    unread = False
    for path in notebooks:
        try:
            report = grade(path, time_limit=time_limit)
        except (OSError, ValueError) as error:
            print(f"kdlab grade: {error}", file=sys.stderr)
            unread = True
            continue
        reports.append(report)
        if not as_json:
            print(report, flush=True)
    if as_json:
        print(json.dumps([report.data() for report in reports], indent=2, ensure_ascii=False))
    elif len(reports) > 1:
        passed, of = sum(r.passed for r in reports), sum(len(r.results) for r in reports)
        print(f"all {len(reports)} notebooks: {passed} of {of} exercises passed")
    if unread:
        return 2
    return 0 if all(report.complete for report in reports) else 1


if __name__ == "__main__":
    raise SystemExit(main())
