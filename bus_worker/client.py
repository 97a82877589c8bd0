"""The caller's side, typed and async; the only room that other services import.

Needs only the base install. A call waits its turn for room until its deadline, notices a worker
that dies, and is cancelled on the bus when its task is cancelled.
"""

import asyncio
import contextlib
import json
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker import subjects
from bus_worker.bus import Address, Bus, bus_errors, header, may_answer
from bus_worker.errors import (
    BadRequest,
    BusWorkerError,
    Busy,
    DeadlineExceeded,
    Failed,
    ModelNotFound,
    Stopping,
    TooLarge,
    Unavailable,
)
from bus_worker.messages import Segment, Transcript, map_to_error, pack, unpack
from bus_worker.subjects import Subjects, model_token

__all__ = ["TranscribeClient", "TranscriptStream", "WorkerInfo"]

_log = logging.getLogger(__name__)

HEARTBEAT = 1.0
"""Seconds between two signs of life that a call asks its worker for."""
PATIENCE = 2.5 * HEARTBEAT
"""Silence after which a worker counts as dead: two missed, and half a beat for the road."""
FIRST_WAIT, LONGEST_WAIT = 0.005, 0.1
"""Seconds between two questions for room, doubling, with jitter."""
ASK_ANYWAY = 1.0
"""Seconds after which the head of the queue sends its audio though nobody said there is room."""
SERVED_FOR = 1.0
"""Seconds that an answer to "who serves what" is believed."""
REJOINING = 3.0
"""Seconds after a reconnect in which workers may still be on their way back too."""
HEADROOM = 4096
"""Bytes kept for headers, which the server counts as payload."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker that answered: who it is and what it serves."""

    id: str
    model: str
    revision: str | None
    version: str


@dataclass(slots=True)
class _Call:
    """One request of ours, however often it is asked."""

    body: Mapping[str, Any]
    model: str | None
    deadline: float
    request_id: str
    on_segment: Callable[[Segment], None] | None = None
    call_id: str = field(default_factory=lambda: secrets.token_hex(16))
    inbox: str = ""
    arrived: "asyncio.Queue[Msg]" = field(default_factory=asyncio.Queue)
    asked: int = 0
    taken: bool = False
    segments: int = 0

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()


class _NoRoom(Exception):
    """Nobody took the request."""


class _Silent(Exception):
    """The worker that had the request says nothing any more, or asks us to go elsewhere."""


