"""Equal requests in hand are worked out once: inside this worker, and by a lock in Redis among workers.

The work belongs to a flight, not to a caller: a caller who leaves ends its own wait only, and the
last one to leave ends the work. While a flight is on its way its callers need no slot; it holds one.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from bus_worker.cache import LOCKED_FOR
from bus_worker.errors import BusWorkerError, Failed
from bus_worker.messages import Segment
from bus_worker.plugin import Draft
from bus_worker.recall import BUDGET, Answer, Visit

__all__ = ["Flights", "Landing", "Seat"]

HOLD_EVERY = 0.3 * LOCKED_FOR
"""Seconds between two words to the lock that work goes on."""
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.2
"""Seconds between two looks whether another worker has the answer."""
REMEMBERED = 64
"""Flights whose time is remembered: nobody waits for another worker longer than any of them took."""
UNKNOWN = 10.0
"""Seconds to wait for another worker when nothing is known of how long it may take."""


class Seat(Protocol):
    """A request's slot, as `bus_worker.credits` gives it."""

    def hand_over(self, work: "asyncio.Task[None]") -> "Seat":
        """Let work that outlives the request have the slot."""

    def step_aside(self) -> None:
        """Give the slot back while waiting, unless too many have."""

    async def regain(self) -> None:
        """Take a slot again, before any new request gets one."""


@dataclass(frozen=True, slots=True)
class Landing:
    """What a flight has come to."""

    answer: Answer
    known: bool
    """It was found in the cache."""
    stages: Mapping[str, float]
    """Seconds of the stages that ran."""
    draft: Draft
    """What the work left behind: notes and spans."""

    @classmethod
    def found(
        cls, answer: Answer, draft: Draft, stages: Mapping[str, float] | None = None
    ) -> "Landing":
        """An answer from the cache; a caller who streams hears its segments all the same."""
        for segment in answer.segments:
            draft.emit(segment)
        return cls(answer, known=True, stages=stages or {}, draft=draft)


Hear = Callable[[Visit], Awaitable[Landing]]
"""Works a request out that the cache does not know by its bytes, and keeps the answer."""


@dataclass(slots=True, eq=False)
class _Caller:
    """One who waits; `told` segments it has heard."""

    draft: Draft
    landed: "asyncio.Future[Landing]"
    told: int = 0

    def tell(self, segments: list[Segment]) -> None:
        """Hand on those not heard yet: an answer worked out again begins at the first."""
        for segment in segments[self.told :]:
            self.draft.emit(segment)
        self.told = max(self.told, len(segments))

    def end(self, outcome: Landing | Exception) -> None:
        """Its answer, unless it has gone in this very moment."""
        if self.landed.done():
            return
        if isinstance(outcome, Landing):
            self.landed.set_result(outcome)
        else:
            self.landed.set_exception(outcome)
            self.landed.exception()  # seen: it may go before it looks


class Flights:
    """The flights of one worker, by the name of what is asked."""

    def __init__(self) -> None:
        self._flying: dict[str, _Flight] = {}
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self.stuck: dict[int, float] = {}
        """When each flight was given up whose threads have not come back yet; `time.monotonic()` values."""

    async def board(self, visit: Visit, hear: Hear, seat: Seat) -> tuple[Landing, bool]:
        """The answer to a request that has a name, and whether the work was another's.

        Raises:
            BusWorkerError: as `hear` raises it; one that asking again may help ends one caller's
                wait only, and the work is tried again for the next.
        """
        assert visit.by_bytes is not None  # noqa: S101 - the caller has named it
        flight = self._flying.get(visit.by_bytes)
        joined = flight is not None
        if flight is None:
            flight = self._flying[visit.by_bytes] = _Flight(self, visit, hear)
            flight.start(seat)
        else:
            seat.step_aside()
        caller = flight.take(visit.draft)
        try:
            return await caller.landed, joined
        finally:
            flight.leave(caller)

    @property
    def patience(self) -> float:
        """Seconds to wait for another worker: no longer than our own work has taken."""
        return max(LOCKED_FOR, max(self._took, default=UNKNOWN))

    def forget(self, name: str, flight: "_Flight") -> None:
        """It takes nobody more."""
        if self._flying.get(name) is flight:
            del self._flying[name]

    def took(self, seconds: float) -> None:
        """Remember how long one was."""
        self._took.append(seconds)


