"""Messages of the page may come in any thread; an instrument changes in one."""

import asyncio
import threading

import ipywidgets
import traitlets

from kdlab.widgets import DistillationRace, KernelStepper
from kdlab.widgets.one_thread import OneThread


def from_another_thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_a_control_moved_in_another_thread_waits_for_its_turn():
    async def use():
        stepper, seen = KernelStepper(), []
        stepper.observe(
            lambda change: seen.append((threading.current_thread(), change.new)), "beta"
        )

        def drag():
            for beta in (0.5, 2.0, 4.0):
                stepper._beta.value = beta

        from_another_thread(drag)
        assert stepper.beta == 1.0
        await asyncio.sleep(0.01)
        # Where the slider is now; what it passed on the way is not drawn.
        assert seen == [(threading.current_thread(), 4.0)]
        assert stepper.beta == stepper._beta.value == 4.0
        stepper.beta = 0.25
        assert stepper._beta.value == 0.25

    asyncio.run(use())


def test_a_control_that_moves_on_while_it_is_followed_is_not_sent_back():
    class Instrument(traitlets.HasTraits):
        beta = traitlets.Float(1.0)

    async def use():
        instrument, slider = Instrument(), ipywidgets.FloatSlider(1.0)

        def move_on(change):
            if change.new == 2.0:
                from_another_thread(lambda: setattr(slider, "value", 3.0))

        instrument.observe(move_on, "beta")  # between what arrives and what the link makes of it
        OneThread().link(instrument, "beta", slider)
        slider.value = 2.0
        await asyncio.sleep(0.01)
        assert (instrument.beta, slider.value) == (3.0, 3.0)

    asyncio.run(use())


def test_training_that_another_thread_starts_runs_here_and_is_paused_from_there():
    async def use():
        race = DistillationRace(betas=[0.25], width=8, seeds=1, steps=5000)
        threads = set()
        race._view.show = lambda race: threads.add(threading.current_thread())
        from_another_thread(race._start.click)
        await asyncio.sleep(0.3)
        assert race.status == "running"
        assert threads == {threading.current_thread()}
        from_another_thread(race._start.click)
        await asyncio.sleep(0.05)
        assert race.status == "paused"
        stopped_at = race.state["step"]
        await asyncio.sleep(0.1)
        assert race.state["step"] == stopped_at > 0
        race.close()

    asyncio.run(use())


def test_without_an_event_loop_a_request_is_done_at_once():
    stepper = KernelStepper()
    stepper._beta.value = 2.0
    assert stepper.beta == 2.0
    stepper._buttons[1].click()
    assert stepper.position == 1
