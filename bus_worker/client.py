"""The caller's side, typed and async; the only room that other services import.

Needs only the base install. A call waits its turn for room until its deadline, notices a worker
that dies, and is cancelled on the bus when its task is cancelled.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from nats.aio.client import Client

from bus_worker.bus import Address, Bus
from bus_worker.calls import Call, Calls
from bus_worker.claim_check import KEPT, KEPT_FOR_JOBS, Deposit, NoStream
from bus_worker.dead_letters import DeadLetter, DeadLetters
from bus_worker.errors import BadRequest, Unavailable
from bus_worker.inbox import Inbox, WorkerInfo
from bus_worker.job import Asked, Job, Jobs
from bus_worker.job_record import JobEvent, JobStatus
from bus_worker.messages import Segment, Transcript, map_to_error
from bus_worker.parcel import LeftAudio, Parcel, leave
from bus_worker.subjects import Priority, Subjects, model_token

__all__ = [
    "KEPT", "KEPT_FOR_JOBS", "DeadLetter", "Job", "JobEvent", "JobStatus", "LeftAudio", "NoStream",
    "Priority", "TranscribeClient", "TranscriptStream",
]  # fmt: skip

Audio = bytes | AsyncIterable[bytes] | LeftAudio

BODY = ("format", "stages", "cache", "stream", "reply_to", "webhook")
"""Keys of a request beside its audio; everything else asked is one of its options."""


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
        self._given = nc
        self._model = model
        self._timeout = timeout
        self._names = Subjects(prefix)
        self._bus: Bus | None = None
        self._inbox: Inbox | None = None
        self._calls: Calls | None = None
        self._jobs: Jobs | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether the bus is there now."""
        return self._inbox is not None and bool(self._inbox.nc.is_connected)

    async def open(self, limit: float | None = 10.0) -> None:
        """Connect (unless a connection was given) and prepare for answers.

        Args:
            limit: seconds that connecting may take; None: for ever, and calls fail meanwhile.

        Raises:
            Unavailable: no bus there; says where, and why.
        """
        if self._inbox is not None:
            return
        nc = self._given
        if nc is None:
            self._bus = Bus()
            await self._bus.open(self._address, limit)
            nc = self._bus.client
        inbox = Inbox(nc, self._names)
        await inbox.open()
        self._inbox, self._calls = inbox, Calls(inbox)
        self._jobs = Jobs(nc, self._names, self._calls.checks)

    async def close(self) -> None:
        """Leave; calls still in hand should be over or cancelled before."""
        if self._calls is not None:
            await self._calls.close()
        if self._inbox is not None:
            await self._inbox.close()
        if self._bus is not None:
            await self._bus.close()
        self._bus = self._inbox = self._calls = self._jobs = None

    async def transcribe(
        self,
        audio: Audio,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the request as its deadline
        request_id: str | None = None,
        model: str | None = None,
        **asked: Any,
    ) -> Transcript:
        """Transcribe a clip.

        Args:
            audio: a file's bytes, in any format the workers take; or what brings them piece by piece
                (an upload), of which a few megabytes at most are kept here; or what `leave` gave.
            timeout: seconds until the answer is worthless; waiting for room counts.
            request_id: yours, for the logs on both sides.
            model: which model is to hear it.
            asked: `traceparent`, `format`, `stages`, `cache`, and the options `language`, `task`, `prompt`,
                `hotwords`, `temperature`, `beam_size`, `word_timestamps`, `vad`.

        Raises:
            BusWorkerError: a class of `bus_worker.errors`; `retry` says whether asking again helps.
        """
        return await self._running().run(self._call(audio, timeout, request_id, model, asked))

    def stream(
        self,
        audio: Audio,
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
        return TranscriptStream(self._running(), call)

    @asynccontextmanager
    async def leave(
        self, audio: AsyncIterable[bytes], *, kept: float = KEPT
    ) -> AsyncIterator[LeftAudio]:
        """Read an upload before it is known what is asked of it; what it left on the bus stays for the block.

        Handed in with a job it stays as long as the job needs it; leave it for `KEPT_FOR_JOBS` then.

        Raises:
            TooLarge, Busy, Unavailable: the bus does not take it, or not now.
        """
        checks, deposit = self._running().checks, Deposit()
        try:
            yield await leave(audio, checks, deposit, kept=kept)
        finally:
            await checks.erase(deposit)

    async def submit(
        self,
        audio: Audio,
        *,
        priority: Priority = "low",
        request_id: str | None = None,
        model: str | None = None,
        idempotency_key: str | None = None,
        **asked: Any,
    ) -> Job:
        """Hand in a job: work that is done though we go away, workers die and the bus restarts.

        Args:
            audio: as for `transcribe`, and hours of it.
            priority: `high` goes before `low`.
            request_id: yours, for the logs.
            model: which model is to hear it.
            idempotency_key: handed in again under the same one, it is the same job.
            asked: as for `transcribe`; and `reply_to` (a subject under `_INBOX.` or
                `stt.results.`) and `webhook` (an https address), told of the end.

        Raises:
            BusWorkerError: as `transcribe`; `Busy` where the queue is full.
        """
        traceparent = asked.pop("traceparent", None)
        body, options = _sorted_out(asked)
        if "reply_to" in body and not self._names.may_tell(str(body["reply_to"])):
            raise BadRequest(
                f"'reply_to': a subject under '_INBOX.' or '{self._names.prefix}.results.', without wildcards",
                field="reply_to",
            )
        wanted = Asked(
            body={**body, "options": options},
            model=model or self._model,
            priority=priority,
            request_id=request_id or secrets.token_hex(8),
            key=idempotency_key,
            traceparent=traceparent,
        )
        whole = audio if isinstance(audio, AsyncIterable | LeftAudio) else bytes(audio)
        return await self._all_jobs().submit(wanted, whole)

    def job(self, job_id: str) -> Job:
        """A job that was handed in before, here or elsewhere.

        Raises:
            BadRequest: it is no job's id.
        """
        return self._all_jobs().find(job_id)

    @property
    def dead(self) -> DeadLetters:
        """Jobs that failed, kept with the reason and the audio for a week."""
        return self._all_jobs().dead

    async def resubmit(self, job_id: str) -> Job:
        """Hand a job that failed in again, under a new id; its dead letter is gone then.

        Raises:
            JobNotFound: it has no dead letter, or not any more.
            BusWorkerError: as `submit`.
        """
        return await self._all_jobs().resubmit(job_id)

    async def workers(self, wait: float = 0.3) -> list[WorkerInfo]:
        """Who is there: every worker that answers within `wait` seconds."""
        self._running()
        assert self._inbox is not None  # noqa: S101 - _running raised otherwise
        return await self._inbox.workers(wait) or []

    async def is_served(self, wait: float = 0.5) -> bool:
        """Whether a worker answers that serves the calls which name no model; at once when one does."""
        self._running()
        assert self._inbox is not None  # noqa: S101 - _running raised otherwise
        wanted = None if self._model is None else model_token(self._model)

        def serves(worker: WorkerInfo) -> bool:
            return wanted is None or model_token(worker.model) == wanted

        found = await self._inbox.workers(wait, enough=serves)
        return any(serves(worker) for worker in found or ())

    async def clear_cache(self, wait: float = 10.0) -> dict[str, int]:
        """Make every worker forget its answers; how many each has removed, by worker.

        Workers that share a Redis share the work: the sum is what was there.

        Raises:
            Unavailable: no worker is there, or one cannot reach its cache.
        """
        there = await self.workers()
        if not there:
            raise Unavailable("no worker is on the bus; start one with `bus-worker run`")
        assert self._inbox is not None  # noqa: S101 - workers() raised otherwise
        answers = await self._inbox.ask_all(self._names.cache_clear, wait, {w.id for w in there})
        for answer in answers.values():
            if "error" in answer:
                raise map_to_error(answer["error"])
        return {worker: int(answer["cleared"]) for worker, answer in answers.items()}

    async def cache_figures(self, wait: float = 0.3) -> dict[str, dict[str, Any]]:
        """Hits, misses and more of each worker's cache, by worker."""
        figures = await self.figures(wait)
        return {worker: found["cache"] for worker, found in figures.items() if "cache" in found}

    async def figures(self, wait: float = 0.3) -> dict[str, dict[str, Any]]:
        """What each worker counts of itself (slots, requests in flight, answers, …), by worker."""
        self._running()
        assert self._inbox is not None  # noqa: S101 - _running raised otherwise
        return await self._inbox.figures(wait)

    def _running(self) -> Calls:
        if self._calls is None:
            raise Unavailable(
                "the client is not open: use `async with`, or call open()"
                if self._bus is None
                else "the bus is away"
            )
        return self._calls

    def _all_jobs(self) -> Jobs:
        self._running()
        assert self._jobs is not None  # noqa: S101 - _running raised otherwise
        return self._jobs

    def _call(
        self,
        audio: Audio,
        limit: float | None,
        request_id: str | None,
        model: str | None,
        asked: dict[str, Any],
    ) -> Call:
        whole = audio if isinstance(audio, AsyncIterable | LeftAudio) else bytes(audio)
        traceparent = asked.pop("traceparent", None)
        body, options = _sorted_out(asked)
        model = model or self._model
        if model is not None:
            model_token(model)  # refused here rather than after the wait
        return Call(
            parcel=Parcel({**body, "options": options}, whole),
            model=model,
            deadline=time.monotonic() + (self._timeout if limit is None else limit),
            request_id=request_id or secrets.token_hex(8),
            traceparent=traceparent,
        )


def _sorted_out(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands in a request itself, and its options."""
    said = {key: value for key, value in asked.items() if value is not None}
    body = {key: said.pop(key) for key in BODY if key in said}
    if "hotwords" in said:
        said["hotwords"] = list(said["hotwords"])
    return body, said


class TranscriptStream:
    """Segments of one request, as an async iterator; `transcript` holds the whole after the last."""

    def __init__(self, calls: Calls, call: Call) -> None:
        self._calls = calls
        self._call = call
        self.transcript: Transcript | None = None

    async def __aiter__(self) -> AsyncGenerator[Segment]:
        segments: asyncio.Queue[Segment | None] = asyncio.Queue()
        self._call.on_segment = segments.put_nowait
        task = asyncio.create_task(self._calls.run(self._call), name="stream")
        task.add_done_callback(lambda _: segments.put_nowait(None))
        try:
            while (segment := await segments.get()) is not None:
                yield segment
            self.transcript = task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})
