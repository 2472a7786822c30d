"""LossLandscape, KernelStepper, DistillationRace and BetaSweep in JupyterLab, in one notebook."""

import time

import pytest

from kdlab.widgets.row_examples import example_rows
from tests.browser import instruments, landscape, stepper
from tests.browser.controls import (
    BETA,
    accessible_controls,
    check_legible_at_700_pixels,
    click,
    drag,
    expect_text,
    handle,
    moved,
    tab_stops,
)


@pytest.fixture(scope="module")
def notebook(lab, open_notebook):
    notebook = open_notebook(instruments.write_instruments(lab[1]), "doc/tree")
    notebook.run_all()
    return notebook


@pytest.fixture(autouse=True)
def _no_problems(notebook):
    yield
    assert notebook.problems == []


@pytest.mark.parametrize("css_class", instruments.CLASSES)
def test_every_control_has_a_name_and_tab_reaches_it(notebook, css_class):
    widget = notebook.widget(css_class)
    controls = accessible_controls(widget)
    assert controls and all(name for _, name in controls), controls
    assert {name for _, name in controls} <= tab_stops(widget)


@pytest.mark.parametrize("css_class", instruments.CLASSES)
def test_every_control_moves_the_marks_to_the_librarys_numbers(notebook, css_class, artifact):
    instruments.use(css_class, notebook.widget, instruments.RACE, instruments.SWEEP)
    notebook.widget(css_class).screenshot(path=artifact(f"{css_class}.png"))


def test_a_student_is_dropped_where_the_sliders_are_while_the_kernel_hangs(notebook):
    """The page keeps a slider's later messages back while an earlier one is not answered."""
    widget = notebook.widget(landscape.CLASS)
    sliders = [handle(widget, name) for name in (landscape.DROP_A, landscape.DROP_B)]
    for slider in sliders:
        slider.press("Home")
    notebook.run(
        "import os, subprocess\n"
        "hang = 'sleep 1; kill -STOP {0}; sleep 6; kill -CONT {0}'.format(os.getpid())\n"
        "_ = subprocess.Popen(hang, shell=True)"
    )
    time.sleep(2)
    a, b = (moved(slider, lambda slider=slider: drag(slider, 25)) for slider in sliders)
    click(widget, "Drop a student")
    landscape.check_dropped(widget, a, b)
    click(widget, "Clear")


def test_what_the_page_asks_for_is_done_in_the_main_thread(notebook):
    """JupyterLab sends most of a widget's messages to a second thread of the kernel."""
    notebook.run(
        "import threading\n"
        "here = lambda: threading.current_thread() is threading.main_thread()\n"
        "came, done = [], []\n"
        "stepper._beta.observe(lambda _: came.append(here()), 'value')\n"
        "stepper.observe(lambda _: done.append(here()), 'beta')"
    )
    beta = handle(notebook.widget(stepper.CLASS), BETA)
    for key in ("ArrowLeft", "ArrowRight") * 3:
        moved(beta, lambda key=key: beta.press(key))
    notebook.run("assert done and all(done), done")
    # Else this test could not fail, and the detour could go.
    notebook.run("assert not all(came), came")


def test_python_moves_the_page(notebook):
    notebook.run("landscape.beta, landscape.divergence = 0.5, 'js'")
    notebook.run("landscape.temperature_scaling = True; landscape.drop(2.0, 4.0)")
    widget = notebook.widget(landscape.CLASS)
    expect_text(widget, "a = 2.00, b = 4.00, step 0")
    landscape.check(widget, beta=0.5, divergence="js")
    name = list(example_rows())[1]
    notebook.run(f"stepper.row, stepper.beta, stepper.position = {name!r}, 2.0, 3")
    stepper.check(notebook.widget(stepper.CLASS), name, beta=2.0, position=3)


@pytest.mark.parametrize("css_class", instruments.CLASSES)
def test_legible_and_unclipped_at_700_pixels_in_both_themes(notebook, css_class, artifact):
    widget = notebook.widget(css_class)
    check_legible_at_700_pixels(notebook.page, widget, css_class, notebook.use_theme, artifact)
