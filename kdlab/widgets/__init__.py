"""The course's instruments: ipywidgets controls that drive bqplot marks, one widget a file.

BetaExplorer      what β does to the softened outputs, the loss and its gradient, example by example
LossLandscape     how β moves and flattens the loss of a two-parameter student; drop one and watch
DistillationRace  students train live, on labels only and distilled at several β
BetaSweep         accuracy against β over seeds, a recommended β, and how sure it is
KernelStepper     a row's tiles through the kernel's online sums: maxima, factors, bytes moved
"""

from kdlab.widgets.beta_explorer import BetaExplorer
from kdlab.widgets.beta_sweep import BetaSweep
from kdlab.widgets.distillation_race import DistillationRace
from kdlab.widgets.kernel_stepper import KernelStepper
from kdlab.widgets.loss_landscape import LossLandscape

__all__ = ["BetaExplorer", "BetaSweep", "DistillationRace", "KernelStepper", "LossLandscape"]
