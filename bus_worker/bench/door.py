"""What the gateway costs: an upload over HTTP beside the same one over the bus, and known answers a second."""

import asyncio
import json
import statistics
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self

from bus_worker.bench.processes import PRETEND, WORKER, started
from bus_worker.bench.report import Row, Section, percentile
from bus_worker.client import TranscribeClient
from bus_worker.embedded import nats_server, valkey_server

__all__ = ["GATEWAY", "Caller", "measure", "raw"]

GATEWAY = ("-P", "-m", "gateway")
SIZE = 300_000
KNOWN = 30_000
AT_ONCE = 16
WARM = 50
COUNT, QUICK_COUNT = 1000, 200
FORM = (
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n"
)


class Caller:
    """One connection, kept alive; no more of HTTP than the measure needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def at(cls, url: str, stack: AsyncExitStack) -> Self:
        """A connection to the gateway at this address, until the stack is closed."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        stack.callback(writer.close)
        return cls(reader, writer)

    async def ask(self, request: bytes) -> dict[str, Any]:
        """One request; its answer."""
        self._writer.write(request)
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        said: dict[str, Any] = json.loads(await self._reader.readexactly(length))
        return said


def raw(audio: bytes, asked: bytes = b"") -> bytes:
    """An upload as a body of its own."""
    return _request(b"audio/wav", audio, asked)


def form(audio: bytes, asked: bytes = b"") -> bytes:
    """An upload as a form."""
    body = FORM + audio + b"\r\n--cut--\r\n"
    return _request(b"multipart/form-data; boundary=cut", body, asked)


def _request(kind: bytes, body: bytes, asked: bytes) -> bytes:
    head = b"POST /transcribe%s HTTP/1.1\r\nHost: bench\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (asked, kind, len(body)) + body


async def measure(*, quick: bool = False) -> Section:
    """Round trips in turns, the engine taking no time; then known answers, many at once."""
    count = QUICK_COUNT if quick else COUNT
    async with (
        nats_server(default_model="pretend") as server,
        valkey_server() as valkey,
        started(*WORKER, **{
            **PRETEND, "NATS_URL": server.url, "WORKER_SLOTS": str(AT_ONCE),
            "CACHE_ENABLED": "true", "REDIS_URL": valkey.url,
        }),
        started(
            *GATEWAY, NATS_URL=server.url, DEFAULT_MODEL="pretend",
            API_HOST="127.0.0.1", API_PORT="0",
        ) as door,
        TranscribeClient(server.url, model="pretend") as client,
        AsyncExitStack() as stack,
    ):  # fmt: skip
        url = door.ready["url"]
        rows = await _round_trips(client, await Caller.at(url, stack), count)
        rows.append(await _known([await Caller.at(url, stack) for _ in range(AT_ONCE)], count))
    notes = (
        f"One gateway process; a clip of {SIZE // 1000} KB heard anew each time, and known answers"
        f" to one of {KNOWN // 1000} KB, {AT_ONCE} at once. `added` is beyond the bus."
    )
    return Section("The gateway's own cost: round trips less the time in stages", rows, notes)


async def _round_trips(client: TranscribeClient, caller: Caller, count: int) -> list[Row]:
    audio = bytes(SIZE)
    anew = b"?cache=false"
    sent = {"HTTP, a form": form(audio, anew), "HTTP, the audio alone": raw(audio, anew)}

    async def bus() -> dict[str, Any]:
        return (await client.transcribe(audio, cache=False)).to_map()

    found: dict[str, list[float]] = {"bus": [], **{how: [] for how in sent}}
    for _ in range(WARM + count):
        found["bus"].append(await _seconds(bus()))
        for how, request in sent.items():
            found[how].append(await _seconds(caller.ask(request)))
    beyond = statistics.median(found["bus"][WARM:])
    return [_row(how, seconds[WARM:], beyond) for how, seconds in found.items()]


async def _seconds(asking: Coroutine[Any, Any, dict[str, Any]]) -> float:
    """A round trip, less the time in stages."""
    began = time.perf_counter()
    said = await asking
    took = time.perf_counter() - began
    return took - float(sum(said["timings"]["stages"].values()))


async def _known(callers: list[Caller], count: int) -> Row:
    """Requests a second whose answer is known."""
    request = raw(bytes(KNOWN))
    await callers[0].ask(request)
    found: list[float] = []

    async def one(caller: Caller) -> None:
        for _ in range(count // 4):
            began = time.perf_counter()
            if not (await caller.ask(request))["cache_hit"]:
                raise RuntimeError("an answer did not come from the cache")
            found.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(one(caller))
    rate = len(found) / (time.perf_counter() - began)
    return {**_row("HTTP, known", found), "requests/s": round(rate)}


def _row(how: str, found: list[float], beyond: float | None = None) -> Row:
    middle = statistics.median(found)
    return {
        "how": how,
        "median ms": round(middle * 1000, 2),
        "p99 ms": round(percentile(found, 0.99) * 1000, 2),
        "added ms": "" if beyond is None else round((middle - beyond) * 1000, 2),
        "requests/s": "",
    }
