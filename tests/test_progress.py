"""The bar in a notebook: seen while work runs, gone afterwards, nothing of it in what is stored."""

import nbformat
from nbclient import NotebookClient

from kdlab.progress import progress

SOURCE = """
from kdlab.progress import progress

bars = [progress((n for n in range(3)), "number", 3)]
print(sum(bars[0]), bars[0].n, bars[0].container.layout.display)
"""


def test_in_a_notebook_it_goes_and_leaves_nothing():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    NotebookClient(notebook, store_widget_state=False).execute()
    shown, printed = notebook.cells[0].outputs
    assert "application/vnd.jupyter.widget-view+json" in shown.data
    assert shown.data["text/html"] == shown.data["text/plain"] == ""
    assert printed.text == "3 3 none\n"


def test_elsewhere_it_is_a_line_of_text(capsys):
    assert list(progress(range(3), "student")) == [0, 1, 2]
    assert "3/3" in (said := capsys.readouterr().err) and "student/s" in said
