"""One message of a queue in a worker's hand: a job's, or a window's."""

import asyncio
import secrets
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from bus_worker import subjects
from bus_worker.errors import BusWorkerError, DeadlineExceeded
from bus_worker.plugin import Draft
from bus_worker.pulls import Held
from bus_worker.tracing import read_traceparent

__all__ = ["HEARD_IN", "Attempt"]

T = TypeVar("T")

HEARD_IN = 600.0
"""Seconds in which one clip or window must be heard: far more than a large model on a slow machine takes."""


class Attempt:
    """Somebody at work on a job; can be told to give up."""

    def __init__(self, held: Held, job_id: str) -> None:
        self.held = held
        self.job_id = job_id
        self.word = secrets.token_hex(8)
        """Says in the job's record that it is this attempt which has it."""
        self.traceparent = read_traceparent(held.header(subjects.HEADER_TRACEPARENT))
        self.drafts: list[Draft] = []
        self.opening = False
        """Whether it cuts a long recording, which another worker may go on with at any place."""
        self.gave_up: asyncio.Future[BusWorkerError] = asyncio.get_running_loop().create_future()

    def give_up(self, error: BusWorkerError) -> None:
        """End it with this error; the first one counts."""
        if not self.gave_up.done():
            self.gave_up.set_result(error)
        for draft in self.drafts:
            draft.give_up()

    def check(self) -> None:
        """Go no further where it was given up.

        Raises:
            BusWorkerError: why it was.
        """
        if self.gave_up.done():
            raise self.gave_up.result()

    def draft(self, *, limit: float | None = HEARD_IN, **fields: Any) -> Draft:
        """A draft that ends with this attempt, or after `limit` seconds."""
        self.check()
        deadline = None if limit is None else time.monotonic() + limit
        draft = Draft(**fields, deadline=deadline)
        self.drafts.append(draft)
        return draft

    async def run(self, work: Coroutine[Any, Any, T], limit: float = HEARD_IN) -> T:
        """Do the work, unless it is given up or takes too long; its threads may outlive it.

        Raises:
            DeadlineExceeded: it took too long.
            BusWorkerError: why it was given up; or the work's own.
        """
        task = asyncio.create_task(work, name="job-work")
        try:
            racing: set[asyncio.Future[Any]] = {task, self.gave_up}
            await asyncio.wait(racing, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self.check()
            raise DeadlineExceeded(f"not done within {limit:g} s")
        finally:
            if not task.done():
                for draft in self.drafts:
                    draft.give_up()
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until no thread works for it any more."""
        for draft in self.drafts:
            await draft.settled()
