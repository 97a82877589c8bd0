"""A long recording opened: read as a stream, cut at pauses, its windows put into their queue.

The first speech is heard right here, for the language; every other window is any worker's. Whoever
opens it again after a death cuts it at the same places, and what is done stays done.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import replace
from typing import BinaryIO, cast

from bus_worker import subjects
from bus_worker.audio import FORMATS
from bus_worker.errors import TooLarge
from bus_worker.job_record import JobRecord
from bus_worker.jobs.attempt import Attempt
from bus_worker.jobs.cutting import EARLIEST, Window, read_windows, to_pcm
from bus_worker.jobs.hearing import finish_if_complete, hear, window_done
from bus_worker.jobs.means import Means
from bus_worker.messages import pack
from bus_worker.plugin import SAMPLE_RATE
from bus_worker.requests import MAX_WINDOWS, JobRequest, WindowRequest
from bus_worker.subjects import Priority

__all__ = ["open_recording"]

BESIDES = 70_000
"""Bytes of a window's message besides its samples."""
BYTES_A_SECOND = 2 * SAMPLE_RATE
SURE_AFTER = 3
"""Windows with speech after which the language is believed though the model is not sure of it."""
NOT_SURE = "language_uncertain"


async def open_recording(
    means: Means, attempt: Attempt, record: JobRecord, request: JobRequest
) -> None:
    """Cut a recording and hand its windows out; they end the job.

    Raises:
        TooLarge, AudioTooLong: more than a job may have.
        BusWorkerError: the audio cannot be read, or the bus does not take it now.
    """
    size = request.claim.size if request.claim else len(request.audio)
    if size > (most := means.limits.max_bytes):
        raise TooLarge(
            f"the audio has {size} bytes; the limit for a job is {most} (JOB_MAX_FILE_SIZE)",
            size=size, maximum=most,
        )  # fmt: skip
    attempt.opening = True
    with tempfile.TemporaryFile(prefix="bus-worker-") as temporary:  # in TMPDIR
        file = cast(BinaryIO, temporary)
        await attempt.run(_bring(means, request, file))
        # Its message is done with before the job is: keep it for a dead letter.
        await means.results.keep_source(record.job_id, attempt.held.data)
        opener = _Opener(means, attempt, record, request)
        count, length = await opener.hand_out(file)
    whole = await means.results.change(
        record.job_id,
        lambda was: was if was.final else replace(
            was, windows=count, duration=round(length / SAMPLE_RATE, 3), holder="",
            progress=round(min(1.0, was.seconds_done * SAMPLE_RATE / length), 4),
        ),
    )  # fmt: skip
    await finish_if_complete(means, whole.record)


async def _bring(means: Means, request: JobRequest, file: BinaryIO) -> None:
    if request.claim is not None:
        with means.line.metrics.fetching():
            await means.checks.fetch_into(request.claim.ticket(), file)
    else:
        await asyncio.to_thread(file.write, request.audio)
    await asyncio.to_thread(file.flush)
    file.seek(0)


class _Opener:
    """Hands one recording's windows out."""

    def __init__(
        self, means: Means, attempt: Attempt, record: JobRecord, request: JobRequest
    ) -> None:
        self._means = means
        self._attempt = attempt
        self._record = record
        self._request = request
        self._options = request.options
        self._heard = 0
        if record.language is not None:
            self._options = self._options.model_copy(update={"language": record.language})

    async def hand_out(self, file: BinaryIO) -> tuple[int, int]:
        """Every window that is not done yet; how many there are, and of how many samples."""
        count = length = 0
        async with aclosing(self._windows(file)) as windows:
            async for window in windows:
                self._attempt.check()
                count, length = window.number + 1, window.start + len(window.samples)
                if self._record.is_done(window.number):
                    continue
                asked = await asyncio.to_thread(self._asked, window)
                if self._options.language is None:
                    await self._hear(asked)
                else:
                    await self._put(asked)
        return count, length

    async def _windows(self, file: BinaryIO) -> AsyncGenerator[Window]:
        """The recording's windows, the next one cut while the last is on its way."""
        means, attempt = self._means, self._attempt
        fits = (means.checks.largest - BESIDES) / BYTES_A_SECOND
        longest = max(1.0, min(means.limits.longest_clip, fits))
        windows = read_windows(
            file,
            longest=longest,
            max_duration=min(means.limits.max_duration, (MAX_WINDOWS - 1) * EARLIEST * longest),
            formats=means.limits.formats or FORMATS,
        )
        draft = attempt.draft(limit=None)

        def cut() -> asyncio.Task[Window | None]:
            following = means.transcriber.pipeline.in_thread(draft, _next, windows)
            return asyncio.create_task(following, name="cut")

        coming = cut()
        try:
            while (window := await attempt.run(_of(coming))) is not None:
                coming = cut()
                yield window
        finally:
            coming.cancel()
            await asyncio.wait({coming})
            await draft.settled()  # a generator at work cannot be closed
            await asyncio.to_thread(windows.close)

    def _asked(self, window: Window) -> WindowRequest:
        pcm, scale = to_pcm(window.samples)
        return WindowRequest(
            job_id=self._record.job_id,
            number=window.number,
            start=window.start,
            pcm=pcm,
            scale=scale,
            request_id=self._record.request_id,
            options=self._options,
            stages=self._request.stages,
        )

    async def _hear(self, window: WindowRequest) -> None:
        """Hear a window here, and learn the language from it."""
        result = await hear(self._means, self._attempt, window)
        await window_done(self._means, self._record, window.number, result)
        if result.language is None:
            return
        self._heard += 1
        if NOT_SURE in result.warnings and self._heard < SURE_AFTER:
            return
        self._options = self._options.model_copy(update={"language": result.language})
        await self._means.results.change(
            self._record.job_id, lambda was: replace(was, language=result.language)
        )

    async def _put(self, window: WindowRequest) -> None:
        names, record = self._means.names, self._record
        priority: Priority = "high" if record.priority == "high" else "low"
        subject = names.windows(self._means.transcriber.model.name, priority)
        headers = {
            subjects.HEADER_CONTENT_TYPE: subjects.CONTENT_TYPE,
            subjects.HEADER_JOB_ID: record.job_id,
            # The sequence tells it from an erased job's of the same id.
            "Nats-Msg-Id": f"{record.job_id}.{record.sequence}.{window.number}",
        }
        if self._attempt.traceparent is not None:
            headers[subjects.HEADER_TRACEPARENT] = self._attempt.traceparent
        payload = pack(window.model_dump(exclude_defaults=True) | {"number": window.number})
        await self._means.results.js.write(names.windows_stream, subject, payload, headers)


async def _of(task: "asyncio.Task[Window | None]") -> Window | None:
    return await asyncio.shield(task)


def _next(windows: Generator[Window]) -> Window | None:
    return next(windows, None)
