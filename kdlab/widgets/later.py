"""Heavy work once the controls have come to rest: the last value counts, nothing queues up."""

import asyncio
from collections.abc import Callable


class Later:
    """Calls `work` when `soon()` has not been called for `quiet` seconds.

    The wait is a timer of the kernel's event loop, so other cells run meanwhile. Where no loop
    runs (a plain script), `soon()` works at once.

    >>> done = []
    >>> later = Later(lambda: done.append("worked"))
    >>> later.soon()
    >>> done
    ['worked']
    """

    def __init__(self, work: Callable[[], None], quiet: float = 0.1) -> None:
        self._work, self._quiet = work, quiet
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """Work after a quiet time; a call that still waits is replaced."""
        self.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._work()
            return
        self._timer = loop.call_later(self._quiet, self.now)

    def now(self) -> None:
        """Do what waits, if anything does."""
        if self._timer is not None:
            self.cancel()
            self._work()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
