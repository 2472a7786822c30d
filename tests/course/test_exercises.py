"""check, blank, attempt: words for every state of an answer, and never a pass for a blank one."""

import pytest

from kdlab import course
from kdlab.course import exercises


@pytest.fixture
def doubling(monkeypatch):
    """An exercise of notebook 00 that wants a function which doubles."""
    course.registered()  # import every check first: the copy below is thrown away
    monkeypatch.setattr(exercises, "_EXERCISES", dict(exercises._EXERCISES))

    @course.exercise("0.99", "Doubling")
    def _(f):
        if course.attempt(f, 3) != 6:
            raise course.Hint("is it twice 3?")

    return "0.99"


def nothing(x): ...


def documented(x):
    """Nothing either."""
    ...


@pytest.mark.parametrize("answer", [..., None, nothing, documented, (..., nothing), {"a": ...}])
def test_blank_answers_are_not_begun_and_not_passed(doubling, answer):
    verdict = course.check(doubling, answer)
    assert course.blank(answer) and not verdict.passed and not verdict.begun
    assert "raised" not in verdict.words


@pytest.mark.parametrize("answer", [0, "", (), lambda x: x, int, (1, ...)])
def test_other_answers_count_as_begun(doubling, answer):
    verdict = course.check(doubling, answer)
    assert not course.blank(answer) and verdict.begun and not verdict.passed


def test_a_check_that_accepts_anything_does_not_pass_a_blank(doubling):
    course.exercise("0.99", "Anything")(lambda answer: None)
    assert not course.check("0.99", nothing).passed
    assert course.check("0.99", 1).passed


def test_right_wrong_and_raising(doubling):
    assert course.check(doubling, lambda x: 2 * x) == course.Verdict(
        "0.99", "Doubling", True, "right"
    )
    assert course.check(doubling, lambda x: x).words == "is it twice 3?"
    assert "ZeroDivisionError" in course.check(doubling, lambda x: x / 0).words
    assert "hand over the function itself, not int" in course.check(doubling, 6).words


def test_the_output_is_text_html_and_data(doubling):
    bundle = course.check(doubling, lambda x: x / 0)._repr_mimebundle_()
    assert bundle["text/plain"].startswith("… 0.99 Doubling: your answer raised")
    assert bundle["text/html"].startswith("<div")
    assert bundle[exercises.MIME]["passed"] is False
    course.exercise("0.99", "<b>")(lambda answer: None)
    assert "&lt;b&gt;" in course.check("0.99", 1)._repr_html_()


@pytest.mark.parametrize(
    ("name", "expected"), [("0.77", "0.1"), ("99.1", "notebooks"), ("x", "'3.1'"), (3.1, "'3.1'")]
)
def test_a_wrong_name_is_answered_with_what_exists(name, expected):
    with pytest.raises(ValueError, match=r"^name: got ") as error:
        course.check(name, 1)
    assert expected in str(error.value)
