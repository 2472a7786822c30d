import os
import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import sync_playwright

from tests.browser import beta, chromium, serving
from tests.browser.lab import NotebookPage
from tests.browser.outputs import digits_outputs, write_notebook

ARTIFACTS = serving.ROOT / "test-artifacts"
SIZE = {"width": 1280, "height": 1000}


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items):
    """For pytest-xdist's `--dist loadgroup`: a widget's tests share their page, so they stay in
    one process; the notebooks go to whichever is free."""
    for item in items:
        if item.path.parent == Path(__file__).parent and "test_notebooks" not in item.path.name:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


# Package scope, not session: Playwright keeps an event loop running in this thread, and tests
# elsewhere that start a loop of their own must find none.
@pytest.fixture(scope="package")
def browser():
    with sync_playwright() as playwright:
        path = chromium.find(playwright)
        if path is None and os.environ.get("KDLAB_REQUIRE_BROWSER"):
            pytest.fail("KDLAB_REQUIRE_BROWSER is set, and " + chromium.HOW_TO_GET_ONE)
        if path is None:
            pytest.skip(chromium.HOW_TO_GET_ONE)
        running = chromium.launch(playwright, path)
        yield running
        running.close()


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """As many threads as the served kernels have: the same sums, the same training."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def lab(browser, tmp_path_factory):
    """A JupyterLab of the tests' own: (address, the folder it serves)."""
    with serving.jupyterlab(tmp_path_factory.mktemp("lab")) as served:
        yield served


@pytest.fixture(scope="package")
def logits(lab):
    """(student_logits, teacher_logits) on digits, and beside the served notebooks the same
    with a notebook that opens BetaExplorer on them."""
    outputs = digits_outputs()
    torch.save(outputs, lab[1] / "digits_outputs.pt")
    write_notebook(lab[1] / "beta_explorer.ipynb", beta.OPEN)
    return outputs


@pytest.fixture(scope="module")
def open_notebook(browser, lab):
    """A function that opens a notebook of the served folder in a new page."""
    opened = []

    def open_(notebook, view="lab/tree", **size):
        page = browser.new_page(viewport={**SIZE, **size})
        page.set_default_timeout(30_000)
        page.set_default_navigation_timeout(60_000)
        opened.append(NotebookPage(page, lab[0]))
        opened[-1].open(notebook, view)
        return opened[-1]

    yield open_
    for notebook in opened:
        if not notebook.page.is_closed():
            notebook.close()


@pytest.fixture
def artifact(request):
    """A function from a file's name to its path in test-artifacts/, below the test's name."""

    def path(name):
        test = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
        folder = ARTIFACTS / request.node.path.stem / test
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    return path