class _Flight:
    """One piece of work and who waits for it."""

    def __init__(self, flights: Flights, visit: Visit, hear: Hear) -> None:
        self._flights = flights
        self._hear = hear
        self._visit = visit
        self._name = visit.by_bytes or ""
        self._token = secrets.token_hex(8)
        self._loop = asyncio.get_running_loop()
        self._callers: list[_Caller] = []
        self._segments: list[Segment] = []
        self._task: asyncio.Task[None]
        self._seat: Seat
        self._begin()

    def start(self, seat: Seat) -> None:
        """Work in this slot from now on."""
        self._task = asyncio.create_task(self._fly(), name="flight")
        self._seat = seat.hand_over(self._task)

    def take(self, draft: Draft) -> _Caller:
        """Somebody more waits; hears what was said so far."""
        caller = _Caller(draft, self._loop.create_future())
        self._callers.append(caller)
        self._draft.deadline = self._latest()
        caller.tell(self._segments)
        return caller

    def leave(self, caller: _Caller) -> None:
        """Somebody does not wait any more; with the last, the work ends."""
        if caller not in self._callers:
            return
        self._callers.remove(caller)
        if not self._callers:
            self._flights.forget(self._name, self)
            self._flights.stuck[id(self)] = time.monotonic()
            self._draft.give_up()
            self._task.cancel()

    def _begin(self) -> None:
        """A draft of the work's own."""
        given = self._visit.draft
        self._draft = Draft(
            audio=given.audio,
            format=given.format,
            options=given.options,
            stream=given.stream,
            deadline=self._latest(),
            on_segment=self._emitted if given.stream else None,
        )
        self._visit = replace(self._visit, draft=self._draft, left=BUDGET, by_samples=None)
        self._segments = []

    def _latest(self) -> float | None:
        """When the last of them stops waiting; one who has left may have been it."""
        deadlines = [caller.draft.deadline for caller in self._callers]
        known = [deadline for deadline in deadlines if deadline is not None]
        return max(known) if known and len(known) == len(deadlines) else None

    async def _fly(self) -> None:
        try:
            while self._callers:
                try:
                    landing = await self._attempt()
                except BusWorkerError as error:
                    self._failed(error)
                else:
                    await asyncio.sleep(0)  # what was emitted last is heard first
                    self._end(landing)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            self._end(error)
        finally:
            self._flights.forget(self._name, self)
            self._end(Failed())  # cancelled by the process, which is leaving
            await self._draft.settled()
            # Cancelled while it settles, this is not reached: its threads are stuck still.
            self._flights.stuck.pop(id(self), None)

    async def _attempt(self) -> Landing:
        visit = self._visit
        try:
            answer, ours = await visit.same_bytes_or_lock(self._token)
            if answer is None and not ours:
                answer = await self._wait_for_others(visit)
            if answer is not None:
                return Landing.found(answer, self._draft)
            async with self._holding(visit):
                began = time.monotonic()
                landing = await self._hear(visit)
                self._flights.took(time.monotonic() - began)
                return landing
        finally:
            await visit.unlock()

    async def _wait_for_others(self, visit: Visit) -> Answer | None:
        """What the worker that is at it finds out; None when it has gone, or takes too long."""
        self._seat.step_aside()
        end = time.monotonic() + self._flights.patience
        pause, ours = FIRST_LOOK, False
        while not ours and time.monotonic() < end:
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, LONGEST_LOOK)
            visit.left = BUDGET  # a wait on purpose
            answer, ours = await visit.same_bytes_or_lock(self._token)
            if answer is not None:
                return answer
        visit.left = BUDGET
        async with self._holding(visit):
            await self._seat.regain()
        return None

    @asynccontextmanager
    async def _holding(self, visit: Visit) -> AsyncIterator[None]:
        """Let other workers see that work goes on."""
        saying = asyncio.create_task(self._say(visit), name="hold-lock") if visit.lock else None
        try:
            yield
        finally:
            if saying is not None:
                saying.cancel()
                await asyncio.wait({saying})

    async def _say(self, visit: Visit) -> None:
        while True:
            await asyncio.sleep(HOLD_EVERY)
            await visit.hold()

    def _emitted(self, segment: Segment) -> None:
        self._loop.call_soon_threadsafe(self._heard, segment)

    def _heard(self, segment: Segment) -> None:
        self._segments.append(segment)
        for caller in self._callers:
            caller.tell(self._segments)

    def _failed(self, error: BusWorkerError) -> None:
        """The end for all who wait; where asking again may help, for the first, and the next has a try."""
        if not error.retry:
            self._end(error)
            return
        self._callers.pop(0).end(error)
        if self._callers:
            self._begin()

    def _end(self, outcome: Landing | Exception) -> None:
        callers, self._callers = self._callers, []
        for caller in callers:
            caller.end(outcome)
