"""The course's instruments: ipywidgets controls that drive bqplot marks, one widget a file.

BetaExplorer  what β does to the softened outputs, the loss and its gradient, example by example
"""

from kdlab.widgets.beta_explorer import BetaExplorer

__all__ = ["BetaExplorer"]
