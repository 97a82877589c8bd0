"""Callers who were refused, told of room one by one as it comes."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["WaitingRoom"]

REMEMBERED = 0.25
"""Seconds a waiter is remembered: a little more than twice what one lets pass between two hints."""
TAKES = 0.01
"""Seconds in which one who was told of room has taken it, or has gone."""
MAX_WAITING = 256


class WaitingRoom:
    """Remembers who said that they wait; who has waited longest is told first."""

    def __init__(self, free: Callable[[], int], tell: Callable[[str], Awaitable[Any]]) -> None:
        """Set it up.

        Args:
            free: how many slots are offered now.
            tell: tells the caller with this inbox that there is room.
        """
        self._free = free
        self._tell = tell
        self._until: OrderedDict[str, float] = OrderedDict()
        self._told: set[str] = set()
        self._served = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    @property
    def occupied(self) -> bool:
        """Whether somebody waits, or was told of room and is on the way."""
        while self._until and next(iter(self._until.values())) < time.monotonic():
            self._until.popitem(last=False)
        telling = self._telling is not None and not self._telling.done()
        return telling or bool(self._until)

    def enter(self, inbox: str) -> None:
        """Somebody waits, or still waits (and keeps the place)."""
        self._until[inbox] = time.monotonic() + REMEMBERED
        while len(self._until) > MAX_WAITING:
            self._until.popitem(last=False)
        self.wake()

    def leave(self, inbox: str) -> None:
        """Somebody waits no more: a slot is not kept for one who has gone."""
        self._until.pop(inbox, None)
        if inbox in self._told:
            self._served.set()

    def wake(self) -> None:
        """There may be room, or somebody to tell."""
        if self._until and self._free() and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell_next(), name="tell-waiting")

    async def close(self) -> None:
        """Tell nobody more."""
        self._until.clear()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait({self._telling})

    async def _tell_next(self) -> None:
        """Tell as many as there are slots; then the next, if the slots are still free."""
        while self._until and (free := self._free()):
            self._told.clear()
            self._served.clear()
            while self._until and len(self._told) < free:
                inbox, until = self._until.popitem(last=False)
                if until > time.monotonic():
                    self._told.add(inbox)
                    await self._tell(inbox)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TAKES):
                    await self._served.wait()
