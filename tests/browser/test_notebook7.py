"""The same widget in Notebook 7."""

from tests.browser.beta import BETA, CLASS, check, handle
from tests.browser.controls import drag

# Notebook 7.6 throws these while it starts, whatever notebook it opens.
OWN_NOISE = (
    "Cannot read properties of undefined (reading 'schema')",
    "Command 'filebrowser:open-path' not registered.",
)


def test_beta_explorer_by_keyboard_and_mouse(logits, open_notebook, artifact):
    notebook = open_notebook("beta_explorer.ipynb", "notebooks")
    notebook.run_all()
    explorer = notebook.widget(CLASS)
    check(explorer, logits)
    handle(explorer, BETA).press("ArrowRight")
    check(explorer, logits)
    drag(handle(explorer, BETA), -40)
    check(explorer, logits)
    explorer.screenshot(path=artifact("widget.png"))
    said = [line for line in notebook.problems if not any(noise in line for noise in OWN_NOISE)]
    assert said == []
