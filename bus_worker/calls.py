"""One request of a caller's: asked, waited for, asked again, cancelled.

A call whose request nobody takes waits its turn: one queue per model, and only its head asks for
room, with a hint of a few bytes; the audio goes when there is some.
"""

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg

from bus_worker import subjects
from bus_worker.bus import header
from bus_worker.claim_check import ClaimCheck
from bus_worker.errors import (
    BadRequest,
    BusWorkerError,
    Busy,
    DeadlineExceeded,
    Failed,
    ModelNotFound,
    Stopping,
    Unavailable,
)
from bus_worker.inbox import Box, Inbox, WorkerInfo, refused
from bus_worker.messages import Segment, Transcript, map_to_error, pack, unpack
from bus_worker.parcel import Parcel
from bus_worker.subjects import model_token

__all__ = ["Call", "Calls"]

_log = logging.getLogger(__name__)

HEARTBEAT = 1.0
"""Seconds between two signs of life that a call asks its worker for."""
PATIENCE = 2.5 * HEARTBEAT
"""Silence after which a worker counts as dead: two missed, and half a beat for the road."""
FIRST_WAIT, LONGEST_WAIT = 0.005, 0.1
"""Seconds between two questions for room, doubling, with jitter."""
ASK_ANYWAY = 1.0
"""Seconds after which the head of the queue sends its audio though nobody said there is room."""
MISLED = 3
"""Times that room was told of and gone, after which the default may be another model by now."""
LOOKED_UP = 0.5
"""Seconds that a question for a known answer may take."""
SILENT_FOR = 15.0
"""Seconds after which a worker that is silent while others answer counts as gone."""
SERVED_FOR = 1.0
"""Seconds that an answer to "who serves what" is believed."""


@dataclass(slots=True)
class Call:
    """What is asked, by when, and how far it has come. `deadline` is a `time.monotonic()` value."""

    parcel: Parcel
    model: str | None
    deadline: float
    request_id: str
    traceparent: str | None = None
    on_segment: Callable[[Segment], None] | None = None
    call_id: str = field(default_factory=lambda: secrets.token_hex(16))
    asked_at: float = field(default_factory=time.time)
    asked: int = 0
    refused: int = 0
    hinted: int = 0
    taken: bool = False
    segments: int = 0

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def headers(self) -> dict[str, str]:
        """What travels beside the request."""
        return {
            subjects.HEADER_CONTENT_TYPE: subjects.CONTENT_TYPE,
            subjects.HEADER_REQUEST_ID: self.request_id,
            subjects.HEADER_CALL_ID: self.call_id,
            subjects.HEADER_DEADLINE: str(int((time.time() + self.left) * 1000)),
            subjects.HEADER_HEARTBEAT: str(HEARTBEAT),
            subjects.HEADER_ASKED_AT: str(int(self.asked_at * 1000)),
            **({subjects.HEADER_TRACEPARENT: self.traceparent} if self.traceparent else {}),
        }

    def tell(self, segment: Segment) -> None:
        """Hand on each segment once: a second worker starts again from the first."""
        if self.on_segment is not None and segment.id >= self.segments:
            self.segments = segment.id + 1
            self.on_segment(segment)

    def too_late(self, *, connected: bool) -> BusWorkerError:
        """Why there is no answer at the deadline."""
        if self.taken:
            return DeadlineExceeded()
        if not connected:
            return Unavailable("the bus was away until the deadline")
        if self.parcel.begun and not self.parcel.made:
            return DeadlineExceeded("the audio was not on the bus by the deadline")
        return Busy()


