"""The addresses under /v1."""

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus_worker.client import TranscribeClient
from bus_worker.settings import Settings
from gateway.hangup import until_left
from gateway.openai.errors import envelope
from gateway.openai.events import events
from gateway.openai.fields import Asked, read_transcription, read_translation
from gateway.openai.hearing import Hearing
from gateway.openai.models import find_model, list_models, model_on_the_bus
from gateway.openai.replies import MEDIA_TYPES, written
from gateway.sse import event, event_stream
from gateway.uploads import Upload, receive

__all__ = ["routes"]

WARNING = "X-Warning"
"""The header that tells of what was asked and not done, and of what the worker warns of."""
KEPT = 86_400.0
"""Seconds that audio lies on the bus at most, should this gateway be killed: nobody waits longer for a job."""
UNPRINTABLE = re.compile(r"[^ -~]")


async def _transcriptions(request: Request) -> Response:
    return await _hear(request, read_transcription)


async def _translations(request: Request) -> Response:
    return await _hear(request, read_translation)


async def _models(request: Request) -> Response:
    return _json(await until_left(request, list_models(request.app.state.client)))


async def _model(request: Request) -> Response:
    state, name = request.app.state, request.path_params["model"]
    return _json(await until_left(request, find_model(state.client, state.settings, name)))


routes = [
    Route("/v1/audio/transcriptions", _transcriptions, methods=["POST"]),
    Route("/v1/audio/translations", _translations, methods=["POST"]),
    Route("/v1/models", _models),
    Route("/v1/models/{model:path}", _model),
]


async def _hear(
    request: Request, read: Callable[[Mapping[str, tuple[str, ...]]], Asked]
) -> Response:
    """Transcribe or translate one upload."""
    client: TranscribeClient = request.app.state.client
    settings: Settings = request.app.state.settings
    most = max(settings.max_file_size, settings.job_max_file_size)
    upload = await receive(request, client, limit=most, kept=KEPT)
    asked = read(upload.fields)
    hearing = Hearing(request, upload.audio, _question(request, upload, asked))
    if asked.stream:
        return await _stream(request, hearing, asked)
    transcript = await until_left(request, hearing.whole())
    return Response(
        written(transcript, asked),
        media_type=MEDIA_TYPES[asked.response_format],
        headers=_warnings(*asked.warnings, *transcript.warnings),
    )


async def _stream(request: Request, hearing: Hearing, asked: Asked) -> Response:
    """What is said as it is heard."""
    answer = await event_stream(request, _frames(hearing), lambda error: event(envelope(error)))
    answer.headers.update(_warnings(*asked.warnings))
    return answer


async def _frames(hearing: Hearing) -> AsyncGenerator[bytes]:
    async with aclosing(events(hearing)) as told:
        async for one in told:
            yield event(one.model_dump())


def _question(request: Request, upload: Upload, asked: Asked) -> dict[str, Any]:
    """What is asked of the audio, as the client takes it."""
    return {
        "format": upload.hint,
        "model": model_on_the_bus(asked.model, request.app.state.settings),
        "request_id": request.state.request_id,
        "traceparent": request.state.traceparent,
        "stages": asked.stages,
        **asked.options,
    }


def _warnings(*sentences: str) -> dict[str, str]:
    return {WARNING: UNPRINTABLE.sub("?", "; ".join(sentences))} if sentences else {}


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(), media_type="application/json")
