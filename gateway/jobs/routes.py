"""Jobs over HTTP: handed in, looked at, followed, cancelled, erased. The bus keeps them, not we."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bus_worker.client import (
    KEPT_FOR_JOBS,
    Job,
    JobEvent,
    JobStatus,
    Priority,
    TranscribeClient,
)
from bus_worker.errors import BadRequest
from bus_worker.settings import Settings
from bus_worker.webhook_rules import WebhookRules, check_url
from gateway.errors import envelope
from gateway.fields import Fields, read_fields
from gateway.sse import event, event_stream
from gateway.transcribe import reply
from gateway.uploads import receive

__all__ = ["JobFields", "routes"]

KEY = "Idempotency-Key"
KEY_FORM = re.compile(r"[!-~]{1,255}")
EVENT_ID = re.compile(r"\d{1,18}")
COME_BACK = b"retry: 1000\n\n"
"""The first that an asker for events is told: milliseconds after which to ask again when cut off."""


class JobFields(Fields):
    """What may stand beside a job's audio."""

    priority: Priority = "low"
    """`high` goes before `low`."""
    webhook: Annotated[str, Field(max_length=2000)] | None = None
    """An https address that is told of the end."""
    reply_to: Annotated[str, Field(max_length=200)] | None = None
    """A subject on the bus, under `_INBOX.` or `stt.results.`, that is told of the end."""


async def _submit(request: Request) -> Response:
    """Take a recording, and answer as soon as it is safe."""
    client: TranscribeClient = request.app.state.client
    key = _idempotency_key(request)
    settings: Settings = request.app.state.settings
    limit = settings.job_max_file_size
    upload = await receive(request, client, limit=limit, kept=KEPT_FOR_JOBS)
    fields = read_fields(JobFields, upload.fields)
    if fields.webhook is not None:
        rules = WebhookRules.read(settings.webhook_secret, settings.webhook_allow)
        check_url(fields.webhook, rules)
    # To its end also where the caller has left: half handed in, it could be done and not be found.
    job = await client.submit(
        upload.audio,
        idempotency_key=key,
        request_id=request.state.request_id,
        traceparent=request.state.traceparent,
        format=upload.hint,
        **fields.model_dump(),
    )
    return _told(await job.status(), 202, Location=f"/jobs/{job.id}")


async def _look(request: Request) -> Response:
    """Where a job stands; with its transcript, when it is done."""
    job = _job(request)
    status = await job.status()
    if status.status != "done":
        return _told(status)
    return JSONResponse({**status.to_map(), "result": reply(await job.transcript())})


async def _end(request: Request) -> Response:
    """Cancel what is not finished; erase what is."""
    job = _job(request)
    if (await job.status()).final:
        await job.erase()
        return Response(status_code=204)
    return _told(await job.cancel())


async def _events(request: Request) -> Response:
    """What becomes of a job, as it happens."""
    job, after = _job(request), _last_event(request)
    if after and await _heard_all(job, after):
        return Response(status_code=204)  # else a browser would come back for ever
    return await event_stream(
        request,
        _news(job, after),
        lambda error: event(envelope(error, request.state.request_id), "error"),
    )


routes = [
    Route("/jobs", _submit, methods=["POST"]),
    Route("/jobs/{job_id}", _look),
    Route("/jobs/{job_id}", _end, methods=["DELETE"]),
    Route("/jobs/{job_id}/events", _events),
]


def _job(request: Request) -> Job:
    client: TranscribeClient = request.app.state.client
    return client.job(request.path_params["job_id"])


def _told(status: JobStatus, code: int = 200, **headers: str) -> Response:
    return JSONResponse(status.to_map(), status_code=code, headers=headers)


async def _news(job: Job, after: int) -> AsyncGenerator[bytes]:
    await job.status()  # there is one, or this is no stream
    yield COME_BACK
    async with aclosing(job.events(after)) as events:
        async for one in events:
            yield event(one.to_map(), _kind(one), number=one.id)


def _kind(one: JobEvent) -> str:
    return "status" if one.window is None else "segments"


async def _heard_all(job: Job, after: int) -> bool:
    """Whether the job has ended, and its last event is the one that the asker names."""
    if (await job.status()).final:
        async with aclosing(job.events(after)) as events:
            async for one in events:
                return one.id <= after
    return False


def _last_event(request: Request) -> int:
    """The event that the asker heard last, 0 where there is none.

    Raises:
        BadRequest: it is no event's id.
    """
    given = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not given:
        return 0
    if not EVENT_ID.fullmatch(given):
        raise BadRequest("'Last-Event-ID': the id of an event, a number", field="Last-Event-ID")
    return int(given)


def _idempotency_key(request: Request) -> str | None:
    """The caller's key; the same word of another caller's is another key.

    Raises:
        BadRequest: it is none.
    """
    given = request.headers.get(KEY)
    if given is None:
        return None
    if not KEY_FORM.fullmatch(given):
        raise BadRequest(f"'{KEY}': 1 to 255 letters, digits and signs, without spaces", field=KEY)
    return f"{request.state.caller}:{given}"
