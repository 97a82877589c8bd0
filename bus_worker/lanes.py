"""Who is next: people before jobs, and of jobs the pieces of what is begun before what is not.

Requests come by themselves, on credits (`bus_worker.credits`). Jobs are fetched, one for each slot
that is free, and none while a person waits: else a freed slot would be taken by a queued job before
the person, who was refused, asks again (measured: 11 to 13 jobs went first; so it is one).
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bus_worker.credits import Credits
from bus_worker.pulls import Held, Pulls, WorkQueue

__all__ = ["Lanes"]

LOW_EVERY = 8
"""One turn in so many begins with the low priority, so that it never starves."""
LOOK_AGAIN = 0.02
"""Seconds between two looks whether somebody waits still: a waiter's leaving tells nobody."""
LOOK_ANYWAY = 1.0
"""The same while all slots are taken: without a connection, none that comes back is offered, nor told of."""


class Lanes:
    """Fetches jobs into the slots that people leave free."""

    def __init__(
        self,
        credits: Credits,  # noqa: A002 - the room's word
        pulls: Pulls,
        queues: Sequence[Sequence[WorkQueue]],
        take: Callable[[Held], Coroutine[Any, Any, None]],
        *,
        somebody_waits: Callable[[], bool],
        most: int | None = None,
    ) -> None:
        """Set it up.

        Args:
            queues: the queues of each priority, the highest first, and of each those to be asked first.
            take: does what was fetched.
            somebody_waits: whether a person was refused and waits.
            most: slots that jobs may take; None: all but one, and of one slot that one.
        """
        self._credits = credits
        self._pulls = pulls
        self._queues = queues
        self._take = take
        self._somebody_waits = somebody_waits
        self._most = max(1, credits.slots - 1) if most is None else min(most, credits.slots)
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._turn = 0
        self._waiting: dict[asyncio.Task[None], Held] = {}
        """Jobs that wait for the next slot that comes back."""
        self.jobs = 0
        """Jobs and windows in hand."""

    def start(self) -> None:
        """Fetch from now on."""
        self._running = asyncio.create_task(self._run(), name="lanes")

    async def stop(self) -> None:
        """Fetch no more; what is begun goes on, what waits for its slot goes back."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        waiting, self._waiting = self._waiting, {}
        for task in waiting:
            task.cancel()
        self.jobs -= len(waiting)
        for task, held in waiting.items():
            await asyncio.wait({task})
            await held.back()

    def wake(self) -> None:
        """A slot may have become free."""
        self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._room()
            held = await self._next()
            if held is not None:
                await self._begin(held)

    def _may_take(self) -> bool:
        return self._has_room() or self._has_share()

    def _has_room(self) -> bool:
        return self.jobs < self._most and self._credits.room > 0 and not self._somebody_waits()

    def _has_share(self) -> bool:
        """Of two slots or more, jobs have one however many people wait."""
        return self._credits.slots > 1 and self._most > 0 and self.jobs == 0

    async def _room(self) -> None:
        while not self._may_take():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN if self._somebody_waits() else LOOK_ANYWAY):
                    await self._changed.wait()

    async def _next(self) -> Held | None:
        """What is next in order; where nothing waits, what comes first."""
        low_first = self._turn % LOW_EVERY == LOW_EVERY - 1
        priorities = list(reversed(self._queues)) if low_first else self._queues
        order = [queue for queues in priorities for queue in queues]
        for queue in order:
            if (held := await self._pulls.now(queue)) is not None:
                return held
            if not self._may_take():
                return None
        return await self._pulls.next(order)

    async def _begin(self, held: Held) -> None:
        """In a free slot, or where jobs have none in the next that comes back; else it was fetched in vain."""
        self._turn += 1
        if self._has_room():
            self._credits.begin(self._counted(held))
        elif self._has_share():
            task = self._credits.begin_next(self._counted(held), held.kept_alive())
            self._waiting[task] = held
        else:
            await held.back()
            return
        self.jobs += 1

    async def _counted(self, held: Held) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        self._waiting.pop(task, None)
        try:
            await self._take(held)
        finally:
            self.jobs -= 1
            self.wake()
