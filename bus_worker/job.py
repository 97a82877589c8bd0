"""A job as its submitter sees it: handed in, followed, its result fetched, cancelled, erased.

Nothing here waits for a worker: what a job is told and what is known of it lies on the bus.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from nats.aio.client import Client

from bus_worker import subjects
from bus_worker.bus import bus_errors
from bus_worker.claim_check import KEPT_FOR_JOBS, ClaimCheck, Deposit
from bus_worker.dead_letters import DeadLetters
from bus_worker.errors import (
    BadRequest,
    Busy,
    Cancelled,
    ClaimExpired,
    DeadlineExceeded,
    IdempotencyConflict,
    JobNotFound,
    ModelNotFound,
    TooLarge,
)
from bus_worker.jetstream import JetStream, NoStream, Written
from bus_worker.job_record import JobEvent, JobRecord, JobStatus
from bus_worker.messages import Segment, Ticket, Transcript, map_to_error, pack, unpack
from bus_worker.parcel import LeftAudio, leave
from bus_worker.results import Results
from bus_worker.subjects import Priority, Subjects, model_token

__all__ = ["Asked", "Job", "Jobs"]

HANDED_IN_LOOKS, HANDED_IN_PAUSE = 20, 0.05
"""How often, and after how many seconds each, one looks what somebody else has just handed in."""
KEYED = 32
"""Hexadecimal digits of the id that an idempotency key stands for."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job is to be: a request's body without its audio, and what is said beside it."""

    body: Mapping[str, Any]
    model: str | None
    """None: the only one that there are queues for."""
    priority: Priority
    request_id: str
    key: str | None = None
    """The caller's idempotency key."""
    traceparent: str | None = None

    def job_id(self) -> str:
        """A new id, or the one that the key stands for."""
        if self.key is None:
            return secrets.token_hex(16)
        return hashlib.sha256(self.key.encode()).hexdigest()[:KEYED]

    def fingerprint(self, sha256: str) -> str:
        """What is asked, with the audio's hash, as one hash."""
        asked = sorted((key, repr(value)) for key, value in self.body.items())
        return hashlib.sha256(repr((self.model, asked, sha256)).encode()).hexdigest()


