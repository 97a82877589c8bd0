"""Slots offered to the bus: exactly as many one-message subscriptions as there is room.

The server never sends a worker more than it has room for, its random pick is weighted by free
slots, and when nobody has room the requester hears "no responders" at once.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker.bus import Bus
from bus_worker.hardened import HardenedClient

__all__ = ["Credits", "TakenSlot"]

_log = logging.getLogger(__name__)

RTT_TIMEOUT = 5
RETIRE_AFTER = 0.1
ABANDON_TIMEOUT = 5
ANSWERED_EVERY = 0.05
"""Seconds between two looks, at the end, whether anybody still waits."""
MAX_ASIDE = 64
"""Requests that may wait for another's work without a slot: each holds its audio in memory."""


class Credits:
    """Runs `handle` for each message on a subject, at most `slots` at once.

    A slot is taken until `handle` returns. One subject a worker: two that shared slots sent 22.7 %
    of the messages into private queues.
    """

    def __init__(
        self,
        bus: Bus,
        subject: str,
        queue: str,
        slots: int,
        handle: Callable[[Msg], Coroutine[Any, Any, None]],
    ) -> None:
        if not isinstance(bus.client, HardenedClient):
            raise TypeError("credits need nats-py 2.16, which the worker extra installs")
        self._bus = bus
        self._client = bus.client
        self._subject = subject
        self._queue = queue
        self.slots = slots
        self._handle = handle
        self.on_room: list[Callable[[], None]] = []
        """Called whenever a slot has become free and is offered."""
        self._idle: set[Subscription] = set()
        self._spent: set[Subscription] = set()
        self._backlog: deque[Msg] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._aside: set[asyncio.Task[None]] = set()
        self._returning: OrderedDict[asyncio.Task[None], asyncio.Future[None]] = OrderedDict()
        self._retiring: asyncio.Task[None] | None = None
        self._offering = False
        self.stuck: dict[asyncio.Task[None], float] = {}
        """Tasks whose callers have their answer, and since when: what is left of them is threads."""
        self.overshoot = 0
        """Messages the server slipped in beyond a credit; they were kept and run next."""

    @property
    def busy(self) -> int:
        """Slots taken."""
        return len(self._running)

    @property
    def aside(self) -> int:
        """Requests in hand that wait without a slot."""
        return len(self._aside)

    @property
    def free(self) -> int:
        """Slots offered right now."""
        return len(self._idle)

    @property
    def room(self) -> int:
        """Slots that nothing runs in and nothing waits for."""
        waiting = len(self._backlog) + len(self._returning)
        return self.slots - len(self._running) - waiting if self._offering else 0

    @property
    def withheld(self) -> bool:
        """Whether there is room, and none of it is offered: for a moment on the way to an offer, or something is wrong."""
        return self.room > 0 and not self._idle

    async def start(self) -> None:
        """Offer every slot, now and after each reconnect."""
        self._offering = True
        self._bus.on_lost.append(self._lost)
        self._bus.on_back.append(self._back)
        await self._back()

    async def stop(self, limit: float, *, answered: Callable[[], bool] = lambda: False) -> bool:
        """Offer nothing more, finish what is in hand; False if some of it is not done by `limit` seconds.

        Args:
            limit: seconds to wait at most.
            answered: says that nobody waits for what still runs: then it is not waited for either.
        """
        self._offering = False
        idle = set(self._idle)
        if self._bus.connected:
            try:
                for sub in idle:
                    await self._client._send_unsubscribe(sub._id)  # noqa: SLF001 - the public one drops messages
                # Ordered: whatever the server sent before it read our UNSUB is here after this.
                await self._client.rtt(RTT_TIMEOUT)
            except (nats_errors.Error, OSError):
                _log.warning("the bus did not confirm that we left; its messages go to others")
        for sub in (*self._idle, *self._spent):
            self._take_all(sub)
        self._idle.clear()
        self._spent.clear()
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while (hand := self._in_hand) and (left := end - loop.time()) > 0 and not answered():
            await asyncio.wait(hand, timeout=min(left, ANSWERED_EVERY))
        if self._retiring is not None:
            self._retiring.cancel()
            await asyncio.wait({self._retiring})
        return not self._in_hand

    async def abandon(self) -> None:
        """Cancel what is still in hand (after `stop` ran out of time); what waited behind it still runs."""
        for task in self._in_hand:
            task.cancel()
        loop = asyncio.get_running_loop()
        end = loop.time() + ABANDON_TIMEOUT
        while (hand := self._in_hand) and (left := end - loop.time()) > 0:
            await asyncio.wait(hand, timeout=left)

    def begin(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run work that came on no credit in a free slot; False, and nothing begun, where there is none."""
        if self.room <= 0:
            work.close()
            return False
        self._keep(asyncio.create_task(work, name="job"), self._running)
        if self._idle and len(self._running) + len(self._backlog) + self.free > self.slots:
            sub = self._idle.pop()
            self._spent.add(sub)
            self._retire()
            self._client.withdraw(sub)
            self._kick()
        return True

    def begin_next(
        self, work: Coroutine[Any, Any, None], meanwhile: AbstractAsyncContextManager[None]
    ) -> "asyncio.Task[None]":
        """Run work in the next slot that comes back, before the bus is offered it; wait in `meanwhile`.

        Returns:
            The task that waits, and then works; cancelled while it waits, it never begins.
        """
        task = asyncio.create_task(self._once_free(work, meanwhile), name="job")
        self._keep(task, self._aside)
        return task

    def told(self) -> None:
        """Whoever waited for the task that calls this has the answer; only threads are still at it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - handlers only
        self.stuck[task] = time.monotonic()

    def taken(self) -> "TakenSlot":
        """The slot of the message whose handler asks."""
        task = asyncio.current_task()
        assert task in self._running  # noqa: S101 - handlers only
        return TakenSlot(self, task)

    def hand_over(self, mine: "asyncio.Task[None]", to: "asyncio.Task[None]") -> None:
        """Let another task have the slot; the first goes on without one."""
        self._running.remove(mine)
        self._aside.add(mine)
        self._keep(to, self._running)

    def step_aside(self, mine: "asyncio.Task[None]") -> None:
        """Go on without a slot, unless too many do."""
        if mine in self._running and len(self._aside) < MAX_ASIDE + self.slots:
            self._running.remove(mine)
            self._aside.add(mine)
            self._next()

    async def regain(self, mine: "asyncio.Task[None]") -> None:
        """Take a slot again: an offered one is withdrawn, else the next that comes back is ours."""
        if mine not in self._aside:
            return
        if len(self._running) < self.slots:
            self._aside.remove(mine)
            self._running.add(mine)
            if self._idle and len(self._running) + len(self._backlog) + self.free > self.slots:
                await self._withdraw(self._idle.pop())
            return
        self._returning[mine] = asyncio.get_running_loop().create_future()
        try:
            await self._returning[mine]
        finally:
            self._returning.pop(mine, None)

    @property
    def _in_hand(self) -> set[asyncio.Task[None]]:
        return self._running | self._aside

    async def _once_free(
        self, work: Coroutine[Any, Any, None], meanwhile: AbstractAsyncContextManager[None]
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        try:
            async with meanwhile:
                await self.regain(task)
        except asyncio.CancelledError:
            work.close()
            raise
        await work

    def _keep(self, task: "asyncio.Task[None]", among: "set[asyncio.Task[None]]") -> None:
        among.add(task)
        task.add_done_callback(self._finished)

    async def _withdraw(self, sub: Subscription) -> None:
        """Offer one slot less; a message already on its way waits behind the others."""
        self._spent.add(sub)
        self._retire()
        try:
            await self._client._send_unsubscribe(sub._id)  # noqa: SLF001 - the public one drops messages
        except (nats_errors.Error, OSError):
            _log.debug("the bus is away: no slot is offered there")

    async def _back(self) -> None:
        """Offer every slot that is free."""
        while self._grant():
            pass
        await self._client.flush_soon()

    async def _lost(self) -> None:
        """Forget all subscriptions: nats-py would restore them on reconnect without their limit."""
        for sub in (*self._idle, *self._spent):
            self._take_all(sub)
        self._idle.clear()
        self._spent.clear()

    def _grant(self) -> bool:
        """Offer one more slot if there is one; nothing here awaits, so no state changes in between."""
        room = self.slots - len(self._running) - len(self._backlog) - len(self._idle)
        if not self._offering or room <= 0 or not self._bus.connected:
            return False
        sub = self._client.subscribe_once(self._subject, self._queue, self._arrived)
        self._idle.add(sub)
        return True

    def _take_all(self, sub: Subscription) -> None:
        for msg in self._client.forget(sub):
            self._take(msg)

    async def _arrived(self, msg: Msg) -> None:
        sub = self._client._subs.get(msg._sid or 0)  # noqa: SLF001 - nats-py does not say which
        if sub in self._idle:
            self._idle.discard(sub)
            self._spent.add(sub)
            self._retire()
        self._take(msg)

    def _take(self, msg: Msg) -> None:
        if len(self._running) < self.slots:
            self._run(msg)
        else:
            self.overshoot += 1
            self._backlog.append(msg)

    def _run(self, msg: Msg) -> None:
        self._keep(asyncio.create_task(self._handle(msg), name="request"), self._running)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.error("a request's handler failed", exc_info=exc)
        if (
            not task.cancelled()
        ):  # abandoned, it is stuck still, and the process must know when it leaves
            self.stuck.pop(task, None)
        self._aside.discard(task)
        if task in self._running:
            self._running.remove(task)
            self._next()

    def _next(self) -> None:
        """A slot has come back: first who gave one up, then what waits here, then the bus."""
        if self._returning:
            task, back = self._returning.popitem(last=False)
            self._aside.discard(task)
            self._running.add(task)
            back.set_result(None)
        elif self._backlog:
            self._run(self._backlog.popleft())
        elif self._grant():
            self._kick()
            for told in self.on_room:
                told()

    def _kick(self) -> None:
        """Write the grant now: the queue is never full, so this does not wait."""
        queue = self._client._flush_queue  # noqa: SLF001 - _flush_pending is a coroutine, this a callback
        if queue is not None and not queue.full():
            queue.put_nowait(asyncio.get_running_loop().create_future())

    def _retire(self) -> None:
        if self._retiring is None or self._retiring.done():
            self._retiring = asyncio.create_task(self._retire_spent(), name="credits-retire")

    async def _retire_spent(self) -> None:
        """Drop spent subscriptions once the server cannot have anything more on the way for them."""
        while self._spent:
            await asyncio.sleep(RETIRE_AFTER)  # one question for many
            spent = set(self._spent)
            try:
                await self._client.rtt(RTT_TIMEOUT)
            except (nats_errors.Error, OSError):
                return  # a lost connection forgets them all
            for sub in spent & self._spent:
                self._spent.discard(sub)
                self._take_all(sub)


@dataclass(frozen=True, slots=True)
class TakenSlot:
    """A slot and the task that has it (a `Seat` of `bus_worker.single_flight`)."""

    credits: Credits
    task: "asyncio.Task[None]"

    def hand_over(self, work: "asyncio.Task[None]") -> "TakenSlot":
        """Let work that outlives the request have the slot."""
        self.credits.hand_over(self.task, work)
        return TakenSlot(self.credits, work)

    def step_aside(self) -> None:
        """Give the slot back while waiting, unless too many have."""
        self.credits.step_aside(self.task)

    async def regain(self) -> None:
        """Take a slot again, before any new request gets one."""
        await self.credits.regain(self.task)
