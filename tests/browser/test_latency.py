"""How fast the marks follow the slider. The exact numbers go into test-artifacts/ as JSON (`make
widget-latency` prints them); what is asserted only catches results that queue up."""

import json
import os
import platform
import statistics
import time

import pytest

from tests.browser.beta import BETA, CLASS, check
from tests.browser.controls import handle

STEPS = 40
DRAG_SECONDS = 5
# The moment a key or the mouse arrives in the page, and each moment at which a bar is redrawn.
WATCH = """widget => {
  const seen = (window.kdlabSeen = {moves: [], redrawn: []});
  const move = () => seen.moves.push(performance.now());
  window.addEventListener("keydown", move, true);
  window.addEventListener("mousemove", move, true);
  const watch = new MutationObserver(() => seen.redrawn.push(performance.now()));
  for (const figure of widget.querySelectorAll(".kdlab-probabilities, .kdlab-gradient"))
    watch.observe(figure, {subtree: true, attributeFilter: ["height"]});
}"""
SETTLED = """before => {
  const {redrawn} = window.kdlabSeen;
  return redrawn.length > before && performance.now() - redrawn.at(-1) > 100;
}"""


@pytest.fixture(scope="module")
def watched(logits, open_notebook):
    notebook = open_notebook("beta_explorer.ipynb", "doc/tree")
    notebook.run_all()
    explorer = notebook.widget(CLASS)
    check(explorer, logits)
    explorer.evaluate(WATCH)
    return explorer


def seen(widget):
    return widget.page.evaluate("window.kdlabSeen")


def keep(path, **numbers):
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "machine": platform.machine()}
    chromium = numbers.pop("widget").page.context.browser.version
    report = {**numbers, "chromium": chromium, **machine}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(report)


def test_marks_follow_each_step_of_the_slider(watched, logits, artifact):
    slider, waits = handle(watched, BETA), []
    for step in range(STEPS):
        before = seen(watched)
        slider.press("ArrowRight" if step < STEPS / 2 else "ArrowLeft")
        watched.page.wait_for_function(SETTLED, arg=len(before["redrawn"]))
        after = seen(watched)
        # From the key to the last bar of both figures.
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
