"""One HTTP connection: uvicorn's, with bounds on how large and how slow a request's head may be."""

import asyncio
import contextlib
import json
import secrets
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bus_worker.errors import BadRequest, BusWorkerError, RequestTimeout
from gateway.errors import envelope, retry_headers

__all__ = ["Connection", "prepare"]

HEAD_WITHIN = 10.0
"""Seconds in which a head must be there, from the first byte or from the connection on."""
MAX_HEAD = 32_768
"""Bytes of a head; and those that may come between two pieces of a body (trailers, chunk extensions)."""
MAX_HEADERS = 100
LAST_WORD = 1.0
"""Seconds that a new connection has at the gateway's end for a request that may be on its way."""
SILENT_FOR = 30
"""Seconds that the other side's machine may be silent, or not take what it is sent, before it counts as gone."""


class Connection(HttpToolsProtocol):
    """Refuses what is too large or too slow to be a request."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._besides = 0
        self._moved = False
        self._head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has come."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """A caller has gone."""
        self._head_is_there()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The gateway ends: what is in hand is finished, and a caller who has just come is heard."""
        if self.cycle is None:
            self.loop.call_later(LAST_WORD, super().shutdown)
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Read on, as long as a head or a body comes of it."""
        self._moved = False
        super().data_received(data)
        self._besides = 0 if self._moved else self._besides + len(data)
        if self._besides > MAX_HEAD:
            self._refuse(BadRequest(f"the request's head has more than {MAX_HEAD} bytes"))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """A piece of its address."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of it."""
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._moved = True
        self._head_is_there()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._moved = True
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What cannot be read is no request."""
        del msg
        self._refuse(BadRequest("this is not HTTP, or its head is too large"))

    def _count(self, size: int) -> None:
        self._head += size
        if len(self.headers) > MAX_HEADERS or self._head > MAX_HEAD:
            raise ValueError  # httptools ends the request: send_400_response

    def _await_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_WITHIN, self._too_late)

    def _head_is_there(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        self._refuse(RequestTimeout(f"no request came within {HEAD_WITHIN:g} s"))

    def _refuse(self, error: BusWorkerError) -> None:
        """Answer, unless an answer has begun, and hang up."""
        if self.transport.is_closing():
            return
        if self._may_answer():
            self.transport.write(_answer(error))
        self.transport.close()

    def _may_answer(self) -> bool:
        """Whether nothing of another answer has gone out; a request in hand then has its answer too."""
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]
            return True
        if self.pipeline or self.cycle.response_started:
            return False
        self.cycle.disconnected = True  # what it may still say is for nobody
        return True


def _answer(error: BusWorkerError) -> bytes:
    request_id = secrets.token_hex(8)
    body = json.dumps(envelope(error, request_id)).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": request_id,
        **retry_headers(error),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[error.status] + lines.encode() + b"\r\n" + body


def prepare(sock: socket.socket) -> None:
    """Have the system end connections whose other side is gone or takes nothing; those accepted inherit it."""
    # asyncio would set it only where the socket was made with IPPROTO_TCP: 40 ms an answer without.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {
        "TCP_KEEPIDLE": SILENT_FOR,
        "TCP_KEEPINTVL": SILENT_FOR // 3,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": SILENT_FOR * 1000,
    }.items():
        if hasattr(socket, name):  # Linux has them all
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
