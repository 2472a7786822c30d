"""Prediction: commit once, then be scored in the notebook and in the widget."""

import pytest

from kdlab.course import Prediction, prediction


@pytest.fixture(autouse=True)
def no_tally(monkeypatch):
    monkeypatch.setattr(prediction, "_TALLY", {})


def bet(question="Which?"):
    return Prediction(question, ["a", "b"])


def click(widget, option):
    widget._choice.value = option
    widget._button.click()


def test_a_click_commits_for_good():
    widget = bet()
    click(widget, None)
    assert widget.committed is None and "Choose one" in widget._said.value
    click(widget, "a")
    assert widget.committed == "a" and widget._choice.disabled and widget._button.disabled


def test_the_score_is_said_and_counted_once_a_question():
    first, second = bet("One?"), bet("Two?")
    first.commit("a")
    second.commit("a")
    assert repr(first.score("a")) == (
        "The experiment says: a. You predicted it. (1 of 1 predictions right so far.)"
    )
    second.score("b")
    again = second.score("b")
    assert "You predicted: a. (1 of 2 predictions" in repr(again)
    assert "The experiment says: b" in second._said.value


def test_an_uncommitted_prediction_reads_the_same_whatever_came_before():
    other = bet("Other?")
    other.commit("a")
    other.score("a")
    score = bet().score("b")
    assert repr(score) == "The experiment says: b. (No prediction was committed above.)"
    assert score._repr_mimebundle_()[prediction.MIME] == {
        "question": "Which?", "answer": "b", "committed": None, "tally": "",
    }  # fmt: skip


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^options: "):
        Prediction("Which?", ["a", "a"])
    with pytest.raises(ValueError, match=r"^answer: got 'c'"):
        bet().score("c")
    with pytest.raises(ValueError, match=r"^option: got 'c'"):
        bet().commit("c")


def test_the_choice_is_labelled_for_readers_of_screens():
    widget = bet("Is it 1 < 2?")
    assert widget._choice.tooltip == "Is it 1 < 2?" and "1 &lt; 2" in widget.children[0].value


def test_a_page_on_which_nothing_runs_shows_the_question_and_the_options():
    bundle = Prediction("Is it 1 < 2?", ["a & b", "c"])._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert (
        "1 &lt; 2?" in bundle["text/html"] and "<li>a &amp; b</li><li>c</li>" in bundle["text/html"]
    )
