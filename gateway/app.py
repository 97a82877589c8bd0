"""Routes, middleware and lifespan of the gateway, on one page."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus_worker.client import TranscribeClient
from bus_worker.connection import make_client
from bus_worker.errors import Unavailable
from bus_worker.settings import Settings
from bus_worker.tracing import open_tracer
from gateway import docs, health, page
from gateway.door import Door
from gateway.errors import Errors, error_response, ours
from gateway.jobs.description import JOBS
from gateway.jobs.routes import routes as job_routes
from gateway.keys import Keys
from gateway.metrics import Metrics
from gateway.openai.description import OPENAI
from gateway.openai.errors import envelope as openai_envelope
from gateway.openai.routes import routes as openai_routes
from gateway.openapi import NATIVE, document
from gateway.transcribe import transcribe

__all__ = ["create_app"]

_log = logging.getLogger(__name__)

FIRST_WAIT = 1.0
"""Seconds that the start waits for the bus."""
TRY_AGAIN = 5.0
"""Seconds between two attempts at a bus that refuses us."""
EXPOSED = ("Location", "Retry-After", "X-Request-Id", "X-Should-Retry", "X-Warning")
"""Headers that pages of other origins may read."""


def create_app(settings: Settings) -> Starlette:
    """The gateway as an ASGI application; it connects when it starts, and starts without a bus.

    Raises:
        BadSetting: the bus's address or credentials cannot be used.
    """
    metrics = Metrics()
    tracer = open_tracer("bus-gateway", settings.otel_exporter_otlp_endpoint)
    app = Starlette(
        routes=[
            Route("/", _root),
            page.files,
            Route("/live", health.live),
            Route("/ready", health.ready),
            Route("/health", health.health),
            Route("/stats", health.stats),
            Route("/metrics", health.metrics),
            Route("/cache", health.clear_cache, methods=["DELETE"]),
            Route("/openapi.json", docs.openapi),
            Route("/docs", docs.docs),
            Route("/transcribe", transcribe, methods=["POST"]),
            *job_routes,
            *openai_routes,
        ],
        middleware=[
            Middleware(Door, metrics=metrics, tracer=tracer),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=EXPOSED,
            ),
            Middleware(Errors),
            Middleware(Keys, key=settings.api_key, most=settings.api_key_requests),
        ],
        exception_handlers={HTTPException: _refused},
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False  # nobody is sent to where a Host header says
    app.state.metrics = metrics
    app.state.tracer = tracer
    app.state.envelopes = {"/v1/": openai_envelope}
    app.state.openapi = document(NATIVE, JOBS, OPENAI, keyed=settings.api_key is not None)
    app.state.settings = settings
    app.state.client = make_client(settings, "gateway")
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    client: TranscribeClient = app.state.client
    opening = asyncio.create_task(_open(client), name="bus")
    try:
        await asyncio.wait({opening}, timeout=FIRST_WAIT)
        yield
    finally:
        opening.cancel()
        await asyncio.wait({opening})
        await client.close()
        await asyncio.to_thread(app.state.tracer.close)


async def _open(client: TranscribeClient) -> None:
    """Connect, however long it takes."""
    while True:
        try:
            await client.open(limit=None)
        except Unavailable as error:
            _log.error("%s", error.message)
            await asyncio.sleep(TRY_AGAIN)
        else:
            return


async def _root(request: Request) -> Response:
    """The page for people, the shortest health for programs."""
    wants_page = page.prefers_page(request)
    response = page.front(request) if wants_page else await health.root(request)
    response.headers["Vary"] = "Accept"
    return response


async def _refused(request: Request, error: Exception) -> Response:
    return error_response(request.scope, *ours(error))
