"""What every request passes first and every answer last: ids, headers, the end of the connection."""

import asyncio
import re
import secrets
import time
from contextlib import AsyncExitStack

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bus_worker.tracing import Tracer, read_traceparent
from gateway.metrics import Metrics

__all__ = ["Door"]

_log = structlog.get_logger(__name__)

LINGER = 1.0
"""Seconds in which a body that nobody wants is still read: a socket closed on it would lose the answer."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""On every answer that does not bring its own."""
FAULT = 500
"""From here up it is ours: a caller's mistakes are no errors of a server's span."""
PROBES = frozenset({"/", "/live", "/ready", "/health", "/metrics", "/stats"})
"""Asked every few seconds, by programs."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Door:
    """ASGI middleware; the request's state gets `request_id`, `traceparent` and `exits`, closed when it is over."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer) -> None:
        """Args: app is what stands behind the door; metrics counts who passes, tracer follows them."""
        self._app = app
        self._metrics = metrics
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = _Visit(scope, receive, send)
        async with AsyncExitStack() as exits:
            span = self._tracer.start(scope["method"], visit.traceparent, path=scope["path"])
            exits.callback(lambda: span.end(visit.code))
            scope["state"] |= {
                "request_id": visit.request_id, "exits": exits, "traceparent": span.traceparent,
            }  # fmt: skip
            began = time.monotonic()
            exits.callback(lambda: _say(scope, visit, span.traceparent, began))
            with self._metrics.request(scope, lambda: visit.status):
                await self._app(scope, visit.receive, visit.send)


def _say(scope: Scope, visit: "_Visit", traceparent: str | None, began: float) -> None:
    """The request's one line; the worker's has the same ids. A probe's is for who looks closely."""
    route = getattr(scope.get("route"), "path", "other")
    say = _log.debug if route in PROBES else _log.info
    say(
        "http",
        method=scope["method"],
        route=route,
        status=visit.status or None,  # None: its caller left before there was one
        seconds=round(time.monotonic() - began, 4),
        request_id=visit.request_id,
        **({"trace_id": traceparent.split("-")[1]} if traceparent else {}),
    )


class _Visit:
    """One request: what of it has come, what of its answer has gone."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        self.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.traceparent = read_traceparent(headers.get("traceparent"))
        self.status = 0
        self._receive = receive
        self._send = send
        self._expecting = (
            headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        )

    @property
    def code(self) -> str:
        """What a trace says of it."""
        return str(self.status) if self.status >= FAULT else "ok"

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._expecting = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self._expecting:
                headers["Connection"] = "close"
        elif self._expecting and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._hear_out()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _hear_out(self) -> None:
        """Read what is still on its way, for a moment."""
        until = time.monotonic() + LINGER
        while self._expecting and (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self.receive()
            except TimeoutError:
                return
