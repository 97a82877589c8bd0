"""An error as HTTP: which envelope, which status, when to ask again."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bus_worker.errors import (
    BadRequest,
    BusWorkerError,
    Failed,
    MethodNotAllowed,
    NotFound,
    Unavailable,
)

__all__ = ["Errors", "envelope", "error_response", "ours", "retry_headers"]

_log = logging.getLogger(__name__)

Envelope = Callable[[BusWorkerError], dict[str, Any]]

AGAIN_AFTER: dict[type[BusWorkerError], int] = {Unavailable: 5}
"""Seconds after which asking again may help, where it is not one."""


def retry_headers(error: BusWorkerError) -> dict[str, str]:
    """What tells a client whether to ask again, and when."""
    if not error.retry:
        return {"X-Should-Retry": "false"}
    after = error.details.get("retry_after", AGAIN_AFTER.get(type(error), 1))
    return {"X-Should-Retry": "true", "Retry-After": str(after)}


def envelope(error: BusWorkerError, request_id: str) -> dict[str, Any]:
    """The body that says what went wrong."""
    return {
        "error": {
            "code": error.code,
            "message": error.message.replace("'options.", "'"),  # fields have no such level here
            "retry": error.retry,
            "details": error.details,
            "request_id": request_id,
        }
    }


def error_response(
    scope: Scope, error: BusWorkerError, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error as an answer; the app's state has `envelopes` for paths that have one of their own."""
    others: Mapping[str, Envelope] = scope["app"].state.envelopes
    path = f"{scope['path']}/"
    found = (other for beginning, other in others.items() if path.startswith(beginning))
    write = next(found, partial(envelope, request_id=scope["state"]["request_id"]))
    return JSONResponse(
        write(error),
        status_code=error.status,
        headers={**retry_headers(error), **(headers or {})},
    )


class Errors:
    """ASGI middleware: whatever goes wrong behind it is an answer, as long as none has begun."""

    def __init__(self, app: ASGIApp) -> None:
        """Args: app is what stands behind it."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as exc:
            if begun or scope["type"] != "http":
                raise
            await error_response(scope, *ours(exc))(scope, receive, send)


def ours(error: Exception) -> tuple[BusWorkerError, dict[str, str]]:
    """An exception as a caller may see it, with headers of its own; a strange one goes to the log whole."""
    if isinstance(error, BusWorkerError):
        challenge = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}  # noqa: PLR2004
        return error, challenge
    if isinstance(error, HTTPException):
        kinds: dict[int, type[BusWorkerError]] = {404: NotFound, 405: MethodNotAllowed}
        return kinds.get(error.status_code, BadRequest)(), dict(error.headers or {})
    _log.error("request failed", exc_info=error)
    return Failed("something failed in the gateway; its log has the cause"), {}
