"""Work that waits in JetStream: asked for one message at a time, kept alive in hand, given back.

nats-py's own `fetch` keeps a message that comes after its caller has left for the next caller; here
it goes straight back to the queue, for whoever is free.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker.bus import Bus, bus_errors, forbidden, header
from bus_worker.errors import BusWorkerError

__all__ = ["WAIT", "Held", "Pulls", "WorkQueue"]

_log = logging.getLogger(__name__)

WAIT = 2.0
"""Seconds that one question waits at the server: a server that restarts forgets them all."""
ANSWER = 1.0
"""Seconds for the answer that there is nothing now."""
GRACE = 0.5
"""Seconds on top of `WAIT` before an unanswered question counts as lost."""
PAUSE = 1.0
"""Seconds before a queue that is not there is asked again."""


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """One durable consumer of a stream."""

    stream: str
    consumer: str


class Held:
    """A message in hand: it comes back to the queue unless it is kept alive, and ended, by us."""

    def __init__(self, bus: Bus, msg: Msg, ack_wait: float) -> None:
        meta = msg.metadata
        self._bus = bus
        self._msg = msg
        self._ack_wait = ack_wait
        self.data = bytes(msg.data)
        self.queue = WorkQueue(meta.stream, meta.consumer)
        self.sequence: int = meta.sequence.stream
        self.delivered: int = meta.num_delivered
        """Which delivery this is, from 1 on; one that was given back at once counts too."""
        self.at: float = meta.timestamp.timestamp()
        """Unix seconds at which it was put in the queue."""

    def header(self, name: str) -> str | None:
        """A header, by its exact spelling or any other case."""
        return header(self._msg, name)

    async def done(self) -> None:
        """It is done with: the queue forgets it."""
        await self._say(b"+ACK")

    async def buried(self) -> None:
        """It will never be done: the queue forgets it."""
        await self._say(b"+TERM")

    async def back(self, delay: float = 0.0) -> None:
        """Somebody else may have it, after `delay` seconds."""
        more = json.dumps({"delay": int(delay * 1e9)}).encode() if delay else b""
        await self._say(b"-NAK " + more if more else b"-NAK")

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Say for the length of a block that somebody is at it."""
        pulse = asyncio.create_task(self._pulse(), name="in-progress")
        try:
            yield
        finally:
            pulse.cancel()
            await asyncio.wait({pulse})

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            await self._say(b"+WPI")

    async def _say(self, word: bytes) -> None:
        """Unheard, it comes back after its time: then it is seen that it was done."""
        if self._bus.connected:
            with contextlib.suppress(BusWorkerError), bus_errors():
                await self._bus.client.publish(self._msg.reply, word)


class Pulls:
    """Asks queues for work; one question at a time to each."""

    def __init__(self, bus: Bus, ack_wait: float) -> None:
        self._bus = bus
        self._ack_wait = ack_wait
        self._inbox = ""
        self._sub: Subscription | None = None
        self._asked: dict[WorkQueue, asyncio.Future[Held | None]] = {}
        self._tokens: dict[str, WorkQueue] = {}
        self._missing: set[WorkQueue] = set()
        """Queues that gave no work when they were asked last; said once, not at each question."""

    async def start(self) -> None:
        """Listen for what is brought."""
        self._inbox = self._bus.client.new_inbox()
        with bus_errors():
            self._sub = await self._bus.client.subscribe(f"{self._inbox}.*", cb=self._arrived)
        self._bus.on_back.append(self._forget)

    async def stop(self) -> None:
        """Ask no more; what still comes goes back until the connection ends."""
        self._bus.on_back.remove(self._forget)
        await self._forget()

    async def now(self, queue: WorkQueue) -> Held | None:
        """What waits in a queue, if something does."""
        return await self._first({queue}, {"batch": 1, "no_wait": True}, ANSWER)

    async def next(self, queues: Collection[WorkQueue], seconds: float = WAIT) -> Held | None:
        """The first message that any of the queues has, within some seconds."""
        question = {"batch": 1, "expires": int(seconds * 1e9)}
        held = await self._first(queues, question, seconds + GRACE)
        if held is None and self._missing.issuperset(queues):
            await asyncio.sleep(PAUSE)
        return held

    async def _first(
        self, queues: Collection[WorkQueue], question: Mapping[str, object], limit: float
    ) -> Held | None:
        asked = {self._ask(queue) for queue in queues}
        try:
            for queue in queues:
                await self._publish(queue, question)
            return await self._brought(asked, limit)
        finally:
            for future in asked:
                if not future.done():
                    future.cancel()
            for held in await self._too_many(asked):
                await held.back()

    async def _brought(
        self, asked: "set[asyncio.Future[Held | None]]", limit: float
    ) -> Held | None:
        """The first message that comes; the others are seen to by who withdraws the questions."""
        loop = asyncio.get_running_loop()
        until, waiting = loop.time() + limit, set(asked)
        while waiting and (left := until - loop.time()) > 0:
            done, waiting = await asyncio.wait(
                waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                if (held := future.result()) is not None:
                    asked.discard(future)
                    return held
        return None

    async def _too_many(self, asked: "set[asyncio.Future[Held | None]]") -> list[Held]:
        brought = [f.result() for f in asked if f.done() and not f.cancelled()]
        return [held for held in brought if held is not None]

    def _ask(self, queue: WorkQueue) -> "asyncio.Future[Held | None]":
        future: asyncio.Future[Held | None] = asyncio.get_running_loop().create_future()
        self._asked[queue] = future
        return future

    async def _publish(self, queue: WorkQueue, question: Mapping[str, object]) -> None:
        if not self._bus.connected:
            return  # asked again once it is back
        token = secrets.token_hex(4)
        self._tokens = {t: q for t, q in self._tokens.items() if q != queue} | {token: queue}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{queue.stream}.{queue.consumer}"
        try:
            with bus_errors():
                await self._bus.client.publish(
                    subject, json.dumps(question).encode(), reply=f"{self._inbox}.{token}"
                )
        except BusWorkerError as exc:
            _log.debug("cannot ask %s: %s", queue.consumer, exc)

    async def _arrived(self, msg: Msg) -> None:
        """A message of a queue, or the word that there is none."""
        if header(msg, "Status") is not None and not msg.data:
            self._nothing(msg)
            return
        try:
            held = Held(self._bus, msg, self._ack_wait)
        except (nats_errors.Error, ValueError):
            _log.warning("what came on %s is no work", msg.subject)
            return
        self._there(held.queue)
        future = self._asked.get(held.queue)
        if future is None or future.done():
            await held.back()
        else:
            future.set_result(held)

    def _nothing(self, msg: Msg) -> None:
        queue = self._tokens.get(msg.subject.rpartition(".")[2])
        future = self._asked.get(queue) if queue else None
        if queue is None or future is None or future.done():
            return
        status = header(msg, "Status")
        if status in {"404", "408"}:
            self._there(queue)
        elif queue not in self._missing:
            self._missing.add(queue)
            why = forbidden(msg) or status
            _log.warning("%s of %s gives no work: %s", queue.consumer, queue.stream, why)
        future.set_result(None)

    def _there(self, queue: WorkQueue) -> None:
        if queue in self._missing:
            self._missing.discard(queue)
            _log.info("%s of %s gives work again", queue.consumer, queue.stream)

    async def _forget(self) -> None:
        """A new connection's server knows of no question."""
        for future in self._asked.values():
            if not future.done():
                future.set_result(None)
