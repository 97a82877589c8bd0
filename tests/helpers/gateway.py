"""A gateway on a free port, in the test's own process, and callers that behave well or badly."""

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2

from bus_worker.settings import Settings
from bus_worker.systemd import Systemd
from gateway.app import create_app
from gateway.command import Server

FORM_KIND = "multipart/form-data; boundary=XyZ"


@dataclass(frozen=True)
class Gateway:
    """Where it listens."""

    url: str
    port: int

    def caller(self, **options: Any) -> httpx2.AsyncClient:
        """An HTTP client of it."""
        return httpx2.AsyncClient(base_url=self.url, timeout=20, trust_env=False, **options)

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator["Line"]:
        """A connection on which anything may be said."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Line(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass(frozen=True)
class Line:
    """One TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, limit: float = 10.0) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer (of known length)."""
        async with asyncio.timeout(limit):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def refusal(self, limit: float = 10.0) -> tuple[int, dict[str, Any]]:
        """Status and error of the next answer."""
        status, _, body = await self.answer(limit)
        return status, json.loads(body)["error"]


class _Quiet(Server):
    """Leaves the test's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def gateway(nats_url: str, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway on that bus; `settings` are fields of `Settings`."""
    chosen = Settings(
        nats_url=(nats_url,), **{"default_model": "pretend", "request_timeout": 10, **settings}
    )
    app = create_app(chosen)
    sock = socket.create_server(("127.0.0.1", 0))
    server = _Quiet(app, drain=5, systemd=Systemd({}))
    serving = asyncio.create_task(server.serve([sock]), name="gateway")
    try:
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.005)
        port = sock.getsockname()[1]
        yield Gateway(f"http://127.0.0.1:{port}", port)
    finally:
        server.should_exit = True
        await serving
        sock.close()


def form(
    *parts: tuple[str, bytes] | tuple[str, bytes, str, str],
) -> tuple[dict[str, str], bytes]:
    """Headers and body of multipart/form-data: (name, value), or (name, bytes, filename, media type)."""
    boundary = secrets.token_hex(16)
    body = b""
    for name, value, *file in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if file:
            head += f'; filename="{file[0]}"\r\nContent-Type: {file[1]}'
        body += f"{head}\r\n\r\n".encode() + value + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


def request(
    body: bytes, length: int | None = None, kind: str = FORM_KIND, path: str = "/transcribe"
) -> bytes:
    """An upload as it goes over the line, up to `body`; `length` says more."""
    size = len(body) if length is None else length
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n"
    ).encode() + body