class TranscribeClient:
    """Transcribes over the bus.

    Use it as an async context manager, or call `open` and `close`. One client serves any number of
    calls at once; make one per process.
    """

    def __init__(
        self,
        url: str | Sequence[str] | Address = "nats://localhost:4222",
        *,
        nc: Client | None = None,
        model: str | None = None,
        timeout: float = 60.0,
        prefix: str = "stt",
    ) -> None:
        """Set the client up; nothing is sent before `open`.

        Args:
            url: where the bus is, or an `Address` with credentials.
            nc: a connection that the service already has (it stays the service's to close).
            model: asked for when a call names none; unset: the server's default.
            timeout: seconds a call may take when it says nothing else.
            prefix: the first word of every subject (`SUBJECT_PREFIX`).
        """
        servers = (url,) if isinstance(url, str) else url
        self._address = servers if isinstance(servers, Address) else Address(tuple(servers))
        self._bus: Bus | None = None
        self._nc = nc
        self._model = model
        self._timeout = timeout
        self._names = Subjects(prefix)
        self._inbox = ""
        self._sub: Any = None
        self._queues: dict[str, asyncio.Queue[Msg]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._served: tuple[float, dict[str, WorkerInfo]] = (float("-inf"), {})
        self._reconnects = 0
        self._back_at = float("-inf")
        self._chores: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether the bus is there now."""
        return self._nc is not None and bool(self._nc.is_connected)

    async def open(self) -> None:
        """Connect (unless a connection was given) and prepare for answers.

        Raises:
            Unavailable: no bus there; says where, and why.
        """
        if self._nc is None:
            self._bus = Bus()
            await self._bus.open(self._address)
            self._nc = self._bus.client
        self._reconnects = self._nc.stats["reconnects"]
        self._inbox = self._nc.new_inbox()
        if not may_answer(self._inbox):
            raise BadRequest("workers answer under _INBOX. only: connect with such an inbox_prefix")
        with bus_errors():
            self._sub = await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_message)

    async def close(self) -> None:
        """Leave; calls still in hand should be over or cancelled before."""
        if self._chores:
            await asyncio.wait(set(self._chores), timeout=2)
        if self._bus is not None:
            await self._bus.close()
            self._bus = self._nc = None
        elif self._sub is not None:
            with contextlib.suppress(BusWorkerError), bus_errors():
                await self._sub.unsubscribe()
        self._sub = None

    async def transcribe(
        self,
        audio: bytes,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the request as its deadline
        request_id: str | None = None,
        model: str | None = None,
        **asked: Any,
    ) -> Transcript:
        """Transcribe a clip.

        Args:
            audio: a file's bytes, in any format the workers take.
            timeout: seconds until the answer is worthless; waiting for room counts.
            request_id: yours, for the logs on both sides.
            asked: `format`, `stages`, `cache`, and the options `language`, `task`, `prompt`,
                `hotwords`, `temperature`, `beam_size`, `word_timestamps`, `vad`.

        Raises:
            BusWorkerError: a class of `bus_worker.errors`; `retry` says whether asking again helps.
        """
        return await self._run(self._call(audio, timeout, request_id, model, asked))

    def stream(
        self,
        audio: bytes,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
        model: str | None = None,
        **asked: Any,
    ) -> "TranscriptStream":
        """Segments as they are decoded: `async for segment in client.stream(audio)`.

        Arguments and errors are those of `transcribe`. Leaving the loop cancels the request.
        """
        call = self._call(audio, timeout, request_id, model, {**asked, "stream": True})
        return TranscriptStream(lambda on_segment: self._stream(call, on_segment))

    async def workers(self, wait: float = 0.3) -> list[WorkerInfo]:
        """Who is there: every worker that answers within `wait` seconds."""
        return sorted((await self._ping(wait)).values(), key=lambda w: (w.model, w.id))

    # --- a call -----------------------------------------------------------------------------

    def _call(
        self,
        audio: bytes,
        limit: float | None,
        request_id: str | None,
        model: str | None,
        asked: dict[str, Any],
    ) -> _Call:
        body: dict[str, Any] = {
            key: asked.pop(key) for key in ("format", "stages", "cache", "stream") if key in asked
        }
        if "hotwords" in asked:
            asked["hotwords"] = list(asked["hotwords"])
        body |= {
            "audio": bytes(audio),
            "options": {k: v for k, v in asked.items() if v is not None},
        }
        model = model or self._model
        if model is not None:
            model_token(model)
        limit = self._timeout if limit is None else limit
        return _Call(
            body=body,
            model=model,
            deadline=time.monotonic() + limit,
            request_id=request_id or secrets.token_hex(8),
        )

    async def _stream(self, call: _Call, on_segment: Callable[[Segment], None]) -> Transcript:
        call.on_segment = on_segment
        return await self._run(call)

    async def _run(self, call: _Call) -> Transcript:
        """Ask until somebody answers, or the deadline passes."""
        if self._nc is None:
            raise Unavailable("the client is not open: use `async with`, or call open()")
        token = secrets.token_hex(8)
        call.inbox = f"{self._inbox}.{token}"
        self._queues[token] = call.arrived
        answered = False
        try:
            async with asyncio.timeout(max(0.0, call.left)):
                transcript = await self._until_answered(call, pack(call.body))
        except TimeoutError:
            raise self._too_late(call) from None
        except BusWorkerError as error:
            # Asked twice, a second worker may still be at it; at the deadline, the first.
            answered = call.asked <= 1 and not isinstance(error, DeadlineExceeded)
            raise
        else:
            answered = call.asked == 1
            return transcript
        finally:
            del self._queues[token]
            if call.asked and not answered:
                self._spawn(self._cancel(call))

    async def _until_answered(self, call: _Call, payload: bytes) -> Transcript:
        while True:
            try:
                turn = self._turns.setdefault(call.model or "", asyncio.Lock())
                if turn.locked():
                    async with turn:
                        first = await self._knock(call, payload)
                else:
                    try:
                        first = await self._ask(call, payload)
                    except _NoRoom:
                        async with turn:
                            first = await self._knock(call, payload, refused=True)
                return await self._listen(call, first)
            except _Silent:
                _log.info("request %s: no sign of life, asking again", call.request_id)

    async def _knock(self, call: _Call, payload: bytes, *, refused: bool = False) -> Msg:
        """At the head of the queue: ask for room until there is some; the audio goes when there is."""
        asked_at = time.monotonic()
        wait = FIRST_WAIT
        while True:
            if refused:
                await self._still_served(call)
                if (early := await self._room(call, wait)) is not None and not _is_room(early):
                    return early  # the first one asked was not dead after all
                wait = min(LONGEST_WAIT, 2 * wait)
                if early is None and time.monotonic() - asked_at < ASK_ANYWAY:
                    continue
            try:
                asked_at = time.monotonic()
                return await self._ask(call, payload)
            except _NoRoom:
                refused = True

    async def _ask(self, call: _Call, payload: bytes) -> Msg:
        """Send the request; returns the first message that comes of it.

        Raises:
            _NoRoom: no worker had a free slot.
            _Silent: nothing came.
        """
        await self._connected()
        subject = (
            self._names.transcribe(call.model) if call.model else self._names.transcribe_default
        )
        await self._publish(subject, payload, call.inbox, self._headers(call))
        call.asked += 1
        while True:
            msg = await _next(call, PATIENCE)
            if header(msg, "Status") == "503":
                if call.model is None:
                    await self._learn_default(call)
                raise _NoRoom
            if not _is_room(msg):
                call.taken = True
                return msg

    def _headers(self, call: _Call) -> dict[str, str]:
        return {
            subjects.HEADER_CONTENT_TYPE: subjects.CONTENT_TYPE,
            subjects.HEADER_REQUEST_ID: call.request_id,
            subjects.HEADER_CALL_ID: call.call_id,
            subjects.HEADER_DEADLINE: str(int((time.time() + call.left) * 1000)),
            subjects.HEADER_HEARTBEAT: str(HEARTBEAT),
        }

    async def _listen(self, call: _Call, msg: Msg) -> Transcript:
        """Take what the worker sends until its last word."""
        while True:
            if header(msg, "Status") != "503":  # a late refusal of an earlier question
                data = _read(msg)
                if "error" in data:
                    error = map_to_error(data["error"], status=_status(msg))
                    if isinstance(error, Stopping) and error.retry:
                        raise _Silent
                    raise error
                if "segment" in data:
                    self._tell_segment(call, Segment.from_map(data["segment"]))
                elif "text" in data:
                    return Transcript.from_map(data)
            msg = await _next(call, PATIENCE)

    def _tell_segment(self, call: _Call, segment: Segment) -> None:
        """Each segment once: a second worker starts again from the first."""
        if call.on_segment is not None and segment.id >= call.segments:
            call.segments = segment.id + 1
            call.on_segment(segment)

    async def _room(self, call: _Call, wait: float) -> Msg | None:
        """Say that somebody waits; the message that tells of room, or None after a while."""
        hint = pack({"model": call.model or ""})
        await self._connected()
        await self._publish(self._names.waiting, hint, call.inbox)
        try:
            async with asyncio.timeout(wait * random.uniform(0.75, 1.25)):  # noqa: S311 - jitter
                while True:
                    msg = await call.arrived.get()
                    if header(msg, "Status") != "503":
                        return msg
        except TimeoutError:
            return None

    async def _still_served(self, call: _Call) -> None:
        """Tell busy from nobody there and from no such model.

        Raises:
            Unavailable, ModelNotFound: nobody there; others, but not with this model.
        """
        at, workers = self._served
        if time.monotonic() - at > SERVED_FOR:
            workers = await self._ping(0.5, until=call.model)
            self._served = (time.monotonic(), workers)
        models = sorted({worker.model for worker in workers.values()})
        if models and (call.model is None or model_token(call.model) in map(model_token, models)):
            return
        if time.monotonic() - self._back_at < REJOINING:
            self._served = (float("-inf"), {})
            return
        if not models:
            raise Unavailable("no worker is on the bus; start one with `bus-worker run`")
        raise ModelNotFound(
            f"no worker serves {call.model!r}; served: {', '.join(models)}", models=models
        )

    async def _learn_default(self, call: _Call) -> None:
        """The server maps no default (or its workers are busy): take the only model there is."""
        workers = await self._ping(0.2)
        models = {worker.model for worker in workers.values()}
        if len(models) == 1:
            call.model = models.pop()

    def _too_late(self, call: _Call) -> BusWorkerError:
        if call.taken:
            return DeadlineExceeded()
        if not self.connected:
            return Unavailable("the bus was away until the deadline")
        return Busy()

    async def _cancel(self, call: _Call) -> None:
        """Tell whoever still works on it that nobody waits."""
        if self.connected:
            with contextlib.suppress(BusWorkerError):
                await self._publish(self._names.cancel, pack({"call_id": call.call_id}))

    # --- the bus ----------------------------------------------------------------------------

    async def _connected(self) -> None:
        """Wait for the connection; what is published without one goes out when nobody wants it."""
        assert self._nc is not None  # noqa: S101 - _run checked
        while not self._nc.is_connected:
            if self._nc.is_closed:
                raise Unavailable("the bus connection is closed")
            await asyncio.sleep(0.05)
        if self._nc.stats["reconnects"] != self._reconnects:
            self._reconnects = self._nc.stats["reconnects"]
            self._back_at = time.monotonic()

    async def _publish(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        assert self._nc is not None  # noqa: S101 - as above
        if len(payload) > self._nc.max_payload - HEADROOM:
            raise TooLarge(
                f"the message has {len(payload)} bytes, the bus takes {self._nc.max_payload}; raise"
                " max_payload on nats-server, or send compressed audio",
                size=len(payload),
                maximum=self._nc.max_payload,
            )
        with bus_errors():
            await self._nc.publish(subject, payload, reply=reply, headers=headers)

    async def _on_message(self, msg: Msg) -> None:
        queue = self._queues.get(msg.subject.rpartition(".")[2])
        if queue is not None:
            queue.put_nowait(msg)

    async def _ping(self, wait: float, until: str | None = None) -> dict[str, WorkerInfo]:
        """Workers by id that answer `$SRV.PING`; stops early at one that serves `until`."""
        token = secrets.token_hex(8)
        queue = self._queues[token] = asyncio.Queue()
        found: dict[str, WorkerInfo] = {}
        try:
            await self._connected()
            await self._publish(self._names.discovery("PING")[1], b"", f"{self._inbox}.{token}")
            async with asyncio.timeout(wait):
                while True:
                    msg = await queue.get()
                    if header(msg, "Status") == "503":
                        break
                    info = _worker_info(msg)
                    if info is not None:
                        found[info.id] = info
                        if until and model_token(info.model) == model_token(until):
                            break
        except TimeoutError:
            pass  # that was all of them
        finally:
            del self._queues[token]
        return found

    def _spawn(self, chore: Any) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


class TranscriptStream:
    """Segments of one request, as an async iterator; `transcript` holds the whole after the last."""

    def __init__(self, start: Callable[[Callable[[Segment], None]], Any]) -> None:
        """Args: start runs the call, given a function to tell of segments."""
        self._start = start
        self.transcript: Transcript | None = None

    async def __aiter__(self) -> AsyncIterator[Segment]:
        segments: asyncio.Queue[Segment | None] = asyncio.Queue()
        task = asyncio.create_task(self._start(segments.put_nowait))
        task.add_done_callback(lambda _: segments.put_nowait(None))
        try:
            while (segment := await segments.get()) is not None:
                yield segment
            self.transcript = task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})


async def _next(call: _Call, patience: float) -> Msg:
    """The next message of a call.

    Raises:
        _Silent: none came in `patience` seconds.
    """
    try:
        async with asyncio.timeout(patience):
            return await call.arrived.get()
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


def _worker_info(msg: Msg) -> WorkerInfo | None:
    """A PING answer, or None for one that is not a worker's."""
    try:
        data = json.loads(msg.data)
        meta = data["metadata"]
        return WorkerInfo(data["id"], meta["model"], meta.get("revision") or None, data["version"])
    except (ValueError, KeyError, TypeError):
        return None
