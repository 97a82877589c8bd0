"""A job's course in a worker's hand: begun, heard in one piece or opened, and ended one way or another."""

import asyncio
import time
from dataclasses import replace

import structlog

from bus_worker import subjects
from bus_worker.errors import AudioTooLong, BadRequest, BusWorkerError, Failed, JobNotFound
from bus_worker.job_record import JobRecord, Known
from bus_worker.jobs import ending
from bus_worker.jobs.attempt import Attempt
from bus_worker.jobs.hearing import finish_if_complete
from bus_worker.jobs.judging import MAX_DEATHS, again_after, is_failure
from bus_worker.jobs.means import Means
from bus_worker.jobs.noting import Note, noted
from bus_worker.jobs.opening import open_recording
from bus_worker.jobs.telling import tell_caller
from bus_worker.messages import Ticket
from bus_worker.pulls import Held
from bus_worker.requests import JobRequest, read_ends, read_job
from bus_worker.webhook_rules import check_url

__all__ = ["id_of", "take_job"]

_log = structlog.get_logger(__name__)


def id_of(held: Held) -> str:
    """The id of the job that a message belongs to: its sender's, else its place in the queue."""
    said = held.header(subjects.HEADER_JOB_ID) or held.header("Nats-Msg-Id") or ""
    try:
        return subjects.job_id_of(said)
    except BadRequest:
        return f"{held.queue.stream}-{held.sequence}"


async def take_job(means: Means, attempt: Attempt) -> None:
    """Do a job, unless it is done, cancelled or another's.

    Raises:
        JobNotFound: it was erased.
    """
    held = attempt.held
    known = await _begin(means, attempt)
    record = known.record
    if record.sequence != held.sequence or record.final or record.windows is not None:
        if record.sequence == held.sequence:  # somebody died just before the end
            await finish_if_complete(means, record, held.data)
        elif record.final and not record.sequence:  # cancelled before anybody began
            await tell_caller(means, record)
        await held.done()
        return
    if record.deaths >= MAX_DEATHS:
        await _give_up(means, attempt, Failed(f"{MAX_DEATHS} workers died at it"))
        return
    try:
        await _see_through(means, attempt, known)
    except JobNotFound:  # erased meanwhile, and so must be what was written since
        await means.results.erase_since(record.job_id)
        raise


async def _see_through(means: Means, attempt: Attempt, known: Known) -> None:
    """Do the work, and what its end asks for; that somebody began is told beside it."""
    record = known.record
    telling = asyncio.create_task(means.results.tell(record, f"begun-{record.attempts}"))
    waited = time.time() - record.created_at if record.attempts == 1 else None
    try:
        with noted(
            means, "job", attempt.traceparent, waited=waited, request_id=record.request_id
        ) as note:
            await _work(means, attempt, known, note)
    except BusWorkerError as error:
        await _again(means, attempt, record, error)
    except Exception:  # noqa: BLE001 - a full disk, a mistake of ours: tried again as any failure is
        _log.exception("job_broke")
        await _again(means, attempt, record, Failed())
    else:
        await attempt.held.done()
    finally:
        await asyncio.wait({telling})
        if not telling.cancelled() and (why := telling.exception()) is not None:
            _log.warning("event_not_told", job_id=record.job_id, why=str(why))


async def _begin(means: Means, attempt: Attempt) -> Known:
    """Note in the record that the job is ours; make one where its sender made none.

    Raises:
        JobNotFound: it was erased; another of its id, handed in later, is another job.
    """
    held, worker_id = attempt.held, means.transcriber.worker_id

    def mine(was: JobRecord) -> JobRecord:
        another = was.sequence not in {0, held.sequence}
        if was.final or was.windows is not None or another or was.holder == attempt.word:
            return was
        return replace(
            was, status="running", holder=attempt.word, worker_id=worker_id,
            sequence=held.sequence, attempts=was.attempts + 1,
            deaths=was.deaths + bool(was.holder), started_at=was.started_at or time.time(),
        )  # fmt: skip

    known = await means.results.known(attempt.job_id)
    erased = known if known and known.record.erased else None
    if known is None or (erased and erased.record.sequence < held.sequence):
        fresh = JobRecord(
            job_id=attempt.job_id, status="queued", model=means.transcriber.model.name,
            priority=held.queue.consumer.rpartition("-")[2], created_at=held.at,
            request_id=held.header(subjects.HEADER_REQUEST_ID) or attempt.job_id,
            traceparent=attempt.traceparent,
        )  # fmt: skip
        known = await means.results.create(mine(fresh), erased)
    return await means.results.change(attempt.job_id, mine, known)


