"""One upload heard while its caller waits: as a request, and as a job where it is too much for one.

The job is only a means: it ends when its caller leaves, and is erased when its caller is answered.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from bus_worker.client import Job, LeftAudio, NoStream, TranscribeClient
from bus_worker.errors import AudioTooLong, BusWorkerError, ModelNotFound, TooLarge
from bus_worker.messages import Segment, Transcript
from gateway.uploads import too_large

__all__ = ["Hearing"]

_log = logging.getLogger(__name__)


class Hearing:
    """Heard as a whole by `whole`, or segment by segment; `transcript` is there after the last of them."""

    def __init__(self, request: Request, audio: LeftAudio, asked: Mapping[str, Any]) -> None:
        """Args: what is asked is as for `client.transcribe`."""
        self._client: TranscribeClient = request.app.state.client
        self._exits = request.state.exits
        self._most: int = request.app.state.settings.max_file_size
        self._audio = audio
        self._asked = asked
        self.transcript: Transcript | None = None

    async def whole(self) -> Transcript:
        """The transcript.

        Raises:
            BusWorkerError: as `client.transcribe`, or why the job failed.
        """
        try:
            return await self._client.transcribe(self._clip(), **self._asked)
        except (AudioTooLong, TooLarge) as exc:
            job = await self._job(exc)
        return await job.result()

    async def __aiter__(self) -> AsyncGenerator[Segment]:
        try:
            stream = self._client.stream(self._clip(), **self._asked)
            async with aclosing(aiter(stream)) as segments:
                async for segment in segments:
                    yield segment
        except (AudioTooLong, TooLarge) as exc:
            job = await self._job(exc)
        else:
            self.transcript = stream.transcript
            return
        async with aclosing(job.segments()) as segments:
            async for segment in segments:
                yield segment
        self.transcript = await job.transcript()

    def _clip(self) -> LeftAudio:
        """The audio, if a request may have as much."""
        if self._audio.size > self._most:
            raise too_large(self._most)
        return self._audio

    async def _job(self, why: BusWorkerError) -> Job:
        """The same audio as a job; where there is no queue for it, `why` it is no request."""
        work = self._client.submit(self._audio, priority="high", **self._asked)
        submitting = asyncio.create_task(work, name="submit")
        self._exits.push_async_callback(_forget, submitting)
        try:
            return await asyncio.shield(
                submitting
            )  # to its end, or nobody would know what to erase
        except (ModelNotFound, NoStream) as exc:
            raise why from exc


async def _forget(submitting: asyncio.Task[Job]) -> None:
    """Stop the job, if there is one still, and erase it."""
    await asyncio.wait({submitting})
    if submitting.exception() is not None:  # its caller was told
        return
    job = submitting.result()
    try:
        await job.erase()
    except BusWorkerError as exc:
        _log.warning("job %s is not erased, age will do it: %s", job.id, exc.message)
