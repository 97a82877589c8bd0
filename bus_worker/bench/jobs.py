"""What a job costs beside a request: from its submission to its result, through the same workers."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from bus_worker.bench.processes import PRETEND, WORKER, started
from bus_worker.bench.report import Row, Section, percentile
from bus_worker.bus import Address, connect
from bus_worker.client import TranscribeClient
from bus_worker.embedded import nats_server
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects

__all__ = ["measure", "prepared"]

AUDIO = bytes(30_000)
CROWDS = ((1, 1), (4, 1), (4, 64))
"""Workers, and how much is in flight."""
WARM = 20
COUNT, QUICK_COUNT = 400, 40
TURNS = 4
LIMIT = 300.0

Once = Callable[[], Awaitable[object]]


@asynccontextmanager
async def prepared() -> AsyncIterator[tuple[str, TranscribeClient]]:
    """A bus with the queues of the pretended model: where it is, and a client of it."""
    async with nats_server(default_model="pretend") as server:
        async with connect(Address((server.url,))) as bus:
            await make_streams(bus.client, Subjects(), "pretend")
        async with TranscribeClient(server.url, model="pretend", timeout=LIMIT) as client:
            yield server.url, client


async def measure(*, quick: bool = False) -> Section:
    """Jobs and requests in turns; the engine takes no time."""
    rows: list[Row] = []
    count = QUICK_COUNT if quick else COUNT
    async with prepared() as (url, client), AsyncExitStack() as stack:

        async def job() -> None:
            await (await client.submit(AUDIO)).result(LIMIT)

        async def request() -> None:
            await client.transcribe(AUDIO)

        there = 0
        for workers, at_once in CROWDS:
            for _ in range(workers - there):
                worker = started(*WORKER, **PRETEND, NATS_URL=url, WORKER_SLOTS="1")
                await stack.enter_async_context(worker)
            there = workers
            ways: dict[str, Once] = {"job, to its result": job, "request": request}
            rows += await _in_turns(ways, workers, at_once, count)
    return Section(
        "What a job costs beside a request: workers of one slot, an engine that takes no time",
        rows,
        f"{TURNS} turns of each; a clip of {len(AUDIO) // 1000} KB; all that is kept of a job lies on disk.",
    )


async def _in_turns(ways: dict[str, Once], workers: int, at_once: int, count: int) -> list[Row]:
    each: dict[str, list[float]] = {how: [] for how in ways}
    walls = dict.fromkeys(ways, 0.0)
    for once in ways.values():
        await _all(once, at_once, WARM)
    for _ in range(TURNS):
        for how, once in ways.items():
            began = time.perf_counter()
            each[how] += await _all(once, at_once, count // TURNS)
            walls[how] += time.perf_counter() - began
    return [
        {
            "workers": workers,
            "in flight": at_once,
            "how": how,
            "median ms": round(statistics.median(found) * 1000, 2),
            "p99 ms": round(percentile(found, 0.99) * 1000, 2),
            "a second": round(len(found) / walls[how]),
        }
        for how, found in each.items()
    ]


async def _all(once: Once, at_once: int, count: int) -> list[float]:
    """The seconds that each of so many took, so many in flight."""
    waiting = iter(range(count))
    found: list[float] = []

    async def caller() -> None:
        for _ in waiting:
            began = time.perf_counter()
            await once()
            found.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    return found