class Jobs:
    """Hands jobs in, and finds them again, over a connection that somebody else keeps."""

    def __init__(self, nc: Client, names: Subjects, checks: ClaimCheck) -> None:
        self.nc = nc
        self.names = names
        self.checks = checks
        self.results = Results(nc, names)
        self.dead = DeadLetters(nc, names)
        self._js = JetStream(nc)
        self._models: set[str] = set()

    def find(self, job_id: str) -> "Job":
        """A job by its id; whether it exists is seen when it is asked for something.

        Raises:
            BadRequest: it is no job's id.
        """
        return Job(self, subjects.job_id_of(job_id))

    async def submit(self, asked: Asked, audio: bytes | AsyncIterable[bytes] | LeftAudio) -> "Job":
        """Hand a job in: once this returns it will be done, whatever is killed meanwhile.

        Raises:
            IdempotencyConflict: the key was used for something else.
            ModelNotFound: nobody was ever set up to serve this model; a job would wait for ever.
            Busy: the queue is full.
            TooLarge, Unavailable: the bus does not take it.
        """
        asked = replace(asked, model=await self._served(asked.model))
        deposit = Deposit()
        try:
            left = audio
            if not isinstance(left, LeftAudio):
                left = await leave(left, self.checks, deposit, kept=KEPT_FOR_JOBS)
            job = await self._hand_in(asked, left)
        finally:
            await self.checks.erase(deposit)
        return job

    async def resubmit(self, job_id: str) -> "Job":
        """Hand a job that failed in again, as it was, under a new id; its dead letter is gone then.

        Raises:
            JobNotFound: it has no dead letter, or not any more.
            ClaimExpired: its message was not kept.
            BusWorkerError: as `submit`.
        """
        letter = await self.dead.get(job_id)
        if not letter.message:
            raise ClaimExpired("the job's message was not kept; hand its audio in anew")
        record, body = JobRecord.from_map(letter.record), unpack(letter.message)
        claim, audio = body.pop("claim", None), body.pop("audio", None)
        asked = Asked(body, record.model, _priority(record.priority), record.request_id)
        left = LeftAudio(audio, Ticket(**claim) if claim else None)
        job = await self.submit(asked, left)
        with suppress(JobNotFound):  # from now on it is the new job's to erase
            await self.results.change(job_id, lambda was: replace(was, claim=None))
        await self.dead.forget(job_id)
        return job

    async def _served(self, model: str | None) -> str:
        """The model that a job is for, if there is a queue for it.

        Raises:
            BadRequest: none is named, and there are several.
            ModelNotFound, Unavailable: see `submit`.
        """
        if model is None or model_token(model) not in self._models:
            self._models = await self._queues()
        if model is not None:
            if model_token(model) in self._models:
                return model
            raise ModelNotFound(
                f"there is no queue of jobs for {model!r}; there is one for"
                f" {', '.join(sorted(self._models))} (`bus-worker setup` makes it)",
                models=sorted(self._models),
            )
        if len(self._models) != 1:
            raise BadRequest(
                f"'model': name one of {', '.join(sorted(self._models))}", field="model"
            )
        return next(iter(self._models))

    async def _queues(self) -> set[str]:
        try:
            said = await self._js.api(f"CONSUMER.NAMES.{self.names.jobs_stream}")
        except NoStream as exc:
            raise _no_jobs() from exc
        queues = [name.rpartition("-") for name in said.get("consumers") or ()]
        found = {model for model, _, last in queues if last in subjects.PRIORITIES}
        if not found:
            raise _no_jobs()
        return found

    async def _hand_in(self, asked: Asked, left: LeftAudio) -> "Job":
        assert asked.model is not None  # noqa: S101 - `submit` found one
        job_id = asked.job_id()
        sha256 = left.ticket.sha256 if left.ticket else await _sha256(left.here or b"")
        fingerprint = asked.fingerprint(sha256)
        known = None if asked.key is None else await self.results.known(job_id)
        if known is not None and not known.record.erased:
            return self._same(known.record, fingerprint)
        claim = asdict(left.ticket) if left.ticket else None
        message = pack({**asked.body, **({"claim": claim} if claim else {"audio": left.here})})
        if len(message) > self.checks.largest:
            raise TooLarge(f"what is asked beside the audio is too large: {len(message)} bytes")
        written = await self._queue(asked, job_id, message)
        if written.duplicate and asked.key is not None:
            other = await self._handed_in(job_id)
            if other is not None and (claim is None or other.claim != claim):
                return self._same(other, fingerprint)
            if other is None:  # erased, and the server still knows its message's name
                written = await self._queue(asked, job_id, message, f".{secrets.token_hex(4)}")
        left.deposit.hand_over()
        record = JobRecord(
            job_id=job_id, status="queued", model=asked.model, priority=asked.priority,
            request_id=asked.request_id, created_at=time.time(), claim=claim,
            reply_to=asked.body.get("reply_to"), webhook=asked.body.get("webhook"),
            fingerprint=fingerprint, traceparent=asked.traceparent, sequence=written.sequence,
        )  # fmt: skip
        # Else a worker was quicker, or a double of ours was.
        if await self.results.create(record, known) is None:
            known_now = await self.results.change(
                job_id,
                lambda was: was if was.fingerprint else replace(was, fingerprint=fingerprint),
            )
            return self._same(known_now.record, fingerprint)
        return Job(self, job_id)

    async def _handed_in(self, job_id: str) -> JobRecord | None:
        """The record that whoever handed this job in a moment ago is about to write."""
        record = None
        for _ in range(HANDED_IN_LOOKS):
            known = await self.results.known(job_id)
            record = None if known is None or known.record.erased else known.record
            if record is not None and record.fingerprint:
                break
            await asyncio.sleep(HANDED_IN_PAUSE)
        return record

    def _same(self, record: JobRecord, fingerprint: str) -> "Job":
        if record.fingerprint and record.fingerprint != fingerprint:
            raise IdempotencyConflict
        return Job(self, record.job_id)

    async def _queue(self, asked: Asked, job_id: str, message: bytes, again: str = "") -> Written:
        """Put a job's message into the queue, where it may be already."""
        headers = {
            subjects.HEADER_CONTENT_TYPE: subjects.CONTENT_TYPE,
            subjects.HEADER_JOB_ID: job_id,
            subjects.HEADER_REQUEST_ID: asked.request_id,
            **({subjects.HEADER_TRACEPARENT: asked.traceparent} if asked.traceparent else {}),
            "Nats-Msg-Id": f"{job_id}{again}",
        }
        assert asked.model is not None  # noqa: S101 - as above
        subject = self.names.jobs(asked.model, asked.priority)
        try:
            return await self._js.write(self.names.jobs_stream, subject, message, headers)
        except Busy as exc:
            raise Busy("the queue of jobs is full; try again in a while") from exc
        except NoStream as exc:
            raise _no_jobs() from exc


