"""One window of a long recording heard, its result written once; whoever writes the last one joins them."""

import asyncio
import time
from dataclasses import replace

import structlog

from bus_worker.errors import BadRequest, BusWorkerError, Failed, JobNotFound
from bus_worker.job_record import JobRecord, Trouble
from bus_worker.jobs import ending
from bus_worker.jobs.attempt import Attempt
from bus_worker.jobs.cutting import from_pcm
from bus_worker.jobs.joining import WindowResult, join
from bus_worker.jobs.judging import MAX_DEATHS, again_after, is_failure
from bus_worker.jobs.means import Means
from bus_worker.jobs.noting import noted
from bus_worker.messages import Timings, Transcript
from bus_worker.plugin import SAMPLE_RATE
from bus_worker.requests import WindowRequest, read_window

__all__ = ["finish_if_complete", "hear", "take_window", "window_done"]

_log = structlog.get_logger(__name__)

BYTES = 2
"""Of a sample on the wire."""
READ_AT_ONCE = 8
"""Windows' results that are read side by side."""


async def take_window(means: Means, attempt: Attempt) -> None:
    """Hear a window and count it, if its job still wants it."""
    held = attempt.held
    try:
        window = read_window(held.data)
    except BadRequest as exc:
        _log.warning("no_window", why=exc.message)
        await held.buried()
        return
    known = await means.results.known(attempt.job_id)
    if known is None or known.record.erased:
        await _drop(means, attempt)
        return
    if known.record.final:  # and whoever ended it may have died of it
        await ending.after(means, known.record)
        await held.done()
        return
    if known.record.windows is not None and window.number >= known.record.windows:
        _log.warning("no_window", why=f"the recording has {known.record.windows}")
        await held.buried()
        return
    if known.record.is_done(window.number):
        await finish_if_complete(means, known.record)
        await held.done()
        return
    trouble = await _begin(means, attempt, window)
    if trouble.starts > MAX_DEATHS:
        error = Failed(f"{MAX_DEATHS} workers died at window {window.number}")
        await ending.failed(means, attempt.job_id, error, None)
        await held.buried()
        return
    try:
        result = await hear(means, attempt, window)
        await window_done(means, known.record, window.number, result)
    except BusWorkerError as error:
        await _again(means, attempt, window, trouble, error)
    except Exception:  # noqa: BLE001 - a mistake of ours: tried again as any failure is
        _log.exception("window_broke")
        await _again(means, attempt, window, trouble, Failed())
    else:
        await held.done()


async def _drop(means: Means, attempt: Attempt) -> None:
    """Be done with a window of a job that was erased."""
    if attempt.held.delivered > 1:  # who had it before may have noted what it cost
        await means.results.erase_since(attempt.job_id)
    await attempt.held.done()


async def _begin(means: Means, attempt: Attempt, window: WindowRequest) -> Trouble:
    """Note that somebody begins with a window that was in hand before."""
    if attempt.held.delivered == 1:
        return Trouble()
    before = await means.results.trouble(attempt.job_id, window.number)
    trouble = replace(before, starts=before.starts + 1)
    await means.results.note_trouble(attempt.job_id, window.number, trouble)
    return trouble


async def _again(
    means: Means, attempt: Attempt, window: WindowRequest, trouble: Trouble, error: BusWorkerError
) -> None:
    """Give a window back for later, or give its job up."""
    trouble = Trouble(max(0, trouble.starts - 1), trouble.failures + is_failure(error))
    wait = again_after(error, trouble.failures)
    _log.warning(
        "window_failed", job_id=attempt.job_id, window=window.number, code=error.code,
        why=error.message, again_after=wait,
    )  # fmt: skip
    if wait is None:
        await ending.failed(means, attempt.job_id, error, None)
        await attempt.held.done()
        return
    if trouble.failures or attempt.held.delivered > 1:
        await means.results.note_trouble(attempt.job_id, window.number, trouble)
    await attempt.held.back(wait)


