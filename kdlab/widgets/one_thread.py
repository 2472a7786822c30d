"""What the page asks for, brought to one thread.

JupyterLab from 4.4 on hands the messages of widgets to a *subshell* of the kernel, if it has them
(ipykernel from 7 on): the first few come in the main thread and the rest in a second one, at any
time, in the middle of a cell or of another message. Two of them then change an instrument at once,
and training is started on one event loop and stopped from another. So requests wait for their turn
in the thread where the instrument was made, as they do in every other kernel.

Source: "Jupyter kernel subshells", Jupyter Enhancement Proposal 91.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any


class OneThread:
    """Runs requests in the thread that made this object, on the event loop that ran there then.

    In that thread itself, and where no loop runs (a plain script), a request runs at once.

    >>> done = []
    >>> OneThread().bring(lambda: done.append("asked and done"))
    >>> done
    ['asked and done']
    """

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._loop: asyncio.AbstractEventLoop | None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    def bring(self, act: Callable[[], None]) -> None:
        if self._loop is None or threading.current_thread() is self._thread:
            act()
        else:
            self._loop.call_soon_threadsafe(act)

    def link(self, instrument: Any, name: str, control: Any) -> None:
        """Instrument's trait and control's value follow each other.

        What arrives is the control's value at that moment: a slider that has moved on meanwhile is
        followed to where it is, and what it passed is left out.
        """

        nothing = arriving = object()

        def follow() -> None:
            nonlocal arriving
            arriving = control.value
            try:
                if getattr(instrument, name) != arriving:
                    setattr(instrument, name, arriving)
            finally:
                arriving = nothing

        def show(change: Any) -> None:
            # What came from the control is not sent back: it may have moved on by now.
            if change.new != arriving:
                control.value = change.new

        control.value = getattr(instrument, name)
        control.observe(lambda _: self.bring(follow), "value")
        instrument.observe(show, name)

    def observe(self, widget: Any, act: Callable[[Any], None], name: str = "value") -> None:
        """act(change) when the widget's trait has changed."""
        widget.observe(lambda change: self.bring(lambda: act(change)), name)

    def on_click(self, button: Any, act: Callable[[], None]) -> None:
        button.on_click(lambda _: self.bring(act))
