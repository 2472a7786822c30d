"""What the notebooks ask of a learner: predictions before an experiment, exercises with hints.

prediction.py  Prediction, the small widget in which a learner commits before the run
exercises.py   check, and what the checks of a chapter are made of
checks/        one file a notebook: what is expected of each exercise's answer, and the hints
"""

from kdlab.course.exercises import Hint, Verdict, check, exercise
from kdlab.course.prediction import Prediction

__all__ = ["Hint", "Prediction", "Verdict", "check", "exercise"]
