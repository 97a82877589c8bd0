"""NATS from a raw socket: what no client library would send."""

import asyncio
from typing import Self

from bus_worker.embedded import NatsServer


async def raw_publish(
    server: NatsServer,
    subject: str | bytes,
    data: bytes,
    *,
    headers: bytes | None = None,
    reply: str = "",
) -> None:
    """Publish with any bytes as subject and header block; returns when the server has read it."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    name = subject.encode() if isinstance(subject, str) else subject
    to = f" {reply}".encode() if reply else b""
    try:
        async with asyncio.timeout(30):
            await reader.readline()  # INFO
            writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
            if headers is None:
                writer.write(b"PUB %b%b %d\r\n%b\r\n" % (name, to, len(data), data))
            else:
                size, total = len(headers), len(headers) + len(data)
                writer.write(
                    b"HPUB %b%b %d %d\r\n%b%b\r\n" % (name, to, size, total, headers, data)
                )
            writer.write(b"PING\r\n")
            while (line := await reader.readline()) != b"PONG\r\n":
                if line.startswith(b"-ERR") or not line:
                    raise RuntimeError(f"the server refused: {line!r}")
    finally:
        writer.close()
        await writer.wait_closed()


class RecordingProxy:
    """Passes a connection on, and keeps what the client sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        self._spawn(reader, far_writer, keep=True)
        self._spawn(far_reader, writer, keep=False)

    def _spawn(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool
    ) -> None:
        self._tasks.add(asyncio.create_task(self._pump(reader, writer, keep=keep)))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool
    ) -> None:
        while data := await reader.read(65536):
            if keep:
                self.sent += data
            writer.write(data)
            await writer.drain()
