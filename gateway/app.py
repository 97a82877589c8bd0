"""Routes, middleware and lifespan of the gateway, on one page."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bus_worker.client import TranscribeClient
from bus_worker.connection import make_client
from bus_worker.errors import BusWorkerError, Unavailable
from bus_worker.settings import Settings
from gateway.door import Door
from gateway.errors import error_response, ours
from gateway.transcribe import transcribe

__all__ = ["create_app"]

_log = logging.getLogger(__name__)

TRY_AGAIN = 5.0
"""Seconds between two attempts at a bus that refuses us."""


def create_app(settings: Settings) -> Starlette:
    """The gateway as an ASGI application; it connects when it starts, and starts without a bus.

    Raises:
        BadSetting: the bus's address or credentials cannot be used.
    """
    app = Starlette(
        routes=[
            Route("/live", _live),
            Route("/transcribe", transcribe, methods=["POST"]),
        ],
        middleware=[Middleware(Door)],
        exception_handlers={BusWorkerError: _refused, HTTPException: _refused},
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.client = make_client(settings, "gateway")
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    client: TranscribeClient = app.state.client
    opening = asyncio.create_task(_open(client), name="bus")
    try:
        yield
    finally:
        opening.cancel()
        await asyncio.wait({opening})
        await client.close()


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


async def _refused(request: Request, error: Exception) -> Response:
    return error_response(request.scope, *ours(error))


async def _live(_: Request) -> Response:
    return JSONResponse({"status": "alive"})
