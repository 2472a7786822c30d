"""`make app`: the laboratory as Voilà serves it, a page without code."""

import nbformat
import pytest
import torch

from tests.browser import serving
from tests.browser.beta import BETA, CLASS, check, handle
from tests.browser.controls import accessible_controls, contrasts, drag, eventually, overflow
from tests.browser.lab import HARMLESS, listen

# Voilà's template asks a CDN for icons that this page has none of; without a network that fails.
OFFLINE = "https://cdn.jsdelivr.net/"


@pytest.fixture(scope="module")
def trained():
    """(student_logits, teacher_logits): the laboratory's own cells, run here in the same way."""
    notebook = nbformat.read(serving.ROOT / "notebooks/laboratory.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    threads, names = torch.get_num_threads(), {}
    torch.set_num_threads(1)  # as many as the served kernel has: the same sums, the same weights
    for cell in cells[:2]:  # imports, training
        exec(cell.source, names)
    torch.set_num_threads(threads)
    x = names["digits"].x_test
    return names["predict"](names["student"], x), names["predict"](names["teacher"], x)


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    with serving.voila(tmp_path_factory.mktemp("app"), "laboratory.ipynb") as address:
        page = browser.new_page(viewport={"width": 1000, "height": 1000})
        page.set_default_timeout(30_000)
        page.problems = listen(page, harmless=(OFFLINE, *HARMLESS))
        # The page arrives piece by piece, as the kernel gets on with it.
        page.goto(address, wait_until="commit", timeout=60_000)
        page.locator(f".{CLASS} svg.svg-figure").first.wait_for(timeout=120_000)
        yield page
        page.close()


@pytest.fixture
def explorer(page):
    widget = page.locator(f".{CLASS}")
    widget.scroll_into_view_if_needed()
    return widget


def test_shows_the_widgets_and_no_code(page, explorer, trained, artifact):
    check(explorer, trained)
    assert page.get_by_role("heading", name="The laboratory").is_visible()
    assert page.locator(".jp-CodeCell .jp-InputArea, .highlight pre").count() == 0
    assert "import" not in page.locator("body").inner_text()
    page.screenshot(path=artifact("page.png"), full_page=True)
    assert page.problems == []


def test_follows_keyboard_and_mouse(page, explorer, trained):
    handle(explorer, BETA).press("ArrowRight")
    check(explorer, trained)
    drag(handle(explorer, BETA), -40)
    check(explorer, trained)
    assert page.problems == []


def test_every_control_of_the_page_has_a_name(page):
    controls = accessible_controls(page.locator("body"))
    assert ("slider", BETA) in controls
    assert all(name for _, name in controls), controls


def test_at_700_pixels(page, explorer, artifact):
    page.set_viewport_size({"width": 700, "height": 1000})

    def fits():
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        assert overflow(explorer) == []

    eventually(fits)
    assert [(text, ratio) for text, ratio in contrasts(explorer) if ratio < 4.5] == []
    page.screenshot(path=artifact("page.png"), full_page=True)
