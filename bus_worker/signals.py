"""Told to stop: the first signal asks, the second means now."""

import asyncio
import signal

__all__ = ["StopSignals"]


class StopSignals:
    """Two events that SIGTERM and SIGINT set, from now until `restore`; for the main thread's loop."""

    def __init__(self, *also: signal.Signals) -> None:
        """Args: also are signals that ask to stop beside those two."""
        self.stop = asyncio.Event()
        self.now = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._numbers = (signal.SIGTERM, signal.SIGINT, *also)
        for number in self._numbers:
            self._loop.add_signal_handler(number, self._told)

    def _told(self) -> None:
        (self.now if self.stop.is_set() else self.stop).set()

    def restore(self) -> None:
        """Let the signals do again what they do by themselves."""
        for number in self._numbers:
            self._loop.remove_signal_handler(number)
