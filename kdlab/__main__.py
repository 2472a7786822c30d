"""`kdlab doctor` and `python -m kdlab doctor`."""

import argparse

from kdlab import doctor


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0 if all that the course needs is here, else 1."""
    parser = argparse.ArgumentParser(prog="kdlab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what is installed here, and which backend will run")
    parser.parse_args(arguments)
    print(doctor.report())
    return 0 if all(check.good for check in doctor.diagnose()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
