"""How a job ends: its transcript or its failure is written down, told, and the audio erased.

Whatever is killed when: the record decides, it is set once, and all that follows from it may be
done twice without anybody noticing.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from bus_worker.claim_check import Deposit
from bus_worker.dead_letters import DeadLetter
from bus_worker.errors import BusWorkerError, JobNotFound
from bus_worker.job_record import JobRecord, Known
from bus_worker.jobs.means import Means
from bus_worker.jobs.telling import tell_caller
from bus_worker.messages import error_to_map

__all__ = ["after", "done", "failed"]

_log = structlog.get_logger(__name__)


async def done(
    means: Means, job_id: str, duration: float, kept: tuple[str, int], known: Known | None = None
) -> JobRecord:
    """Have a transcript that is kept be the job's, and all that comes of it; the record as it is then.

    Another one may have been first, or a cancellation: then that stands.

    Args:
        duration: seconds of audio.
        kept: where the transcript lies.
        known: the record as it was a moment ago.
    """
    answer, parts = kept

    def how(record: JobRecord) -> JobRecord:
        if record.final:
            return record
        return replace(
            record, status="done", finished_at=time.time(), progress=1.0, holder="",
            duration=duration, answer=answer, parts=parts, error=None,
        )  # fmt: skip

    record = await _changed(means, job_id, how, known)
    if record.answer != answer:
        await means.results.erase_transcript(job_id, answer, parts)
    await after(means, record)
    return record


async def failed(
    means: Means, job_id: str, error: BusWorkerError, message: bytes | None, failures: int = 0
) -> JobRecord:
    """Give a job up; it is kept with its reason and its audio, so that it may be handed in again.

    Args:
        message: the job's own; None where it lies on the bus, or only its ticket is known.
        failures: how often the work on the whole job has failed, this time included.
    """
    reason: dict[str, Any] = error_to_map(error)["error"]

    def how(record: JobRecord) -> JobRecord:
        if record.final:
            return record
        return replace(
            record, status="failed", finished_at=time.time(), holder="", error=reason,
            failures=max(record.failures, failures),
        )  # fmt: skip

    record = await _changed(means, job_id, how)
    await after(means, record, message)
    return record


async def _changed(
    means: Means, job_id: str, how: Callable[[JobRecord], JobRecord], known: Known | None = None
) -> JobRecord:
    try:
        return (await means.results.change(job_id, how, known)).record
    except JobNotFound:  # erased meanwhile, and so must be what was written since
        await means.results.erase_since(job_id)
        raise


async def after(means: Means, record: JobRecord, message: bytes | None = None) -> None:
    """What follows from a record that is final: told, and nothing left lying about.

    Once it is through, a record with windows says so: else each that still waits would do it again.

    Args:
        message: as for `failed`.
    """
    if record.told:
        return
    if record.status == "failed":
        await _bury(means, record, message)
    await means.results.tell_end(record)
    await tell_caller(means, record)
    await means.results.erase_work(record)
    if record.status != "failed" and record.claim is not None:
        deposit = Deposit(str(record.claim["id"]), int(record.claim["chunks"]))
        await means.checks.erase(deposit)
    if record.windows is not None or record.status != "done":  # a clip leaves nothing that waits
        with contextlib.suppress(JobNotFound):  # erased already
            await means.results.change(record.job_id, lambda was: replace(was, told=True))
    means.line.metrics.job_ended(record.status)
    _say(record)


async def _bury(means: Means, record: JobRecord, message: bytes | None) -> None:
    if message is None:
        message = await means.results.source(record.job_id)
    if message is None:  # another one has kept it, and erased what was needed for that
        return
    reason = record.error or {}
    await means.dead.keep(DeadLetter(record.job_id, time.time(), reason, record.to_map(), message))
    means.line.metrics.dead_letter()


def _say(record: JobRecord) -> None:
    ended = record.finished_at or time.time()
    _log.info(
        "job",
        job_id=record.job_id,
        request_id=record.request_id,
        status=record.status,
        code=(record.error or {}).get("code"),
        audio=record.duration,
        windows=record.windows,
        attempts=record.attempts,
        waited=round((record.started_at or ended) - record.created_at, 3),
        seconds=round(ended - (record.started_at or ended), 3),
    )
