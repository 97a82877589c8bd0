"""How far it is: one line on a terminal's standard error, nothing anywhere else."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, TextIO

__all__ = ["CLEAR", "WIDTH", "Progress"]

TICK = 0.2
WIDTH = 20
CLEAR = "\r\x1b[K"


class Progress:
    """Counts files; ticks while its block runs."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        """Args: stream defaults to standard error."""
        self._total = total
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._done = 0
        self._began = time.monotonic()
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._shown:
            self._ticking = asyncio.create_task(self._tick(), name="progress")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.wait({self._ticking})
            self._stream.write(CLEAR)
            self._stream.flush()

    def advance(self) -> None:
        """One file more is done."""
        self._done += 1

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Make room for a line of output."""
        if self._shown:
            self._stream.write(CLEAR)
            self._stream.flush()
        yield

    async def _tick(self) -> None:
        while True:
            self._stream.write(self.line())
            self._stream.flush()
            await asyncio.sleep(TICK)

    def line(self) -> str:
        """The line as it is now."""
        full = WIDTH * self._done // self._total
        seconds = time.monotonic() - self._began
        return (
            f"{CLEAR}[{'#' * full}{'.' * (WIDTH - full)}]"
            f" {self._done}/{self._total} files, {seconds:.0f} s"
        )
