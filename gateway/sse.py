"""Server-sent events: what comes is told as it comes, and that work goes on while nothing does."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bus_worker.errors import BusWorkerError, Cancelled
from gateway.errors import ours
from gateway.hangup import until_left

__all__ = ["event", "event_stream"]

PLAIN_FOR = 2.5
"""Seconds in which an error is still an answer of its own (that nobody serves a model takes one to find out)."""
BEAT = 5.0
"""Seconds of silence after which a comment says that work goes on: proxies cut silent lines."""
READ_WITHIN = 30.0
"""Seconds that a caller may take to read what is sent."""
WORKING = b": working\n\n"


def event(data: Any, name: str | None = None, number: int | None = None) -> bytes:
    """One event; who names its number when asking again hears those behind it."""
    head = "" if number is None else f"id: {number}\n"
    head += f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


async def event_stream(
    request: Request,
    source: AsyncGenerator[bytes],
    on_error: Callable[[BusWorkerError], bytes],
) -> Response:
    """An answer that sends what `source` yields; an error that comes early is raised instead.

    Args:
        on_error: the event that tells of a late one.

    Raises:
        BusWorkerError: what `source` raised before anything was worth sending.
    """
    pump = _Pump(source)
    request.state.exits.push_async_callback(pump.close)
    first = await until_left(request, pump.next(PLAIN_FOR))
    return _Events(pump, first, on_error)


class _Pump:
    """Takes events from their source, whether or not anybody is sending."""

    def __init__(self, source: AsyncGenerator[bytes]) -> None:
        self._came: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(source), name="events")

    async def next(self, wait: float) -> bytes | None:
        """The next event, a sign of life if none comes within `wait` seconds, or None at the end.

        Raises:
            Exception: what the source raised, after all it had yielded.
        """
        try:
            async with asyncio.timeout(wait):
                came = await self._came.get()
        except TimeoutError:
            return WORKING
        if came is None:
            self._task.result()
        return came

    async def close(self) -> None:
        """End the work."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self, source: AsyncGenerator[bytes]) -> None:
        try:
            async with aclosing(source):
                async for piece in source:
                    self._came.put_nowait(piece)
        finally:
            self._came.put_nowait(None)


class _Events(Response):
    """The answer, from its first event on."""

    def __init__(
        self, pump: _Pump, first: bytes | None, on_error: Callable[[BusWorkerError], bytes]
    ) -> None:
        super().__init__(
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},  # nginx would keep what should be heard now
        )
        del self.headers["content-length"]
        self._pump = pump
        self._next = first
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        try:
            await until_left(Request(scope, receive), self._send(send))
        except Cancelled:
            return

    async def _send(self, send: Send) -> None:
        piece = self._next
        while piece is not None:
            async with asyncio.timeout(READ_WITHIN):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            try:
                piece = await self._pump.next(BEAT)
            except Exception as exc:  # noqa: BLE001 - the answer has begun: the error is part of it
                await self._last(send, self._on_error(ours(exc)[0]))
                return
        await self._last(send, b"")

    async def _last(self, send: Send, piece: bytes) -> None:
        async with asyncio.timeout(READ_WITHIN):
            await send({"type": "http.response.body", "body": piece})
