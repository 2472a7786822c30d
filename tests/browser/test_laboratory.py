"""`make app`: the laboratory as Voilà serves it, a page without code."""

import nbformat
import pytest

from tests.browser import instruments, serving, sweep
from tests.browser.beta import CLASS, by_keyboard, by_mouse, check
from tests.browser.controls import (
    BETA,
    accessible_controls,
    contrasts,
    eventually,
    overflow,
)
from tests.browser.lab import HARMLESS, listen

# Voilà's template asks a CDN for icons that this page has none of; without a network that fails.
OFFLINE = "https://cdn.jsdelivr.net/"


@pytest.fixture(scope="module")
def trained():
    """(student_logits, teacher_logits): the laboratory's own cells, run here in the same way."""
    notebook = nbformat.read(serving.ROOT / "notebooks/laboratory.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    names: dict = {}
    for cell in cells[:2]:  # imports, training
        exec(cell.source, names)
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
        page.locator(f".{CLASS} svg.svg-figure").first.wait_for(timeout=300_000)
        yield page
        page.close()


def in_view(page, css_class):
    """The widget with its figures: bqplot draws what is in view."""
    widget = page.locator(f".{css_class}")
    widget.wait_for(timeout=300_000)  # the page's later cells may still be running
    widget.scroll_into_view_if_needed()
    widget.locator("svg.svg-figure").first.wait_for()
    return widget


@pytest.fixture
def explorer(page):
    return in_view(page, CLASS)


def test_shows_the_widgets_and_no_code(page, explorer, trained, artifact):
    check(explorer, trained)
    assert page.get_by_role("heading", name="The laboratory").is_visible()
    assert page.locator(".jp-CodeCell .jp-InputArea, .highlight pre").count() == 0
    assert "import" not in page.locator("body").inner_text()
    page.screenshot(path=artifact("page.png"), full_page=True)
    assert page.problems == []


def test_beta_explorer_by_mouse_and_keyboard(page, explorer, trained):
    by_mouse(explorer, trained)
    by_keyboard(explorer, trained)
    assert page.problems == []


def test_each_widget_stands_under_its_heading(page):
    """Voilà finds a cell's place by counting: a cell that is left out would shift all after it."""
    page.locator(f".{instruments.CLASSES[1]}").wait_for(state="attached", timeout=300_000)
    found = page.evaluate(
        """() => [...document.querySelectorAll("h2, .kdlab")].map(node => node.matches("h2")
          ? node.textContent : [...node.classList].find(name => name.startsWith("kdlab-")))"""
    )
    assert found == [
        "What β does to one example¶", CLASS,
        "How β bends the loss¶", "kdlab-loss-landscape",
        "Students race¶", "kdlab-distillation-race",
        "Which β?¶", "kdlab-beta-sweep",
        "Inside the kernel¶", "kdlab-kernel-stepper",
    ]  # fmt: skip


# BetaSweep trains for half a minute, in Voilà as in JupyterLab, where test_instruments uses it.
@pytest.mark.parametrize(
    "css_class",
    [pytest.param(c, marks=[pytest.mark.long] * (c == sweep.CLASS)) for c in instruments.CLASSES],
)
def test_the_other_instruments_by_mouse_and_keyboard(page, css_class):
    instruments.use(css_class, lambda css_class: in_view(page, css_class))
    assert page.problems == []


def test_every_control_of_the_page_has_a_name(page):
    controls = accessible_controls(page.locator("body"))
    assert ("slider", BETA) in controls
    assert all(name for _, name in controls), controls


@pytest.mark.parametrize("css_class", (CLASS, *instruments.CLASSES))
def test_at_700_pixels(page, css_class, artifact):
    page.set_viewport_size({"width": 700, "height": 1000})
    widget = in_view(page, css_class)

    def fits():
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        assert overflow(widget) == []

    eventually(fits)
    widget.screenshot(path=artifact(f"{css_class}.png"))
    assert [(text, ratio) for text, ratio in contrasts(widget) if ratio < 4.5] == []
