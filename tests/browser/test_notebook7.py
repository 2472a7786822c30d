"""The same widgets in Notebook 7."""

import pytest

from tests.browser import instruments
from tests.browser.beta import CLASS, by_keyboard, by_mouse

# Notebook 7.6 throws these while it starts, whatever notebook it opens.
OWN_NOISE = (
    "Cannot read properties of undefined (reading 'schema')",
    "Command 'filebrowser:open-path' not registered.",
)


def problems(notebook):
    return [line for line in notebook.problems if not any(noise in line for noise in OWN_NOISE)]


def test_beta_explorer_by_mouse_and_keyboard(logits, open_notebook, artifact):
    notebook = open_notebook("beta_explorer.ipynb", "notebooks")
    notebook.run_all()
    explorer = notebook.widget(CLASS)
    by_mouse(explorer, logits)
    by_keyboard(explorer, logits)
    explorer.screenshot(path=artifact("widget.png"))
    assert problems(notebook) == []


@pytest.fixture(scope="module")
def notebook(lab, open_notebook):
    notebook = open_notebook(instruments.write_instruments(lab[1]), "notebooks")
    notebook.run_all()
    return notebook


# JupyterLab and Voilà have been asked the same.
@pytest.mark.long
@pytest.mark.parametrize("css_class", instruments.CLASSES)
def test_the_other_instruments_by_mouse_and_keyboard(notebook, css_class):
    instruments.use(css_class, notebook.widget, instruments.RACE, instruments.SWEEP)
    assert problems(notebook) == []
