"""POST /transcribe: audio in, the transcript as it came over the bus out."""

import math
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bus_worker.client import TranscribeClient, TranscriptStream
from bus_worker.errors import AudioTooLong, BusWorkerError, TooLarge
from bus_worker.messages import Transcript, segment_to_map
from gateway.errors import envelope
from gateway.fields import Fields, read_fields
from gateway.hangup import until_left
from gateway.sse import event, event_stream
from gateway.uploads import receive

__all__ = ["ClipFields", "confidence", "reply", "transcribe"]


class ClipFields(Fields):
    """What may stand beside a clip."""

    stream: bool = False
    """`true`: server-sent events, a segment each as it is decoded, then the transcript."""


async def transcribe(request: Request) -> Response:
    """Transcribe one upload."""
    client: TranscribeClient = request.app.state.client
    with _naming_jobs():
        upload = await receive(request, client, limit=request.app.state.settings.max_file_size)
    fields = read_fields(ClipFields, upload.fields)
    asked = {
        **fields.model_dump(exclude={"stream"}),
        "request_id": request.state.request_id,
        "traceparent": request.state.traceparent,
        "format": upload.hint,
    }
    if fields.stream or "text/event-stream" in request.headers.get("accept", ""):
        source = _events(client.stream(upload.audio, **asked))
        return await event_stream(request, source, lambda error: _error(request, error))
    with _naming_jobs():
        transcript = await until_left(request, client.transcribe(upload.audio, **asked))
    return JSONResponse(reply(transcript))


@contextmanager
def _naming_jobs() -> Iterator[None]:
    """What is too much for a request is refused with the address that takes more."""
    try:
        yield
    except (AudioTooLong, TooLarge) as exc:
        raise type(exc)(f"{exc.message}; POST /jobs takes more", **exc.details) from exc


async def _events(stream: TranscriptStream) -> AsyncGenerator[bytes]:
    with _naming_jobs():
        async with aclosing(aiter(stream)) as segments:
            async for segment in segments:
                yield event(segment_to_map(segment), "segment")
    if stream.transcript is not None:
        yield event(reply(stream.transcript), "transcript")


def _error(request: Request, error: BusWorkerError) -> bytes:
    return event(envelope(error, request.state.request_id), "error")


def reply(transcript: Transcript) -> dict[str, Any]:
    """The answer: what came over the bus, and one confidence for the whole."""
    return {**transcript.to_map(), "confidence": confidence(transcript)}


def confidence(transcript: Transcript) -> float | None:
    """How sure the model is of the whole, 0 to 1: the mean over its seconds; None where nothing was heard."""
    seconds = [max(0.01, segment.end - segment.start) for segment in transcript.segments]
    if not seconds:
        return None
    pairs = zip(transcript.segments, seconds, strict=True)
    mean = sum(segment.confidence * took for segment, took in pairs) / sum(seconds)
    return round(min(1.0, math.exp(mean)), 3)
