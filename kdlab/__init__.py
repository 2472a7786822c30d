"""kdlab: model distillation, as a course and as one fused loss.

    loss = kdlab.distillation_loss(student_logits, teacher_logits, beta=0.25)

`kdlab.plots` and `kdlab.widgets` are imported by name where they are wanted: they bring matplotlib
and Jupyter's widgets, which the library itself does without.
"""

from kdlab import data, metrics, models, reference
from kdlab.functional import distillation_loss, soften
from kdlab.losses import DistillationLoss
from kdlab.training import History, distill, train

__version__ = "0.1.0"
__all__ = [
    "DistillationLoss",
    "History",
    "data",
    "distill",
    "distillation_loss",
    "metrics",
    "models",
    "reference",
    "soften",
    "train",
]