def _no_jobs() -> NoStream:
    return NoStream(
        "the bus keeps no jobs: enable jetstream on nats-server and run `bus-worker setup`"
    )


class Job:
    """One job, by its id; any process may hold one."""

    def __init__(self, jobs: Jobs, job_id: str) -> None:
        self._jobs = jobs
        self._results = jobs.results
        self.id = job_id

    async def status(self) -> JobStatus:
        """Where it stands now.

        Raises:
            JobNotFound: there is no such job any more.
            Unavailable: the bus did not answer.
        """
        return (await self._results.record(self.id)).shown()

    def events(self, after: int = 0) -> AsyncGenerator[JobEvent]:
        """What becomes of it, as it happens; ends with its last event.

        Args:
            after: the id of the last event that is known already.

        Raises:
            BadRequest: no event can have the id `after`.
            JobNotFound, Unavailable: as `status`.
        """
        return self._results.follow(self.id, after)

    async def segments(self) -> AsyncGenerator[Segment]:
        """Its text piece by piece, in order, as soon as a piece and all before it are ready.

        Raises:
            BusWorkerError: why it failed, or `Cancelled`.
        """
        held: dict[int, list[Segment]] = {}
        following = number = 0
        async with aclosing(self._results.follow(self.id)) as events:
            async for event in events:
                if event.window is not None:
                    held[event.window] = event.segments
                while following in held:
                    for segment in held.pop(following):
                        yield replace(segment, id=number)
                        number += 1
                    following += 1
                if event.status == "failed":
                    raise map_to_error(event.error or {})
                if event.status == "cancelled":
                    raise Cancelled("the job was cancelled")
        for segment in await self._behind(following, number):
            yield segment

    async def _behind(self, windows: int, number: int) -> list[Segment]:
        """The segments behind `number`, where not all windows were heard of: events go before transcripts do."""
        record = await self._results.record(self.id)
        if windows >= (record.windows or 1):
            return []
        return (await self.transcript()).segments[number:]

    async def result(self, timeout: float | None = None) -> Transcript:  # noqa: ASYNC109 - the caller's patience
        """Its transcript, waited for.

        Args:
            timeout: seconds; None: as long as it takes.

        Raises:
            DeadlineExceeded: not done in time; it goes on.
            Cancelled: it was cancelled.
            BusWorkerError: why it failed.
        """
        try:
            async with asyncio.timeout(timeout):
                record = await self._results.ended(self.id)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the job was not done in {timeout:g} s; it goes on, ask again"
            ) from None
        return await self._transcript(record)

    async def transcript(self) -> Transcript:
        """Its transcript, if it is done.

        Raises:
            Busy: it is not done yet.
            Cancelled: it was cancelled.
            BusWorkerError: why it failed.
        """
        return await self._transcript(await self._results.record(self.id))

    async def _transcript(self, record: JobRecord) -> Transcript:
        if record.status == "failed":
            raise record.failure()
        if record.status == "cancelled":
            raise Cancelled("the job was cancelled")
        if record.status != "done":
            raise Busy(f"the job is {record.status}; ask again when it is done")
        return Transcript.from_map(await self._results.transcript(record))

    async def cancel(self) -> JobStatus:
        """Stop it: queued, it never runs; running, it stops within one window; finished, it stays so.

        Raises:
            JobNotFound, Unavailable: as `status`.
        """
        known = await self._results.change(self.id, _cancelled)
        record = known.record
        if record.status == "cancelled":
            await self._results.tell_end(record)
            with bus_errors():
                hint = pack({"job_id": self.id})
                await self._jobs.nc.publish(self._jobs.names.cancel, hint)
            await self._erase_audio(record)
        return record.shown()

    async def erase(self) -> None:
        """Erase all of it: audio, text, status and events; a running one is cancelled first.

        Raises:
            JobNotFound, Unavailable: as `status`.
        """
        record = await self._results.record(self.id)
        if not record.final:
            await self.cancel()
            record = await self._results.record(self.id)
        await self._erase_audio(record)
        if record.status == "failed":
            with suppress(JobNotFound):
                await self._jobs.dead.drop(self.id)
        await self._results.erase(record)

    async def _erase_audio(self, record: JobRecord) -> None:
        if record.claim is not None:
            deposit = Deposit(str(record.claim["id"]), int(record.claim["chunks"]))
            await self._jobs.checks.erase(deposit)


def _priority(text: str) -> Priority:
    return "high" if text == "high" else "low"


def _cancelled(record: JobRecord) -> JobRecord:
    if record.final:
        return record
    return replace(record, status="cancelled", finished_at=time.time())


async def _sha256(audio: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, audio)).hexdigest()