@dataclass(slots=True)
class _Turn:
    """The queue of one model's waiters. A lock being handed over is free for a moment: `waiting` is not 0."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class _NoRoom(Exception):
    """Nobody took the request."""


class _Silent(Exception):
    """The worker that had the request says nothing any more, or sends us elsewhere."""


class Calls:
    """Runs the calls of one client."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._names = inbox.names
        self.checks = ClaimCheck(inbox.nc, inbox.names)
        self._turns: dict[str | None, _Turn] = {}
        self._seen: dict[str, tuple[WorkerInfo, float]] = {}
        self._default: str | None = None
        self._chores: set[asyncio.Task[None]] = set()

    async def run(self, call: Call) -> Transcript:
        """Ask until somebody answers, or the deadline passes; whoever is left at it is told to stop.

        Raises:
            BusWorkerError: as the worker says, or why nobody answered.
        """
        over = False
        try:
            with self._inbox.box() as box:
                async with asyncio.timeout(max(0.0, call.left)):
                    transcript = await self._until_answered(call, box)
            over = True
        except TimeoutError:
            raise call.too_late(connected=self._inbox.nc.is_connected) from None
        except BusWorkerError as error:
            over = not isinstance(error, DeadlineExceeded)
            raise
        finally:
            # Asked twice, a second worker may still be at it.
            if call.asked and not (over and call.asked == 1):
                self._spawn(self._tell_all(self._names.cancel, {"call_id": call.call_id}))
            if call.parcel.deposit.chunks:
                self._spawn(self.checks.erase(call.parcel.deposit))
        return transcript

    async def close(self) -> None:
        """Wait a moment for cancellations on their way."""
        if self._chores:
            await asyncio.wait(set(self._chores), timeout=2)

    async def _until_answered(self, call: Call, box: Box) -> Transcript:
        while True:
            try:
                return await self._listen(call, box, await self._in_turn(call, box))
            except _Silent:
                _log.info("request %s: no sign of life, asking again", call.request_id)

    async def _in_turn(self, call: Call, box: Box) -> Msg:
        """Ask at once if nobody waits, else when it is our turn; returns the first message."""
        turn = self._turns.setdefault(call.model, _Turn())
        was_refused = False
        if not turn.waiting:
            try:
                return await self._ask(call, box)
            except _NoRoom:
                was_refused = True
        if (known := await self._known(call)) is not None:
            return known
        turn.waiting += 1
        hinted = call.hinted
        try:
            async with turn.lock:
                return await self._knock(call, box, was_refused=was_refused)
        finally:
            turn.waiting -= 1
            if call.hinted > hinted:
                over = {"model": self._wanted(call), "over": True}
                self._spawn(self._tell_all(self._names.waiting, over, box))

    async def _known(self, call: Call) -> Msg | None:
        """Where there is no room: the answer if some worker knows it already, which takes none."""
        question = await call.parcel.question()
        if call.model is None or question is None or not self._inbox.nc.is_connected:
            return None
        with self._inbox.box() as box:
            subject = self._names.lookup(call.model)
            await self._inbox.publish(subject, pack(question), box.subject, call.headers())
            try:
                async with asyncio.timeout(LOOKED_UP):
                    msg = await box.next()
            except TimeoutError:
                return None
        return msg if not refused(msg) and "text" in _read(msg) else None

    async def _knock(self, call: Call, box: Box, *, was_refused: bool) -> Msg:
        """At the head of the queue: ask for room until there is some, then send the audio."""
        asked_at = time.monotonic()
        wait = FIRST_WAIT
        told, misled = False, 0
        while True:
            if was_refused:
                await self._still_served(call)
                said = await self._room(call, box, wait)
                if said is not None and not _is_room(said):
                    return said  # the worker asked before was slow, not dead
                told = said is not None
                wait = min(LONGEST_WAIT, 2 * wait)
                heard = ASK_ANYWAY if self._wanted(call) else LONGEST_WAIT
                if not told and time.monotonic() - asked_at < heard:
                    continue
            try:
                asked_at = time.monotonic()
                return await self._ask(call, box)
            except _NoRoom:
                was_refused = True
                misled = misled + 1 if told else 0
                if misled >= MISLED:
                    self._default = None

    async def _ask(self, call: Call, box: Box) -> Msg:
        """Send the request; returns the first message that comes of it.

        Raises:
            _NoRoom: no worker had a free slot.
            _Silent: nothing came.
        """
        await self._inbox.connected()
        payload = await call.parcel.message(self.checks, lean=call.refused > 1)
        names = self._names
        subject = names.transcribe(call.model) if call.model else names.transcribe_default
        call.asked += 1  # before: cancelled while it is being written, it may still go out
        await self._inbox.publish(subject, payload, box.subject, call.headers())
        while True:
            msg = await _next(box)
            if refused(msg):
                call.refused += 1
                if not self._wanted(call):
                    await self._learn_default(call)
                raise _NoRoom
            if not _is_room(msg):
                call.taken = True
                return msg

    async def _listen(self, call: Call, box: Box, msg: Msg) -> Transcript:
        """Take what the worker sends until its last word."""
        while True:
            if not refused(msg):  # a late refusal of an earlier question says nothing
                data = _read(msg)
                if "error" in data:
                    error = map_to_error(data["error"], status=_status(msg))
                    if isinstance(error, Stopping):
                        raise _Silent
                    raise error
                if "segment" in data:
                    call.tell(Segment.from_map(data["segment"]))
                elif "text" in data:
                    transcript = Transcript.from_map(data)
                    self._was_there(transcript)
                    if call.model is None:
                        self._default = transcript.model.name
                    return _told(call, transcript)
            msg = await _next(box)

    async def _room(self, call: Call, box: Box, wait: float) -> Msg | None:
        """Say that somebody waits; the message that tells of room, or None after a while."""
        await self._inbox.connected()
        hint = pack({"model": self._wanted(call)})
        await self._inbox.publish(self._names.waiting, hint, box.subject)
        call.hinted += 1
        try:
            async with asyncio.timeout(wait * random.uniform(0.75, 1.25)):  # noqa: S311 - jitter
                while refused(msg := await box.next()):
                    pass
                return msg
        except TimeoutError:
            return None

    async def _still_served(self, call: Call) -> None:
        """Tell busy from nobody there and from no such model.

        Raises:
            Unavailable, ModelNotFound: nobody there; others, but not with this model.
        """

        def serves(worker: WorkerInfo) -> bool:
            return call.model is None or model_token(worker.model) == model_token(call.model)

        if any(serves(worker) for worker, at in self._seen.values() if _fresh(at)):
            return
        # Not stopped early unless it is served: what is missing below is not there.
        workers = await self._inbox.workers(0.5, enough=serves)
        if self._inbox.rejoining:
            return
        if workers is None:
            raise Unavailable("no worker is on the bus; start one with `bus-worker run`")
        self._seen |= {worker.model: (worker, time.monotonic()) for worker in workers}
        # Silence is not absence: a worker that was there a while ago may be slow.
        was_there = any(serves(w) and _lately(at) for w, at in self._seen.values())
        if was_there or not workers:
            return
        models = sorted({worker.model for worker in workers})
        raise ModelNotFound(
            f"no worker serves {call.model!r}; served: {', '.join(models)}", models=models
        )

    async def _learn_default(self, call: Call) -> None:
        """The server maps no default, or its workers are busy: take the only model there is."""
        models = {worker.model for worker in await self._inbox.workers(0.2) or ()}
        if len(models) == 1:
            call.model = models.pop()

    def _was_there(self, transcript: Transcript) -> None:
        model = transcript.model
        worker = WorkerInfo(transcript.worker_id, model.name, model.revision, "")
        self._seen[model.name] = (worker, time.monotonic())

    def _wanted(self, call: Call) -> str:
        """The model that a call goes to; of a call that names none, the one that such a call last went to."""
        return call.model or self._default or ""

    async def _tell_all(
        self, subject: str, said: Mapping[str, Any], box: Box | None = None
    ) -> None:
        """Tell every worker that something is over, if the bus is there."""
        if self._inbox.nc.is_connected:
            with contextlib.suppress(BusWorkerError):
                await self._inbox.publish(subject, pack(said), box.subject if box else "")

    def _spawn(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def _fresh(at: float) -> bool:
    return time.monotonic() - at < SERVED_FOR


def _lately(at: float) -> bool:
    return time.monotonic() - at < SILENT_FOR


def _told(call: Call, transcript: Transcript) -> Transcript:
    """A known answer comes whole: hand its segments on to one who streams, if nobody did yet."""
    if transcript.cache_hit and not call.segments:
        for segment in transcript.segments:
            call.tell(segment)
    return transcript


async def _next(box: Box) -> Msg:
    """The next message of a call.

    Raises:
        _Silent: none came while patience lasted.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            return await box.next()
    except TimeoutError:
        raise _Silent from None


def _read(msg: Msg) -> dict[str, Any]:
    try:
        return unpack(msg.data)
    except BadRequest as exc:
        raise Failed("the worker's reply is not msgpack") from exc


def _is_room(msg: Msg) -> bool:
    return len(msg.data) < 200 and "free" in _read(msg)  # noqa: PLR2004 - never a transcript


def _status(msg: Msg) -> int:
    text = header(msg, subjects.HEADER_ERROR_CODE) or ""
    return int(text) if text.isdigit() else 500
