"""POST /transcribe: audio in, the transcript as it came over the bus out."""

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import Field, Json, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bus_worker.client import TranscribeClient, TranscriptStream
from bus_worker.errors import BadRequest, BusWorkerError
from bus_worker.messages import Transcript, segment_to_map
from bus_worker.requests import Options, refusal
from gateway.errors import envelope
from gateway.hangup import until_left
from gateway.sse import event, event_stream
from gateway.uploads import Upload, receive

__all__ = ["Fields", "confidence", "read_fields", "reply", "transcribe"]


class Fields(Options):
    """What may stand beside the audio, in the form or in the address."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=100)] | None = None
    """Which model is to hear it; the server's default when not given."""
    stream: bool = False
    """`true`: server-sent events, a segment each as it is decoded, then the transcript."""
    cache: bool = True
    """`false`: heard anew even where the answer is known."""
    stages: Json[dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """Options of stages that allow them per request, as JSON: {stage: {option: value}}."""

    def asked(self) -> dict[str, Any]:
        """As `client.transcribe` takes them."""
        return self.model_dump(exclude={"stream"})


async def transcribe(request: Request) -> Response:
    """Transcribe one upload."""
    client: TranscribeClient = request.app.state.client
    upload = await receive(request, client, limit=request.app.state.settings.max_file_size)
    fields = read_fields(upload.fields)
    asked = {
        **fields.asked(),
        "request_id": request.state.request_id,
        "format": _hint(upload),
    }
    if fields.stream or "text/event-stream" in request.headers.get("accept", ""):
        source = _events(client.stream(upload.audio, **asked))
        return await event_stream(request, source, lambda error: _error(request, error))
    transcript = await until_left(request, client.transcribe(upload.audio, **asked))
    return JSONResponse(reply(transcript))


async def _events(stream: TranscriptStream) -> AsyncGenerator[bytes]:
    async with aclosing(aiter(stream)) as segments:
        async for segment in segments:
            yield event(segment_to_map(segment), "segment")
    if stream.transcript is not None:
        yield event(reply(stream.transcript), "transcript")


def _error(request: Request, error: BusWorkerError) -> bytes:
    return event(envelope(request.url.path, error, request.state.request_id), "error")


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


def read_fields(given: Mapping[str, tuple[str, ...]]) -> Fields:
    """The fields as what they mean; an empty one counts as not given.

    Raises:
        BadRequest: unknown, ill-typed, or twice there; the message names each.
    """
    values: dict[str, Any] = {}
    for name, texts in given.items():
        filled = [text for text in texts if text]
        if name == "hotwords":
            parts = (part.strip() for text in filled for part in text.split(","))
            values[name] = [part for part in parts if part]
        elif len(filled) > 1:
            raise BadRequest(f"'{name[:100]}' came {len(filled)} times", field=name[:100])
        elif filled or name not in Fields.model_fields:
            values[name] = "".join(filled)
    try:
        return Fields.model_validate(values, strict=False)
    except ValidationError as exc:
        where = exc.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
        raise BadRequest(*refusal(exc), field=str(where[0])[:100] if where else None) from exc


def _hint(upload: Upload) -> str | None:
    """What its sender says the audio is: a media type, else the name's ending."""
    if upload.content_type and upload.content_type.startswith(("audio/", "video/")):
        return upload.content_type[:100]
    return (upload.filename or "").rpartition(".")[2][:100] or None
