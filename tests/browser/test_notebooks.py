"""Each notebook of the course, opened in JupyterLab and run by its menu."""

import pytest

from tests.browser.serving import ROOT

NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
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
