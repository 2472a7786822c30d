"""LossLandscape, KernelStepper, DistillationRace and BetaSweep in JupyterLab, in one notebook."""

import re

import pytest
import torch

import kdlab
from kdlab.widgets import BetaSweep, DistillationRace, look
from kdlab.widgets.curves import LANES
from kdlab.widgets.plane import digits_plane
from kdlab.widgets.row_examples import example_rows
from tests.browser import marks
from tests.browser.beta import BETA, expect_says, handle
from tests.browser.controls import (
    accessible_controls,
    check_legible_at_700_pixels,
    eventually,
    tab_stops,
)
from tests.browser.outputs import write_notebook

RACE = {"betas": [0.25], "seeds": 2, "steps": 60}
SWEEP = {"betas": [0.05, 0.25, 1.0], "seeds": 3, "steps": 20}
CELLS = (
    "from kdlab.widgets import BetaSweep, DistillationRace, KernelStepper, LossLandscape",
    "landscape = LossLandscape.example()\nlandscape",
    "stepper = KernelStepper()\nstepper",
    f"race = DistillationRace(**{RACE})\nrace",
    f"sweep = BetaSweep(**{SWEEP})\nsweep",
)
CLASSES = (
    "kdlab-loss-landscape",
    "kdlab-kernel-stepper",
    "kdlab-distillation-race",
    "kdlab-beta-sweep",
)


@pytest.fixture(scope="module")
def notebook(lab, open_notebook):
    write_notebook(lab[1] / "instruments.ipynb", *CELLS)
    notebook = open_notebook("instruments.ipynb", "doc/tree")
    notebook.run_all()
    return notebook


@pytest.fixture(autouse=True)
def _no_problems(notebook):
    yield
    assert notebook.problems == []


@pytest.fixture
def one_thread():
    """As many threads as the notebook's kernel has: the same sums, the same training."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def number(widget, pattern):
    """The number in the widget's text that the pattern's group captures."""
    found = re.search(pattern, widget.inner_text())
    assert found, widget.inner_text()
    return float(found.group(1).replace("−", "-"))


@pytest.mark.parametrize("css_class", CLASSES)
def test_every_control_has_a_name_and_tab_reaches_it(notebook, css_class):
    widget = notebook.widget(css_class)
    controls = accessible_controls(widget)
    assert controls and all(name for _, name in controls), controls
    assert {name for _, name in controls} <= tab_stops(widget)


def test_landscape_shows_the_loss_of_the_student_dropped(notebook, one_thread):
    widget = notebook.widget("kdlab-loss-landscape")
    plane, x, teacher_logits, _ = digits_plane(0)

    def loss(a, b, **settings):
        return kdlab.distillation_loss(plane.student(a, b)(x), teacher_logits, **settings).item()

    notebook.run("landscape.drop(2.0, 4.0)")
    for key, beta in ((None, 0.25), ("End", 8.0), ("Home", 1 / 32)):
        if key:
            handle(widget, BETA).press(key)
            expect_says(handle(widget, BETA), f"{beta:.3f}")

        def shown(beta=beta):
            said = number(widget, r"Your student\n.*\nloss = ([\d.e+-]+)")
            assert said == pytest.approx(loss(2.0, 4.0, beta=beta), rel=2e-3)

        eventually(shown)
    place = marks.points(widget.locator(".kdlab-landscape"))[marks.rgb(look.STUDENT)]
    assert place == pytest.approx((2.0, 4.0), abs=0.1)


def test_landscape_takes_a_click_and_a_key(notebook):
    widget = notebook.widget("kdlab-loss-landscape")
    notebook.run("landscape.beta = 0.25; landscape.clear()")
    widget.locator(".kdlab-landscape rect.plotarea_events").first.click()
    descend = widget.get_by_role("button", name="Descend")

    def descending():
        assert number(widget, r"step (\d+)") > 5

    eventually(descending)
    descend.press("Space")  # stop
    before = number(widget, r"step (\d+)")
    widget.get_by_role("button", name="One step").press("Enter")

    def one_more():
        assert number(widget, r"step (\d+)") >= before + 1

    eventually(one_more)


def test_stepper_ends_at_the_librarys_kl(notebook):
    widget = notebook.widget("kdlab-kernel-stepper")
    z_s, z_t = next(iter(example_rows().values()))
    _, drawn = marks.bars(widget.locator(".kdlab-row"))
    for pair, teacher, student in zip(drawn, z_t.tolist(), z_s.tolist(), strict=True):
        assert [bar["value"] for bar in pair] == pytest.approx([teacher, student], abs=0.02)
    widget.get_by_role("button", name="Step").click()
    eventually(lambda: expect_text(widget, "Tile 1 of 4: classes 0 to 7"))
    handle(widget, "Tiles so far").press("End")
    eventually(lambda: expect_text(widget, "KL(p‖q)"))
    loss = kdlab.distillation_loss(z_s, z_t, temperature_scaling=False).item()
    assert number(widget, r"KL\(p‖q\) = .* = ([\d.e+-]+)") == pytest.approx(loss, rel=1e-9)


def expect_text(widget, words):
    assert words in widget.inner_text()


def test_race_trains_live_pauses_and_ends_at_the_same_curves(notebook, artifact, one_thread):
    widget = notebook.widget("kdlab-distillation-race")
    widget.get_by_role("button", name="Step").press("Enter")
    eventually(lambda: expect_text(widget, "Paused at step 1 of 60"))
    widget.get_by_role("button", name="Start").click()
    eventually(lambda: expect_text(widget, "Finished"), seconds=60)
    twin = DistillationRace(**RACE)
    twin.run()
    runs = torch.tensor(twin.state["lanes"]["β = 0.25"]["accuracy"])
    drawn = marks.lines(widget.locator(".kdlab-race-accuracy"))[marks.rgb(LANES[0][0])]
    # The axis says whole per cents.
    assert drawn[-1] == pytest.approx(runs[:, -1].mean().item(), abs=0.02)
    assert number(widget, r"β = 0.25\s+60\s+([\d.]+)") == pytest.approx(
        runs[:, -1].mean().item(), abs=1e-3
    )
    widget.screenshot(path=artifact("race.png"))


def test_sweep_recommends_what_the_same_sweep_does_elsewhere(notebook, artifact, one_thread):
    widget = notebook.widget("kdlab-beta-sweep")
    widget.get_by_role("button", name="Run").press("Enter")
    eventually(lambda: expect_text(widget, "Finished: 12 students"), seconds=60)
    twin = BetaSweep(**SWEEP)
    twin.run()
    means = [sum(seeds) / len(seeds) for seeds in twin.state["held_out"].values()]
    drawn = marks.lines(widget.locator(".kdlab-sweep"))[marks.rgb(look.STUDENT)]
    assert drawn == pytest.approx(means, abs=0.02)
    assert number(widget, r"β = ([\d.]+): best in") == twin.recommendation.beta
    widget.screenshot(path=artifact("sweep.png"))


@pytest.mark.parametrize("css_class", CLASSES)
def test_legible_and_unclipped_at_700_pixels_in_both_themes(notebook, css_class, artifact):
    widget = notebook.widget(css_class)
    check_legible_at_700_pixels(notebook.page, widget, css_class, notebook.use_theme, artifact)
