"""Prediction: a question that the learner answers before the experiment runs."""

from collections.abc import Sequence

import ipywidgets


class Prediction(ipywidgets.VBox):
    """A question with options to choose from and a button that commits the choice.

    >>> bet = Prediction("As β falls, the top probability", ["rises", "falls"])
    >>> bet
    Prediction('As β falls, the top probability')
    >>> bet.score("falls")
    The experiment says: falls. (No prediction was committed above.)
    """

    def __init__(self, question: str, options: Sequence[str]) -> None:
        self.question, self.options = question, tuple(options)
        self.committed: str | None = None
        self._choice = ipywidgets.RadioButtons(
            options=self.options, value=None, description="", layout={"width": "auto"}
        )
        self._button = ipywidgets.Button(description="Commit", tooltip="Commit this prediction")
        self._button.on_click(lambda _: self.commit(self._choice.value))
        self._said = ipywidgets.HTML()
        super().__init__(
            [ipywidgets.HTML(f"<b>{question}</b>"), self._choice, self._button, self._said]
        )

    def commit(self, option: str | None) -> None:
        if option not in self.options:
            self._said.value = "Choose one first."
            return
        self.committed = option
        self._choice.disabled = self._button.disabled = True
        self._said.value = f"Committed: {option}. Run on."

    def score(self, answer: str) -> "Score":
        """What the experiment found, beside what was predicted."""
        if answer not in self.options:
            raise ValueError(f"answer: got {answer!r}; expected one of {self.options}")
        return Score(answer, self.committed)

    def __repr__(self) -> str:
        return f"Prediction({self.question!r})"


class Score:
    """The result of a prediction, shown in words."""

    def __init__(self, answer: str, committed: str | None) -> None:
        self.answer, self.committed = answer, committed

    def __repr__(self) -> str:
        says = f"The experiment says: {self.answer}."
        if self.committed is None:
            return f"{says} (No prediction was committed above.)"
        if self.committed == self.answer:
            return f"{says} You predicted it."
        return f"{says} You predicted: {self.committed}."
