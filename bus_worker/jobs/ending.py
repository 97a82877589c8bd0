"""How a job ends: its transcript or its failure is written down, told, and the audio erased.

Whatever is killed when: the record decides, it is set once, and all that follows from it may be
done twice without anybody noticing.
"""

import time
from dataclasses import replace
from typing import Any

import structlog

from bus_worker.claim_check import Deposit
from bus_worker.dead_letters import DeadLetter
from bus_worker.errors import BusWorkerError
from bus_worker.job_record import JobRecord
from bus_worker.jobs.means import Means
from bus_worker.jobs.telling import tell_caller
from bus_worker.messages import Transcript, error_to_map

__all__ = ["after", "done", "failed"]

_log = structlog.get_logger(__name__)


async def done(means: Means, job_id: str, transcript: Transcript) -> JobRecord:
    """Write a transcript down, and all that comes of it; the record as it is then.

    Another one may have been first, or a cancellation: then that stands.
    """
    answer, parts = await means.results.keep_transcript(job_id, transcript.to_map())

    def how(record: JobRecord) -> JobRecord:
        if record.final:
            return record
        return replace(
            record, status="done", finished_at=time.time(), progress=1.0, holder="",
            duration=transcript.duration, answer=answer, parts=parts, error=None,
        )  # fmt: skip

    record = (await means.results.change(job_id, how)).record
    await after(means, record)
    return record


async def failed(
    means: Means, job_id: str, error: BusWorkerError, message: bytes | None
) -> JobRecord:
    """Give a job up; it is kept with its reason and its audio, so that it may be handed in again.

    Args:
        message: the job's own; None where it lies on the bus, or only its ticket is known.
    """
    reason: dict[str, Any] = error_to_map(error)["error"]

    def how(record: JobRecord) -> JobRecord:
        if record.final:
            return record
        return replace(record, status="failed", finished_at=time.time(), holder="", error=reason)

    record = (await means.results.change(job_id, how)).record
    if record.status == "failed":
        message = message or await means.results.source(job_id)
        await means.dead.keep(
            DeadLetter(job_id, time.time(), reason, record.to_map(), message or b"")
        )
        means.line.metrics.dead_letter()
    await after(means, record)
    return record


async def after(means: Means, record: JobRecord) -> None:
    """What follows from a record that is final: told, and nothing left lying about."""
    await means.results.tell_end(record)
    await tell_caller(means, record)
    await means.results.erase_work(record)
    if record.status != "failed" and record.claim is not None:
        deposit = Deposit(str(record.claim["id"]), int(record.claim["chunks"]))
        await means.checks.erase(deposit)
    means.line.metrics.job_ended(record.status)
    _say(record)


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
