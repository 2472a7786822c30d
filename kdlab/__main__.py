"""`kdlab doctor` and `kdlab grade`, also as `python -m kdlab`."""

import argparse
import json
import sys
from pathlib import Path

from kdlab import doctor


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the exit status.

    doctor: 0 if all that the course needs is here, else 1. grade: 0 if every exercise passed and
    every cell ran, 1 if not, 2 if a notebook could not be read.
    """
    parser = argparse.ArgumentParser(prog="kdlab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what is installed here, and which backend will run")
    grading = commands.add_parser("grade", help="run notebooks and report on their exercises")
    grading.add_argument("notebooks", nargs="+", type=Path, metavar="notebook.ipynb")
    grading.add_argument("--json", action="store_true", help="the report as JSON")
    grading.add_argument(
        "--time-limit", type=float, default=600, metavar="SECONDS", help="a notebook; default 600"
    )
    options = parser.parse_args(arguments)
    if options.command == "grade":
        return _grade(options.notebooks, options.json, options.time_limit)
    print(doctor.report())
    return 0 if all(check.good for check in doctor.diagnose()) else 1


def _grade(notebooks: list[Path], as_json: bool, time_limit: float) -> int:
    # Not needed by `doctor`, which must run where the notebooks' packages are missing.
    from kdlab.grade import grade

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
