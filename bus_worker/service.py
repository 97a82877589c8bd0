"""Request-reply: one message in, a transcript or an error out, whatever happens in between.

Deadlines, heartbeats and cancellation of a request live here; who gets which request is
`bus_worker.credits`'s, what is done with it `bus_worker.transcriber`'s.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker import subjects
from bus_worker.bus import Bus, header, may_answer
from bus_worker.claim_check import ClaimCheck
from bus_worker.credits import Credits, WaitingRoom
from bus_worker.errors import (
    BadRequest,
    BusWorkerError,
    Cancelled,
    DeadlineExceeded,
    Failed,
    Stopping,
)
from bus_worker.hardened import MALFORMED
from bus_worker.messages import (
    Segment,
    Transcript,
    error_to_map,
    pack,
    segment_to_map,
    unpack_hostile,
)
from bus_worker.plugin import Draft
from bus_worker.requests import TranscribeRequest, read_request
from bus_worker.subjects import Subjects, model_token
from bus_worker.transcriber import Transcriber

__all__ = ["Call", "Service"]

_log = structlog.get_logger(__name__)

LONGEST_DEADLINE = 3600.0
"""Seconds: a clock gone wrong must not hold a slot for ever."""
MAX_ID = 128
MAX_CONTROL = 1024
"""Bytes of a control message."""


@dataclass(slots=True)
class Call:
    """One request on its way through this worker."""

    reply: str
    received: float
    request_id: str = ""
    call_id: str = ""
    deadline: float = 0.0
    heartbeat: float | None = None
    size: int = 0
    fetched: float | None = None
    """Seconds that its audio took to come, when a ticket stood for it."""
    draft: Draft | None = None
    gave_up: "asyncio.Future[BusWorkerError]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def give_up(self, error: BusWorkerError) -> None:
        """End the call with this error; the first one counts."""
        if not self.gave_up.done():
            self.gave_up.set_result(error)
        if self.draft is not None:
            self.draft.give_up()


class Service:
    """Serves one model's subject from a transcriber."""

    def __init__(
        self,
        bus: Bus,
        transcriber: Transcriber,
        *,
        names: Subjects,
        queue: str,
        slots: int,
        request_timeout: float,
    ) -> None:
        """Args: request_timeout is the seconds of a request whose caller sets no deadline."""
        self._bus = bus
        self._transcriber = transcriber
        self._names = names
        self._checks = ClaimCheck(bus.client, names)
        self._request_timeout = request_timeout
        self._model = transcriber.model.name
        self._calls: dict[str, Call] = {}
        self._subs: list[Subscription] = []
        self._stuck: dict[int, float] = {}
        self._leaving = False
        self._started = datetime.now(UTC)
        self._seconds = 0.0
        self._last_error = ""
        self.counts: Counter[str] = Counter()
        """Answers by code (`ok` for transcripts)."""
        self._waiting = WaitingRoom(lambda: self.credits.free, self._tell_of_room)
        self.credits = Credits(
            bus,
            names.transcribe(self._model),
            queue,
            slots,
            self._handle,
            on_room=self._waiting.wake,
        )

    async def start(self) -> None:
        """Listen for control messages, then offer the slots."""
        subscribe = self._bus.client.subscribe
        self._subs.append(await subscribe(self._names.cancel, cb=self._on_cancel))
        self._subs.append(await subscribe(self._names.waiting, cb=self._on_waiting))
        await self.credits.start()

    async def stop(self, limit: float) -> None:
        """Take nothing more, finish what is in hand; what is not done by `limit` seconds hears `stopping`."""
        if not await self.credits.stop(limit, answered=self._answered):
            await self.stop_now()
        for sub in self._subs:
            try:
                await sub.unsubscribe()
            except nats_errors.Error as exc:
                _log.debug("unsubscribe_failed", error=str(exc))
        self._subs.clear()
        await self._waiting.close()

    async def stop_now(self) -> None:
        """Answer every request in hand with `stopping`; wait a moment for the answers to be written."""
        self._leaving = True
        for call in list(self._calls.values()):
            call.give_up(Stopping())
        await self.credits.stop(1.0, answered=self._answered)
        await self.credits.abandon()

    def _answered(self) -> bool:
        """Whether all that is left in hand is threads whose callers have their answer."""
        return self.credits.busy == len(self._stuck)

    def stuck_for(self) -> float:
        """Seconds that the longest-stuck thread has outlived its request's answer."""
        return time.monotonic() - min(self._stuck.values()) if self._stuck else 0.0

    def stats(self) -> dict[str, Any]:
        """Figures of the endpoint as ADR-32 names them, ours under `data`."""
        requests = sum(self.counts.values())
        return {
            "started": self._started.isoformat().replace("+00:00", "Z"),
            "num_requests": requests,
            "num_errors": requests - self.counts["ok"],
            "last_error": self._last_error,
            "processing_time": int(self._seconds * 1e9),
            "average_processing_time": int(self._seconds / requests * 1e9) if requests else 0,
            "data": {
                "model": self._model,
                "slots": self.credits.slots,
                "in_flight": self.credits.busy,
                "stuck": len(self._stuck),
                "overshoot": self.credits.overshoot,
                "undecodable": getattr(self._bus.client, "undecodable", 0),
                "answers": dict(self.counts),
            },
        }

    async def _handle(self, msg: Msg) -> None:
        """One message: its answer goes out before this returns, its slot comes back when it does."""
        call = Call(reply=msg.reply, received=time.monotonic(), size=len(msg.data))
        if not may_answer(msg.reply):
            self.counts["unanswerable"] += 1
            _log.warning("request_without_inbox", reply=msg.reply[:80])
            return
        with structlog.contextvars.bound_contextvars():
            try:
                self._read_headers(call, msg)
                structlog.contextvars.bind_contextvars(request_id=call.request_id)
                if call.call_id in self._calls:
                    _log.info("asked_again", call_id=call.call_id)
                    return  # the one in hand answers on the same inbox
                self._calls[call.call_id] = call
                await self._serve(call, msg)
            except Exception as error:  # noqa: BLE001 - one answer, whatever happens
                await self._answer_error(call, _ours(error))
            finally:
                if self._calls.get(call.call_id) is call:
                    del self._calls[call.call_id]

    async def _serve(self, call: Call, msg: Msg) -> None:
        """Race the work against its deadline and its cancellation; whichever ends first is the answer."""
        if self._leaving:
            raise Stopping
        work = asyncio.create_task(self._work(call, msg), name="work")
        pulse = asyncio.create_task(self._heartbeat(call), name="heartbeat")
        try:
            racing: set[asyncio.Future[Any]] = {work, call.gave_up}
            left = max(0.0, call.deadline - time.monotonic())
            await asyncio.wait(racing, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            pulse.cancel()
            if not work.done():
                call.give_up(DeadlineExceeded())
                await self._answer_error(call, call.gave_up.result())
            elif (error := work.exception()) is None:
                await self._answer(call, work.result())
            else:
                await self._answer_error(call, _ours(error))
        finally:
            pulse.cancel()
            work.cancel()
            call.give_up(Cancelled())
            await asyncio.wait({work, pulse})
            await self._settle(call)

    async def _settle(self, call: Call) -> None:
        """Keep the slot until no thread works on the call any more."""
        if call.draft is None:
            return
        self._stuck[id(call)] = time.monotonic()
        await call.draft.settled()
        # Not in a `finally`: abandoned, the thread is stuck still, and the process must know when it leaves.
        del self._stuck[id(call)]

    async def _work(self, call: Call, msg: Msg) -> Transcript:
        request = await self._with_audio(call, read_request(msg.data))
        loop = asyncio.get_running_loop()

        def on_segment(segment: Segment) -> None:
            loop.call_soon_threadsafe(outbox.put_nowait, segment)

        outbox: asyncio.Queue[Segment | None] = asyncio.Queue()
        call.draft = self._transcriber.draft(request, deadline=call.deadline, on_segment=on_segment)
        sender = asyncio.create_task(self._send_segments(call, outbox), name="segments")
        try:
            transcript = await self._transcriber.run(
                call.draft, request, request_id=call.request_id, received=call.received
            )
            loop.call_soon_threadsafe(outbox.put_nowait, None)
            await sender
            return transcript
        finally:
            sender.cancel()
            await asyncio.wait({sender})

    async def _with_audio(self, call: Call, request: TranscribeRequest) -> TranscribeRequest:
        """The request, with the audio that its ticket stands for."""
        if request.claim is None:
            return request
        ticket = request.claim.ticket()
        self._transcriber.check_size(ticket.size)
        began = time.monotonic()
        try:
            audio = await self._checks.fetch(ticket)
        finally:
            call.fetched = time.monotonic() - began
        call.size += len(audio)
        return request.model_copy(update={"audio": audio, "claim": None})

    async def _send_segments(self, call: Call, outbox: "asyncio.Queue[Segment | None]") -> None:
        while (segment := await outbox.get()) is not None:
            if not call.gave_up.done():
                await self._publish(call.reply, {"segment": segment_to_map(segment)})

    async def _heartbeat(self, call: Call) -> None:
        """Say at once and then at the caller's rate that somebody is at it; one who misses two asks again."""
        if call.heartbeat is None:
            return
        while True:
            await self._publish(call.reply, {"working": round(time.monotonic() - call.received, 3)})
            await asyncio.sleep(call.heartbeat)

    def _read_headers(self, call: Call, msg: Msg) -> None:
        """Fill the call from the headers.

        Raises:
            BadRequest: a header of ours that is not what it must be.
            DeadlineExceeded: the deadline has passed on the way.
        """
        call.request_id = (header(msg, subjects.HEADER_REQUEST_ID) or msg.reply)[:MAX_ID]
        call.call_id = (header(msg, subjects.HEADER_CALL_ID) or secrets.token_hex(16))[:MAX_ID]
        if header(msg, MALFORMED):
            raise BadRequest("the message's headers cannot be read")
        call.deadline = call.received + self._request_timeout
        beat = _number(msg, subjects.HEADER_HEARTBEAT)
        if beat is not None:
            if not 0.05 <= beat <= 3600:  # noqa: PLR2004 - below is a flood, above is never
                raise BadRequest(f"{subjects.HEADER_HEARTBEAT} must be 0.05 to 3600 seconds")
            call.heartbeat = beat
        deadline = _number(msg, subjects.HEADER_DEADLINE)
        if deadline is not None:
            left = min(deadline / 1000 - time.time(), LONGEST_DEADLINE)
            call.deadline = call.received + left
            if left <= 0:
                raise DeadlineExceeded(
                    "the request's deadline had passed when it arrived (do the clocks of caller and worker agree?)"
                )
        kind = (header(msg, subjects.HEADER_CONTENT_TYPE) or subjects.CONTENT_TYPE).partition(";")[
            0
        ]
        if kind.strip().lower() not in subjects.ACCEPTED_TYPES:
            raise BadRequest(f"Content-Type must be {subjects.CONTENT_TYPE}, not {kind[:80]!r}")

    async def _answer(self, call: Call, transcript: Transcript) -> None:
        if await self._publish(call.reply, transcript.to_map()):
            await asyncio.sleep(0)  # it leaves before the log line is made
            self._count(call, "ok")
            _log.info("request", **_line(call, "ok", _outcome(transcript, call.draft)))
        else:
            await self._answer_error(
                call, Failed("the transcript is larger than the bus takes, or no plain data")
            )

    async def _answer_error(self, call: Call, error: BusWorkerError) -> None:
        headers = {
            subjects.HEADER_ERROR: error.message[:200],
            subjects.HEADER_ERROR_CODE: str(error.status),
        }
        if not await self._publish(call.reply, error_to_map(error), headers):
            await self._publish(call.reply, error_to_map(type(error)(error.message)), headers)
        self._count(call, error.code)
        self._last_error = f"{error.status}:{error.code}"
        say = _log.error if isinstance(error, Failed) else _log.info
        say("request", **_line(call, error.code, error.details), message=error.message)

    def _count(self, call: Call, code: str) -> None:
        self.counts[code] += 1
        self._seconds += time.monotonic() - call.received

    async def _publish(
        self, reply: str, data: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> bool:
        """Send one message to a caller; False where it cannot be packed or is larger than the bus takes.

        Without a connection nats-py keeps up to 2 MiB and sends it after the reconnect.
        """
        try:
            payload = pack(data)
        except (TypeError, ValueError, OverflowError):
            _log.exception("reply_not_packed")  # a plugin left something that is no plain data
            return False
        try:
            await self._bus.client.publish(
                reply,
                payload,
                headers={subjects.HEADER_CONTENT_TYPE: subjects.CONTENT_TYPE, **(headers or {})},
            )
        except nats_errors.MaxPayloadError:
            return False
        except (nats_errors.Error, OSError) as exc:
            _log.warning("reply_not_sent", error=str(exc) or type(exc).__name__)
        return True

    async def _on_cancel(self, msg: Msg) -> None:
        try:
            call = self._calls.get(str(unpack_hostile(msg.data, MAX_CONTROL).get("call_id", "")))
        except BadRequest:
            return
        if call is not None:
            call.give_up(Cancelled())
        if may_answer(msg.reply):
            mine = {"worker_id": self._transcriber.worker_id, "cancelled": call is not None}
            await self._publish(msg.reply, mine)

    async def _on_waiting(self, msg: Msg) -> None:
        """Somebody waits for room, or no more."""
        try:
            said = unpack_hostile(msg.data, MAX_CONTROL)
            wanted = model_token(str(said.get("model", "")))
        except BadRequest:
            return
        if wanted != model_token(self._model) or not may_answer(msg.reply):
            return
        if said.get("over"):
            self._waiting.leave(msg.reply)
        else:
            self._waiting.enter(msg.reply)

    async def _tell_of_room(self, inbox: str) -> None:
        room = {"worker_id": self._transcriber.worker_id, "free": self.credits.free}
        await self._publish(inbox, room)


def _ours(error: BaseException) -> BusWorkerError:
    """The error as a caller may see it; one that is not ours goes to the log whole."""
    if isinstance(error, BusWorkerError):
        return error
    _log.error("request_failed", exc_info=error)
    return Failed()


def _number(msg: Msg, name: str) -> float | None:
    text = header(msg, name)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < 1e15:  # noqa: PLR2004 - NaN and infinity fail this too
        raise BadRequest(f"header {name} must be a number, not {text[:40]!r}")
    return number


def _line(call: Call, outcome: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request's one line; a plugin's own cannot replace ours."""
    fetched = {} if call.fetched is None else {"fetch": round(call.fetched, 4)}
    return {
        **{name: value for name, value in more.items() if name not in {"event", "message"}},
        **fetched,
        "outcome": outcome,
        "seconds": round(time.monotonic() - call.received, 4),
        "bytes": call.size,
    }


def _outcome(transcript: Transcript, draft: Draft | None) -> dict[str, Any]:
    """What the one line of a served request says of it; never the words."""
    line: dict[str, Any] = {
        "audio": transcript.duration,
        "language": transcript.language,
        "queue": transcript.timings.queue,
        **{f"stage_{name}": seconds for name, seconds in transcript.timings.stages.items()},
    }
    if transcript.warnings:
        line["warnings"] = transcript.warnings
    if draft is not None:
        line |= draft.notes | {f"span_{name}": round(s, 4) for name, s in draft.spans.items()}
    return line