async def hear(means: Means, attempt: Attempt, window: WindowRequest) -> WindowResult:
    """What is said in a window.

    Raises:
        BusWorkerError: as the stages raise it, or why it was given up.
    """
    if len(window.pcm) % BYTES:
        raise BadRequest("'pcm': half a sample is left over")
    samples = from_pcm(window.pcm, window.scale)
    draft = attempt.draft(
        samples=samples, duration=len(samples) / SAMPLE_RATE, options=window.options
    )
    parent = attempt.traceparent
    with noted(means, "window", parent, window=window.number, request_id=window.request_id) as note:
        note.known["bytes"] = len(window.pcm)
        note.draft = draft
        answer, note.stages = await attempt.run(means.transcriber.hear(draft, window.stages))
        note.heard = answer
    return WindowResult(
        start=window.start,
        length=len(samples),
        text=answer.text,
        language=answer.language,
        language_probability=answer.language_probability,
        segments=answer.segments,
        warnings=answer.warnings,
    )


async def window_done(means: Means, record: JobRecord, number: int, result: WindowResult) -> None:
    """Keep what was heard, tell it, count it; the last one ends the job.

    In this order: told before it is counted, a window is never told behind the job's end.
    """
    results, job_id = means.results, record.job_id
    if not await results.keep_window(job_id, number, result.to_map()):
        kept = await results.window(job_id, number)  # another one was first: its words stand
        result = result if kept is None else WindowResult.from_map(kept)
    seconds = result.length / SAMPLE_RATE
    so_far = replace(record, progress=_progress(record, record.seconds_done + seconds))
    await results.tell(so_far, f"w{number}", window=number, segments=join([result]).segments)

    def count(was: JobRecord) -> JobRecord:
        if was.final or was.is_done(number):
            return was
        done = was.seconds_done + seconds
        return replace(
            was, done=_with_bit(was.done, number), windows_done=was.windows_done + 1,
            seconds_done=done, progress=_progress(was, done),
        )  # fmt: skip

    try:
        known = await results.change(job_id, count)
    except JobNotFound:  # erased while it was heard, and so must be what was written since
        await results.erase_since(job_id)
        raise
    if known.record.final:
        await results.erase_window(job_id, number)
    await finish_if_complete(means, known.record)


async def finish_if_complete(means: Means, record: JobRecord, message: bytes | None = None) -> None:
    """Join the windows of a job that has them all; done twice, it is done once.

    Args:
        message: as for `ending.failed`.
    """
    if record.final:
        await ending.after(means, record, message)
        return
    if record.windows is None or record.windows_done < record.windows:
        return
    results = await _all_windows(means, record)
    if results is None:  # erased: somebody else has ended it meanwhile
        return
    whole = join(results)
    seconds = time.time() - (record.started_at or record.created_at)
    transcript = Transcript(
        request_id=record.request_id,
        text=whole.text,
        language=whole.language,
        language_probability=whole.language_probability,
        duration=round(whole.duration, 3),
        segments=whole.segments,
        model=means.transcriber.model,
        timings=Timings(
            queue=round((record.started_at or record.created_at) - record.created_at, 3),
            transcribe=round(seconds, 3),
            total=round(time.time() - record.created_at, 3),
        ),
        real_time_factor=round(seconds / whole.duration, 4) if whole.duration else 0.0,
        worker_id=means.transcriber.worker_id,
        warnings=whole.warnings,
    )
    kept = await means.results.keep_transcript(record.job_id, transcript.to_map())
    await ending.done(means, record.job_id, transcript.duration, kept)


async def _all_windows(means: Means, record: JobRecord) -> list[WindowResult] | None:
    numbers = iter(range(record.windows or 0))
    found: dict[int, WindowResult | None] = {}

    async def read() -> None:
        for number in numbers:
            kept = await means.results.window(record.job_id, number)
            found[number] = None if kept is None else WindowResult.from_map(kept)

    await asyncio.gather(*(read() for _ in range(READ_AT_ONCE)))
    results = [found[number] for number in sorted(found)]
    whole = [result for result in results if result is not None]
    return whole if len(whole) == len(results) else None


def _progress(record: JobRecord, seconds: float) -> float:
    return round(min(1.0, seconds / record.duration), 4) if record.duration else 0.0


def _with_bit(bits: bytes, number: int) -> bytes:
    at, bit = divmod(number, 8)
    grown = bytearray(bits.ljust(at + 1, b"\0"))
    grown[at] |= 1 << bit
    return bytes(grown)
