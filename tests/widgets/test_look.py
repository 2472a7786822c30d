"""What every instrument shares: names for screen readers, labels, no writing to stdout."""

import ipywidgets
import pytest
import torch

from kdlab.widgets import BetaExplorer, KernelStepper, LossLandscape
from kdlab.widgets.names import AccessibleNames

INSTRUMENTS = {
    "BetaExplorer": lambda: BetaExplorer(torch.randn(3, 4), torch.randn(3, 4)),
    "KernelStepper": KernelStepper,
    "LossLandscape": LossLandscape.example,
}


def descendants(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from descendants(child)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_control_has_words_and_every_figure_a_name(name, capsys):
    instrument = INSTRUMENTS[name]()
    parts = list(descendants(instrument))
    labelled = (ipywidgets.widget_description.DescriptionWidget, ipywidgets.Button)
    controls = [w for w in parts if isinstance(w, labelled) and not isinstance(w, ipywidgets.HTML)]
    assert controls
    assert all(w.description.strip() for w in controls)
    assert not any(isinstance(w, ipywidgets.Output) for w in parts)
    (names,) = (w for w in parts if isinstance(w, AccessibleNames))
    drawn = {kind for w in parts for kind in w._dom_classes if kind in names.figures}
    figures = [w for w in parts if type(w).__name__ == "Figure"]
    assert len(drawn) == len(figures) > 0
    assert "kdlab" in instrument._dom_classes
    assert capsys.readouterr().out == ""
