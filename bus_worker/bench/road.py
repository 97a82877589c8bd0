"""What the road itself costs: the caller's round trip less the time inside the stages."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

from bus_worker.bench import plain
from bus_worker.bench.processes import PRETEND, WORKER, started
from bus_worker.bench.report import Section, percentile
from bus_worker.bus import Address, connect
from bus_worker.client import TranscribeClient
from bus_worker.embedded import nats_server
from bus_worker.messages import pack

__all__ = ["measure"]

SIZES = (30_000, 300_000)
AT_ONCE = (1, 8)
SLOTS = 16
"""More than are asked at once: waiting for a slot is another section's."""
WARM = 50
COUNT, QUICK_COUNT = 1000, 200

Ask = Callable[[bytes], Awaitable[float]]
"""Asks once; returns the seconds that were not the road's."""


async def costs(ask: Ask, size: int, at_once: int, count: int) -> tuple[list[float], float]:
    """The road's seconds of each request, so many in flight; and requests a second."""
    audio = bytes(size)
    found: list[float] = []

    async def caller(times: int) -> None:
        for _ in range(times):
            asked = time.perf_counter()
            elsewhere = await ask(audio)
            found.append(time.perf_counter() - asked - elsewhere)

    await caller(WARM)
    found.clear()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller(count // at_once))
    return found, len(found) / (time.perf_counter() - began)


async def measure(*, quick: bool = False) -> Section:
    """Round trips of the client, and of bare request-reply beside them."""
    rows = []
    count = QUICK_COUNT if quick else COUNT
    async with (
        nats_server(default_model="pretend") as server,
        started(*WORKER, **PRETEND, NATS_URL=server.url, WORKER_SLOTS=str(SLOTS)),
        started("-m", plain.__name__, server.url),
        TranscribeClient(server.url, model="pretend") as client,
        connect(Address((server.url,))) as bus,
    ):

        async def ours(audio: bytes) -> float:
            transcript = await client.transcribe(audio)
            return sum(transcript.timings.stages.values())

        async def bare(audio: bytes) -> float:
            request = pack({"audio": audio, "seconds": 0})
            await bus.client.request(plain.SUBJECT, request, timeout=10)
            return 0.0

        for size in SIZES:
            for at_once in AT_ONCE:
                for how, ask in (("client and worker", ours), ("bare request-reply", bare)):
                    found, rate = await costs(ask, size, at_once, count)
                    rows.append(
                        {
                            "clip": f"{size // 1000} KB",
                            "in flight": at_once,
                            "how": how,
                            "median ms": round(statistics.median(found) * 1000, 2),
                            "p99 ms": round(percentile(found, 0.99) * 1000, 2),
                            "requests/s": round(rate),
                        }
                    )
    return Section("The road's own cost: round trip less the time in stages", rows)
