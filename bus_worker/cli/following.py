"""A job followed to its end: a bar on a terminal, a line now and then elsewhere; both on standard error."""

import sys
import time
from contextlib import aclosing
from typing import TextIO

from bus_worker.cli.progress import CLEAR, WIDTH, Progress
from bus_worker.client import Job, JobStatus
from bus_worker.messages import Transcript

__all__ = ["FAILED", "follow"]

FAILED = 1
STEPS = 10
"""Lines that tell of one job's progress where no bar can be drawn."""


async def follow(job: Job, name: str = "") -> Transcript:
    """Show how a job gets on; its transcript when it is done.

    Args:
        name: what to call it before a person; its id where none is given.

    Raises:
        BusWorkerError: why it failed, or `Cancelled`, or it cannot be followed.
    """
    status = await job.status()
    async with _Bar(status, name or job.id) as bar, aclosing(job.events()) as events:
        bar.show(status)
        async for event in events:
            bar.show(await job.status())
            if event.final:
                break
    return await job.transcript()


class _Bar(Progress):
    """One job's."""

    def __init__(self, status: JobStatus, name: str, stream: TextIO | None = None) -> None:
        super().__init__(1, stream)
        self._status = status
        self._name = name
        self._said: tuple[str, int] | None = None
        self._stream = stream or sys.stderr

    def show(self, status: JobStatus) -> None:
        """Where it stands now."""
        self._status = status
        step = (status.status, int(status.progress * STEPS))
        if not self._shown and step != self._said:
            self._said = step
            self._stream.write(f"{self._name}: {self._words()}\n")
            self._stream.flush()

    def line(self) -> str:
        """The bar as it is now."""
        full = int(WIDTH * self._status.progress)
        seconds = time.time() - self._status.created_at
        return f"{CLEAR}[{'#' * full}{'.' * (WIDTH - full)}] {self._words()}, {seconds:.0f} s"

    def _words(self) -> str:
        status = self._status
        of = "" if status.windows is None else f"/{status.windows}"
        windows = f", {status.windows_done}{of} windows" if status.windows_done else ""
        return f"{status.status} {status.progress:.0%}{windows}"
