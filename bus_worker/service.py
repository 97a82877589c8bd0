"""Request-reply: one message in, a transcript or an error out, whatever happens in between.

Deadlines, heartbeats and cancellation of a request live here; who gets which request is
`bus_worker.credits`'s, what is done with it `bus_worker.transcriber`'s.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus_worker import subjects
from bus_worker.arrivals import Arrival, read_headers
from bus_worker.bus import Bus, may_answer
from bus_worker.claim_check import ClaimCheck
from bus_worker.credits import Credits, TakenSlot
from bus_worker.errors import (
    BadRequest,
    BusWorkerError,
    Cancelled,
    DeadlineExceeded,
    Failed,
    Stopping,
)
from bus_worker.messages import (
    Segment,
    Transcript,
    error_to_map,
    pack,
    segment_to_map,
    unpack_hostile,
)
from bus_worker.plugin import Draft
from bus_worker.request_line import RequestLine, clean
from bus_worker.requests import TranscribeRequest, read_request
from bus_worker.subjects import Subjects, model_token
from bus_worker.transcriber import Transcriber
from bus_worker.waiting_room import WaitingRoom

__all__ = ["Service"]

_log = structlog.get_logger(__name__)

AT_ONCE = 0.002
"""Seconds before the first heartbeat: an answer from the cache needs none, and is there a tenth sooner."""
MAX_CONTROL = 1024
"""Bytes of a control message."""


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
        line: RequestLine | None = None,
    ) -> None:
        """Args: request_timeout is the seconds of a request whose caller sets no deadline; line tells of each."""
        self._line = line or RequestLine()
        self._bus = bus
        self._transcriber = transcriber
        self._names = names
        self._checks = ClaimCheck(bus.client, names)
        self._request_timeout = request_timeout
        self._model = transcriber.model.name
        self._in_hand: dict[str, Arrival] = {}
        self._subs: list[Subscription] = []
        self._cancelled: deque[str] = deque(maxlen=256)
        """Calls cancelled that are not in hand: another worker's, or a moment behind their cancel."""
        self._leaving = False
        self._started = datetime.now(UTC)
        self._seconds = 0.0
        self._last_error = ""
        self._last_inference: float | None = None
        self.counts: Counter[str] = Counter()
        """Answers by code (`ok` for transcripts)."""
        self.waiting = WaitingRoom(lambda: self.credits.free, self._tell_of_room)
        self.credits = Credits(
            bus,
            names.transcribe(self._model),
            queue,
            slots,
            self._handle,
        )
        self.credits.on_room.append(self.waiting.wake)

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
        await self._bus.unsubscribe(self._subs)
        await self.waiting.close()

    async def stop_now(self) -> None:
        """Answer every request in hand with `stopping`; wait a moment for the answers to be written."""
        self._leaving = True
        for arrival in list(self._in_hand.values()):
            arrival.give_up(Stopping())
        await self.credits.stop(1.0, answered=self._answered)
        await self.credits.abandon()

    def _answered(self) -> bool:
        """Whether all that is left in hand is threads whose callers have their answer."""
        return self.credits.busy + self.credits.aside == len(self._all_stuck)

    def stuck_for(self) -> float:
        """Seconds that the longest-stuck thread has outlived its request's answer."""
        stuck = self._all_stuck
        return time.monotonic() - min(stuck.values()) if stuck else 0.0

    @property
    def _all_stuck(self) -> dict[Any, float]:
        return {**self.credits.stuck, **self._transcriber.flights.stuck}

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
                **self._transcriber.described(),
                "slots": self.credits.slots,
                "in_flight": self.credits.busy,
                "waiting": self.credits.aside,
                "stuck": len(self._all_stuck),
                "stuck_for": round(self.stuck_for(), 1),
                "last_inference": self._last_inference,
                "credits": self.credits.free,
                "overshoot": self.credits.overshoot,
                "reconnects": self._bus.client.stats["reconnects"],
                "durations": self._line.durations.to_map(),
                "undecodable": getattr(self._bus.client, "undecodable", 0),
                "answers": dict(self.counts),
                "cache": self._transcriber.recall.figures(),
            },
        }

    async def _handle(self, msg: Msg) -> None:
        """One message: its answer goes out before this returns, its slot comes back when it does."""
        arrival = Arrival(reply=msg.reply, received=time.monotonic(), size=len(msg.data))
        if not may_answer(msg.reply):
            self.counts["unanswerable"] += 1
            _log.warning("request_without_inbox", reply=msg.reply[:80])
            return
        with structlog.contextvars.bound_contextvars():
            try:
                read_headers(arrival, msg, self._request_timeout)
                structlog.contextvars.bind_contextvars(request_id=arrival.request_id)
                if not self._asked_again(arrival):
                    self._in_hand[arrival.call_id] = arrival
                    await self._serve(arrival, msg)
            except Exception as error:  # noqa: BLE001 - one answer, whatever happens
                await self._answer_error(arrival, _ours(error))
            finally:
                if self._in_hand.get(arrival.call_id) is arrival:
                    del self._in_hand[arrival.call_id]

    def _asked_again(self, arrival: Arrival) -> bool:
        """Whether the request is in hand already: that one answers on the same inbox.

        Raises:
            BadRequest: it is another caller's.
            Cancelled: its cancel overtook it; the two come on two subscriptions.
        """
        if arrival.call_id in self._cancelled:
            raise Cancelled
        known = self._in_hand.get(arrival.call_id)
        if known is None:
            return False
        if known.reply != arrival.reply:
            raise BadRequest(f"{subjects.HEADER_CALL_ID} is the id of another request in hand")
        _log.info("asked_again", call_id=arrival.call_id)
        return True

    async def _serve(self, arrival: Arrival, msg: Msg) -> None:
        """Race the work against its deadline and its cancellation; whichever ends first is the answer."""
        if self._leaving:
            raise Stopping
        seat = self.credits.taken()
        work = asyncio.create_task(self._work(arrival, msg, seat), name="work")
        pulse = asyncio.create_task(self._heartbeat(arrival), name="heartbeat")
        try:
            racing: set[asyncio.Future[Any]] = {work, arrival.gave_up}
            left = max(0.0, arrival.deadline - time.monotonic())
            await asyncio.wait(racing, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            pulse.cancel()
            if not work.done():
                arrival.give_up(DeadlineExceeded())
                await self._answer_error(arrival, arrival.gave_up.result())
            elif work.cancelled():
                await self._answer_error(arrival, Failed())
            elif (error := work.exception()) is None:
                await self._answer(arrival, work.result())
            else:
                await self._answer_error(arrival, _ours(error))
        finally:
            pulse.cancel()
            work.cancel()
            arrival.give_up(Cancelled())
            await self._settle(arrival, {work, pulse})

    async def _settle(self, arrival: Arrival, tasks: set[asyncio.Task[Any]]) -> None:
        """Keep the slot until no task and no thread works for it any more."""
        self.credits.told()
        await asyncio.wait(tasks)  # a stage may refuse to be cancelled
        if arrival.draft is not None:
            await arrival.draft.settled()

    async def _work(self, arrival: Arrival, msg: Msg, seat: TakenSlot) -> Transcript:
        request = await self._with_audio(arrival, read_request(msg.data))
        if request.stream:
            return await self._streamed(arrival, request, seat)
        arrival.draft = self._transcriber.draft(request, deadline=arrival.deadline)
        return await self._transcribed(arrival, arrival.draft, request, seat)

    async def _streamed(
        self, arrival: Arrival, request: TranscribeRequest, seat: TakenSlot
    ) -> Transcript:
        """Segments go out while others are made, all of them before the transcript."""
        loop = asyncio.get_running_loop()
        outbox: asyncio.Queue[Segment | None] = asyncio.Queue()

        def on_segment(segment: Segment) -> None:
            loop.call_soon_threadsafe(outbox.put_nowait, segment)

        arrival.draft = self._transcriber.draft(
            request, deadline=arrival.deadline, on_segment=on_segment
        )
        sender = asyncio.create_task(self._send_segments(arrival, outbox), name="segments")
        try:
            transcript = await self._transcribed(arrival, arrival.draft, request, seat)
            loop.call_soon(outbox.put_nowait, None)
            await sender
            return transcript
        finally:
            sender.cancel()
            await asyncio.wait({sender})

    async def _transcribed(
        self, arrival: Arrival, draft: Draft, request: TranscribeRequest, seat: TakenSlot
    ) -> Transcript:
        return await self._transcriber.run(
            draft, request, request_id=arrival.request_id, received=arrival.received, seat=seat
        )

    async def _with_audio(self, arrival: Arrival, request: TranscribeRequest) -> TranscribeRequest:
        """The request, with the audio that its ticket stands for."""
        if request.claim is None:
            return request
        ticket = request.claim.ticket()
        self._transcriber.check_size(ticket.size)
        began = time.monotonic()
        try:
            with self._line.metrics.fetching():
                audio = await self._checks.fetch(ticket)
        finally:
            arrival.fetched = time.monotonic() - began
        arrival.size += len(audio)
        return request.model_copy(update={"audio": audio, "claim": None})

    async def _send_segments(
        self, arrival: Arrival, outbox: "asyncio.Queue[Segment | None]"
    ) -> None:
        while (segment := await outbox.get()) is not None:
            if not arrival.gave_up.done():
                await self._publish(arrival.reply, {"segment": segment_to_map(segment)})

    async def _heartbeat(self, arrival: Arrival) -> None:
        """Say at once and then at the caller's rate that somebody is at it; one who misses two asks again."""
        if arrival.heartbeat is None:
            return
        await asyncio.sleep(AT_ONCE)
        while True:
            await self._publish(
                arrival.reply, {"working": round(time.monotonic() - arrival.received, 3)}
            )
            await asyncio.sleep(arrival.heartbeat)

    async def _answer(self, arrival: Arrival, transcript: Transcript) -> None:
        if await self._publish(arrival.reply, transcript.to_map()):
            await asyncio.sleep(0)  # it leaves before the log line is made
            self._count(arrival, "ok")
            if not transcript.cache_hit:
                self._last_inference = round(time.time(), 3)
            self._line.answered(arrival, transcript)
        else:
            await self._answer_error(
                arrival, Failed("the transcript is larger than the bus takes, or no plain data")
            )

    async def _answer_error(self, arrival: Arrival, error: BusWorkerError) -> None:
        said = error_to_map(error)
        said["error"]["message"] = message = clean(error.message)
        headers = {
            subjects.HEADER_ERROR: message[:200],
            subjects.HEADER_ERROR_CODE: str(error.status),
        }
        if not await self._publish(arrival.reply, said, headers):
            said["error"]["details"] = {}  # a plugin's, and no plain data
            await self._publish(arrival.reply, said, headers)
        self._count(arrival, error.code)
        self._last_error = f"{error.status}:{error.code}"
        self._line.refused(arrival, error, message)

    def _count(self, arrival: Arrival, code: str) -> None:
        self.counts[code] += 1
        self._seconds += time.monotonic() - arrival.received

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
            call_id = str(unpack_hostile(msg.data, MAX_CONTROL)["call_id"])
        except (BadRequest, KeyError):  # a job's cancellation is not ours
            return
        arrival = self._in_hand.get(call_id)
        if arrival is not None:
            arrival.give_up(Cancelled())
        else:
            self._cancelled.append(call_id)
        if may_answer(msg.reply):
            mine = {"worker_id": self._transcriber.worker_id, "cancelled": arrival is not None}
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
            self.waiting.leave(msg.reply)
        else:
            self.waiting.enter(msg.reply)

    async def _tell_of_room(self, inbox: str) -> None:
        room = {"worker_id": self._transcriber.worker_id, "free": self.credits.free}
        await self._publish(inbox, room)


def _ours(error: BaseException) -> BusWorkerError:
    """The error as a caller may see it; one that is not ours goes to the log whole."""
    if isinstance(error, BusWorkerError):
        return error
    _log.error("request_failed", exc_info=error)
    return Failed()
