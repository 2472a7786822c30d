"""Each notebook of the course, opened in JupyterLab and run by its menu."""

import pytest

from tests.browser.serving import ROOT

NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
# Half a minute to two each, most of it training, which NBVAL has them do once already:
# `make test` leaves them out here, `make test-browser` does not.
LONG = {
    "01_background.ipynb",
    "02_core_concepts.ipynb",
    "03_algorithm.ipynb",
    "04_code.ipynb",
    "05_trends_and_challenges.ipynb",
    "06_faq.ipynb",
    "07_inside_the_kernel.ipynb",
    "08_hints.ipynb",
    "09_prune_then_distil.ipynb",
    "10_policy_distillation.ipynb",
    "11_the_missing_digit.ipynb",
    "12_language_model.ipynb",
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in NOTEBOOKS]
)
def test_runs_without_an_error(name, open_notebook, artifact):
    notebook = open_notebook(name)
    try:
        cells = notebook.run_all()
    finally:
        notebook.page.screenshot(path=artifact("page.png"))
    raised = [
        (cell["id"], output["ename"], output["evalue"])
        for cell in cells
        for output in cell["outputs"]
        if output["output_type"] == "error" and "raises-exception" not in cell["tags"]
    ]
    assert raised == []
    assert notebook.problems == []
    notebook.close()
