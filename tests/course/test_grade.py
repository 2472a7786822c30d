"""kdlab grade, on small notebooks that really run."""

import json

import nbformat
import pytest

from kdlab.__main__ import main
from kdlab.course import prediction, registered
from kdlab.grade import grade

SETUP = "from kdlab import course\nbet = course.Prediction('Which?', ['a', 'b'])"
RIGHT = "course.check('0.1', 2.3)"
WRONG = "course.check('0.1', 1.0)"
OTHERS = [name for name in registered() if name.startswith("0.") and name != "0.1"]


@pytest.fixture
def write(tmp_path):
    def make(*cells, name="learner.ipynb", outputs=()):
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, *cells)]
        notebook.cells[-1].outputs = list(outputs)
        path = tmp_path / name
        nbformat.write(notebook, path)
        return path

    return make


def states(report):
    return {result.exercise: result.state for result in report.results}


def test_every_exercise_has_a_state_and_the_file_stays_as_it_is(write):
    path = write(WRONG, f"course.check('{OTHERS[0]}', ...)", "1 / 0")
    before = path.read_bytes()
    report = grade(path, progress=False)
    assert path.read_bytes() == before
    assert states(report) == {
        "0.1": "hint",
        OTHERS[0]: "not begun",
        **dict.fromkeys(OTHERS[1:], "no verdict"),
    }
    assert report.failures == ("In [4]: ZeroDivisionError: division by zero",)
    assert not report.complete and report.passed == 0
    assert "hint        0.1 A β" in str(report) and "should β rise" in str(report)


def test_what_is_stored_does_not_count_but_what_is_run(write):
    stored = nbformat.v4.new_output(
        "execute_result",
        data={"application/vnd.kdlab.verdict+json": {"exercise": "0.1", "passed": True}},
    )
    assert states(grade(write(WRONG, outputs=[stored]), progress=False))["0.1"] == "hint"


def test_the_last_check_counts(write):
    assert states(grade(write(WRONG, RIGHT), progress=False))["0.1"] == "passed"


@pytest.mark.parametrize(("committed", "outcome"), [("a", "right"), ("b", "wrong"), (None, None)])
def test_predictions_are_those_that_were_clicked(write, committed, outcome):
    score = prediction.Score("Which?", "a", committed)._repr_mimebundle_()
    stored = nbformat.v4.new_output("execute_result", data=score)
    report = grade(write("bet.score('a')", outputs=[stored]), progress=False)
    assert report.predictions == {outcome or "not committed": 1}


def test_time_limit_stops_the_run(write):
    report = grade(
        write(RIGHT, "import time; time.sleep(300)", "1 / 0"), time_limit=15, progress=False
    )
    assert report.seconds < 100 and states(report)["0.1"] == "passed"
    (failure,) = report.failures
    assert failure.startswith("In [3]: the time limit")


def test_a_kernel_that_dies_is_said(write):
    report = grade(write(RIGHT, "import os; os._exit(1)"), progress=False)
    assert report.failures[0].startswith("In [3]: the kernel died")


def test_commands_report_and_exit_status(write, tmp_path, capsys):
    path = write(RIGHT)
    assert main(["grade", str(path), str(path)]) == 1  # the others of notebook 00 are not there
    out = capsys.readouterr().out
    assert out.count("passed      0.1") == 2 and "all 2 notebooks: 2 of" in out
    assert main(["grade", "--json", str(path)]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["passed"] == 1 and report["results"][0]["state"] == "passed"

    text = tmp_path / "text.ipynb"
    text.write_text("not a notebook")
    assert main(["grade", str(text), str(tmp_path / "none.ipynb")]) == 2
    err = capsys.readouterr().err
    assert "expected a Jupyter notebook" in err and "none.ipynb" in err


def test_bad_time_limit(write):
    with pytest.raises(ValueError, match=r"^time_limit: got 0"):
        grade(write(RIGHT), time_limit=0)
