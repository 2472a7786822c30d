"""Prediction: a question that the learner answers before the experiment runs."""

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ipywidgets

from kdlab.course.panel import HINT, PASSED, QUIET, panel

MIME = "application/vnd.kdlab.prediction+json"
# What was predicted rightly (True) or wrongly since the kernel started, by question: running a cell
# twice counts once.
_TALLY: dict[str, bool] = {}


@dataclass(frozen=True)
class Score:
    """The result of a prediction, shown in words. `committed` is None where nobody committed."""

    question: str
    answer: str
    committed: str | None
    tally: str = ""

    def __repr__(self) -> str:
        says = f"The experiment says: {self.answer}."
        return f"{says} {self._words()}"

    def _words(self) -> str:
        if self.committed is None:
            return "(No prediction was committed above.)"
        if self.committed == self.answer:
            return f"You predicted it. {self.tally}".rstrip()
        return f"You predicted: {self.committed}. {self.tally}".rstrip()

    def _repr_html_(self) -> str:
        right = self.committed == self.answer
        colour = QUIET if self.committed is None else PASSED if right else HINT
        return panel(colour, "✓" if right else "▸", f"The experiment says: {self.answer}.",
                     self._words())  # fmt: skip

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), MIME: asdict(self)}


class Prediction(ipywidgets.VBox):
    """A question with options to choose from and a button that commits the choice.

    The choice can be made with the keyboard (Tab and Space). It can't be changed once
    committed; running the cell again begins anew. `commit` does the same from code.

    Raises:
        ValueError: fewer than two options, or one of them twice.

    >>> bet = Prediction("As β falls, the top probability", ["rises", "falls"])
    >>> bet
    Prediction('As β falls, the top probability')
    >>> bet.score("falls")
    The experiment says: falls. (No prediction was committed above.)
    """

    def __init__(self, question: str, options: Sequence[str]) -> None:
        self.question, self.options = question, tuple(options)
        if len(set(self.options)) != len(self.options) or len(self.options) < 2:
            raise ValueError(f"options: got {self.options}; expected at least two, all different")
        self.committed: str | None = None
        self._choice = ipywidgets.RadioButtons(
            options=self.options,
            value=None,
            tooltip=question,
            layout={"width": "auto", "max_width": "100%"},
        )
        self._button = ipywidgets.Button(
            description="Commit",
            tooltip=f"Commit your prediction: {question}",
            button_style="primary",
        )
        self._button.on_click(self._clicked)
        self._said = ipywidgets.HTML()
        # HTMLMath: a question may hold formulas between dollar signs.
        asked = ipywidgets.HTMLMath(f"<b>Predict first:</b> {html.escape(question)}")
        super().__init__([asked, self._choice, self._button, self._said])

    def commit(self, option: str) -> None:
        """Settle on one of the options."""
        if option not in self.options:
            raise ValueError(f"option: got {option!r}; expected one of {self.options}")
        self.committed = self._choice.value = option
        self._choice.disabled = self._button.disabled = True
        self._say(QUIET, "•", "Committed:", f"{option}. Now run the experiment.")

    def score(self, answer: str) -> Score:
        """What the experiment found, beside what was predicted; the widget shows it too."""
        if answer not in self.options:
            raise ValueError(f"answer: got {answer!r}; expected one of {self.options}")
        tally = ""
        if self.committed is not None:
            _TALLY[self.question] = self.committed == answer
            tally = f"({sum(_TALLY.values())} of {len(_TALLY)} predictions right so far.)"
        score = Score(self.question, answer, self.committed, tally)
        self._said.value = score._repr_html_()
        return score

    def _clicked(self, _: Any) -> None:
        if self._choice.value is None:
            self._say(HINT, "…", "Choose one first.", "")
        else:
            self.commit(self._choice.value)

    def _say(self, *parts: str) -> None:
        self._said.value = panel(*parts)

    def __repr__(self) -> str:
        return f"Prediction({self.question!r})"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, and the question as a list for pages on which nothing runs."""
        options = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        asked = f"<p><b>Predict first:</b> {html.escape(self.question)}</p><ul>{options}</ul>"
        return {**super()._repr_mimebundle_(**kwargs), "text/html": asked}
