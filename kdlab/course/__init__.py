"""What the notebooks ask of a learner: predictions before an experiment, exercises with hints.

prediction.py  Prediction, the small widget in which a learner commits before the run
exercises.py   check, and what the checks of a chapter are made of
panel.py       how both look in a notebook
listing.py     the source of the library's functions, to read in a notebook
checks/        one file a notebook: what is expected of each exercise's answer, and the hints
"""

from kdlab.course.exercises import Hint, Verdict, attempt, blank, check, exercise, registered
from kdlab.extras import needed_by

with needed_by("kdlab.course"):
    from kdlab.course.listing import source
    from kdlab.course.prediction import Prediction, Score

__all__ = [
    "Hint",
    "Prediction",
    "Score",
    "Verdict",
    "attempt",
    "blank",
    "check",
    "exercise",
    "registered",
    "source",
]