async def _work(means: Means, attempt: Attempt, known: Known, note: Note) -> None:
    known = await _kept(means, known, attempt.held.data)
    request = read_job(attempt.held.data)
    for name, check in CHECKS.items():
        check(means, getattr(request, name))
    note.known["bytes"] = request.claim.size if request.claim else len(request.audio)
    if request.claim is None or request.claim.size <= means.transcriber.max_bytes:
        try:
            await _in_one_piece(means, attempt, known, request, note)
        except AudioTooLong:
            await attempt.settled()
        else:
            return
    await open_recording(means, attempt, known.record, request)


async def _kept(means: Means, known: Known, message: bytes) -> Known:
    """What the message says of the end in the record: the windows' hearers never see the message.

    What is good of it is noted first, so that who sent nonsense beside it is told so.
    """
    ends = read_ends(message)
    for name, check in CHECKS.items():
        try:
            check(means, ends[name])
        except BadRequest:
            ends[name] = None
    return await means.results.change(known.record.job_id, lambda was: replace(was, **ends), known)


def _check_reply_to(means: Means, subject: str | None) -> None:
    if subject is not None and not means.names.may_tell(subject):
        raise BadRequest(
            f"'reply_to': must lie under _INBOX. or {means.names.prefix}.results., without wildcards"
        )


def _check_webhook(means: Means, url: str | None) -> None:
    if url is not None:
        check_url(url, means.rules)


CHECKS = {"reply_to": _check_reply_to, "webhook": _check_webhook}
"""What a caller names to be told, and what refuses it."""


async def _in_one_piece(
    means: Means, attempt: Attempt, known: Known, request: JobRequest, note: Note
) -> None:
    """A clip, heard as a request is.

    Raises:
        AudioTooLong: it is none.
    """
    record, received = known.record, time.monotonic()
    if request.claim is not None:
        audio = await attempt.run(_fetched(means, request.claim.ticket()))
        request = request.model_copy(update={"audio": audio, "claim": None})
    means.transcriber.check_size(len(request.audio))
    draft = attempt.draft(audio=request.audio, format=request.format, options=request.options)
    note.draft = draft
    transcript = await attempt.run(
        means.transcriber.run(draft, request, request_id=record.request_id, received=received)
    )
    note.heard, note.stages = transcript, transcript.timings.stages
    _, kept = await asyncio.gather(
        means.results.tell(
            replace(record, progress=1.0), "w0", window=0, segments=transcript.segments
        ),
        means.results.keep_transcript(record.job_id, transcript.to_map()),
    )
    await ending.done(means, record.job_id, transcript.duration, kept, known)


async def _fetched(means: Means, ticket: Ticket) -> bytes:
    with means.line.metrics.fetching():
        return await means.checks.fetch(ticket)


async def _again(means: Means, attempt: Attempt, record: JobRecord, error: BusWorkerError) -> None:
    """Give the job back for later, or up; one that was cancelled meanwhile has ended."""
    failures = record.failures + is_failure(error)
    wait = again_after(error, failures)
    _log.warning(
        "job_failed", job_id=record.job_id, code=error.code, why=error.message, again_after=wait
    )
    if wait is None:
        await _give_up(means, attempt, error, failures)
        return

    def release(was: JobRecord) -> JobRecord:
        if was.final or was.holder != attempt.word:
            return was
        return replace(was, status="queued", holder="", failures=failures)

    known = await means.results.change(record.job_id, release)
    if known.record.final:
        await attempt.held.done()
        return
    await attempt.held.back(wait)


async def _give_up(
    means: Means, attempt: Attempt, error: BusWorkerError, failures: int = 0
) -> None:
    await ending.failed(means, attempt.job_id, error, attempt.held.data, failures)
    await attempt.held.buried()
