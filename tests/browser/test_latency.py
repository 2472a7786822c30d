"""How fast the marks follow the slider. The exact numbers go into test-artifacts/ as JSON (`make
widget-latency` prints them); what is asserted only catches results that queue up."""

import json
import os
import platform
import statistics
import time

import pytest

from kdlab.widgets.row_examples import example_rows
from tests.browser import beta, instruments, landscape, stepper
from tests.browser.controls import BETA, beta_of, handle
from tests.browser.outputs import write_notebook

STEPS = 40
DRAG_SECONDS = 5
READ = 4
# Where each instrument redraws for a new β, and by which changes that shows. The landscape's lowest
# point is not among them: it waits until the slider rests. Its isolines come after its colours.
REDRAWN = {
    "beta-explorer": (
        beta,
        ".kdlab-probabilities, .kdlab-gradient",
        {"attributeFilter": ["height"]},
    ),
    "loss-landscape": (landscape, ".kdlab-landscape", {"attributeFilter": ["href"]}),
    "isolines": (landscape, ".kdlab-landscape", {"attributeFilter": ["d"]}),
    "kernel-stepper": (stepper, ".widget-html-content", {"childList": True}),
}
# The moment a key or the mouse arrives in the page, and each moment at which a mark is redrawn.
WATCH = """(widget, [where, changes]) => {
  if (!window.kdlabSeen) {
    window.kdlabSeen = {};
    const move = () => window.kdlabSeen.moves.push(performance.now());
    window.addEventListener("keydown", move, true);
    window.addEventListener("mousemove", move, true);
  }
  const seen = Object.assign(window.kdlabSeen, {moves: [], redrawn: []});
  seen.watch?.disconnect();
  const watch = seen.watch = new MutationObserver(() => seen.redrawn.push(performance.now()));
  for (const figure of widget.querySelectorAll(where))
    watch.observe(figure, {subtree: true, ...changes});
}"""
SETTLED = """before => {
  const {redrawn} = window.kdlabSeen;
  return redrawn.length > before && performance.now() - redrawn.at(-1) > 150;
}"""


@pytest.fixture(scope="module")
def notebook(logits, lab, open_notebook):
    # A row that has been read: before, no number depends on β.
    cells = [beta.OPEN, *instruments.CELLS[:3], f"stepper.position = {READ}"]
    write_notebook(lab[1] / "latency.ipynb", *cells)
    notebook = open_notebook("latency.ipynb", "doc/tree")
    notebook.run_all()
    return notebook


@pytest.fixture(params=REDRAWN)
def watched(request, notebook):
    """An instrument, seen and watched."""
    instrument, *redrawn = REDRAWN[request.param]
    widget = notebook.widget(instrument.CLASS)
    widget.instrument, widget.marks = instrument, request.param
    widget.evaluate(WATCH, redrawn)
    return widget


def check(widget, logits):
    """The marks are right where the slider is."""
    if widget.instrument is beta:
        beta.check(widget, logits)
    elif widget.instrument is landscape:
        settings = {"divergence": "kl", "temperature_scaling": True}
        landscape.check(widget, beta=beta_of(widget), **settings)
    else:
        row = next(iter(example_rows()))
        stepper.check(widget, row, beta=beta_of(widget), position=READ)


def seen(widget):
    return widget.page.evaluate("({moves: kdlabSeen.moves, redrawn: kdlabSeen.redrawn})")


def keep(path, **numbers):
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "machine": platform.machine()}
    widget = numbers.pop("widget")
    chromium = widget.page.context.browser.version
    numbers["marks"] = widget.marks
    report = {**numbers, "chromium": chromium, **machine}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(report)


def test_marks_follow_each_step_of_the_slider(watched, logits, artifact):
    slider, waits = handle(watched, BETA), []
    for step in range(STEPS):
        before = seen(watched)
        slider.press("ArrowLeft" if step // 10 % 2 else "ArrowRight")
        watched.page.wait_for_function(SETTLED, arg=len(before["redrawn"]), polling=100)
        after = seen(watched)
        # From the key to the last of the marks.
        waits.append(after["redrawn"][-1] - after["moves"][-1])
    check(watched, logits)
    keep(
        artifact("latency.json"),
        what="slider step to redrawn marks, ms",
        median=statistics.median(waits),
        worst=max(waits),
        steps=STEPS,
        widget=watched,
    )
    assert statistics.median(waits) < 500


def test_a_long_drag_ends_where_the_mouse_ended(watched, logits, artifact):
    slider, mouse = handle(watched, BETA), watched.page.mouse
    slider.press("Home")
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    end = time.monotonic() + DRAG_SECONDS
    step = 0
    while time.monotonic() < end:
        step += 1
        mouse.move(x + 70 + 60 * (-1) ** (step // 60) * (step % 60 - 30) / 30, y)
        time.sleep(1 / 60)
    moved = seen(watched)
    mouse.up()
    before = len(moved["redrawn"])
    time.sleep(2)
    after = seen(watched)
    lag = max(0.0, after["redrawn"][-1] - moved["moves"][-1])
    check(watched, logits)
    keep(
        artifact("drag.json"),
        what=f"last redrawn mark after the last move of {DRAG_SECONDS} s of dragging, ms",
        lag=lag,
        moves=len(moved["moves"]),
        redraws=before,
        widget=watched,
    )
    assert lag < 1500
