"""How long a request waits for a worker: credits against a plain queue group.

Both serve the same requests at the same moments (one seed), in turns, on one machine in one run.
Workers are processes of their own, as they are in life; the engine sleeps, so that two cores are
enough for all of them.
"""

import asyncio
import heapq
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bus_worker.bench import plain
from bus_worker.bench.processes import PRETEND, WORKER, started
from bus_worker.bench.report import Row, Section, spread
from bus_worker.bus import Address, connect
from bus_worker.client import TranscribeClient
from bus_worker.embedded import nats_server
from bus_worker.messages import pack

__all__ = ["Job", "measure", "one_queue", "schedule"]

WORKERS = 4
MEAN = 0.1
SIGMA = 1.0
"""Of the log-normal service time: its standard deviation is 1.3 times its mean, as clips' lengths vary."""
AUDIO = bytes(30_000)
LOADS = ((0.5, 2), (0.8, 4))
"""Share of the workers' time that is asked for, and in how many turns."""
TURN, QUICK_TURN = 15.0, 5.0
"""Seconds of arrivals in a turn."""
TIMEOUT = 120.0
IDEAL = "one ideal queue (computed)"
SEED = 20

Ask = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Job:
    """A request: when it comes, in seconds from the start, and how long the engine takes."""

    at: float
    seconds: float


def schedule(load: float, length: float, seed: int) -> list[Job]:
    """Poisson arrivals over that many seconds, log-normal service times."""
    dice = random.Random(seed)  # noqa: S311 - the same load for both, no secret
    rate = load * WORKERS / MEAN
    jobs: list[Job] = []
    at = dice.expovariate(rate)
    while at < length:
        jobs.append(Job(at, MEAN * dice.lognormvariate(-(SIGMA**2) / 2, SIGMA)))
        at += dice.expovariate(rate)
    return jobs


def one_queue(jobs: Sequence[Job], workers: int = WORKERS) -> list[float]:
    """The waits if all workers shared one queue and a road without cost: nothing fair does better."""
    free = [0.0] * workers
    waits = []
    for job in jobs:
        begin = max(job.at, heapq.heappop(free))
        heapq.heappush(free, begin + job.seconds)
        waits.append(begin - job.at)
    return waits


async def play(jobs: Sequence[Job], ask: Ask) -> list[float]:
    """Ask at the scheduled moments; returns each request's seconds beyond its service time."""
    began = time.perf_counter()

    async def one(job: Job) -> float:
        await asyncio.sleep(began + job.at - time.perf_counter())
        await ask(job.seconds)
        return time.perf_counter() - began - job.at - job.seconds

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(job)) for job in jobs]
    return [task.result() for task in tasks]


@asynccontextmanager
async def _credits(url: str) -> AsyncIterator[Ask]:
    """Real workers of one slot, asked by the real client."""
    async with AsyncExitStack() as stack:
        for _ in range(WORKERS):
            await stack.enter_async_context(
                started(*WORKER, **PRETEND, NATS_URL=url, WORKER_SLOTS="1")
            )
        client = await stack.enter_async_context(TranscribeClient(url, model="pretend"))

        async def ask(seconds: float) -> None:
            await client.transcribe(
                AUDIO, timeout=TIMEOUT, stages={"pretend": {"seconds": seconds}}
            )

        yield ask


@asynccontextmanager
async def _plain(url: str) -> AsyncIterator[Ask]:
    async with AsyncExitStack() as stack:
        for _ in range(WORKERS):
            await stack.enter_async_context(started("-m", plain.__name__, url))
        bus = await stack.enter_async_context(connect(Address((url,))))

        async def ask(seconds: float) -> None:
            request = pack({"audio": AUDIO, "seconds": seconds})
            await bus.client.request(plain.SUBJECT, request, timeout=TIMEOUT)

        yield ask


async def measure(*, quick: bool = False) -> Section:
    """Both ways under half and under heavy load."""
    length = QUICK_TURN if quick else TURN
    rows: list[Row] = []
    async with (
        nats_server(default_model="pretend") as server,
        _credits(server.url) as credit,
        _plain(server.url) as queue,
    ):
        for load, turns in LOADS:
            played = [schedule(load, length, SEED + turn) for turn in range(turns)]
            ways: dict[str, list[float]] = {"credits": [], "plain queue group": [], IDEAL: []}
            for jobs in played:
                ways["credits"] += await play(jobs, credit)
                ways["plain queue group"] += await play(jobs, queue)
                ways[IDEAL] += one_queue(jobs)
            rows += [_row(load, how, waits) for how, waits in ways.items()]
    return Section(
        f"Wait beyond service time: {WORKERS} workers x 1 slot, log-normal service of mean"
        f" {MEAN * 1000:.0f} ms (sigma {SIGMA:g}), Poisson arrivals, {len(AUDIO) // 1000} KB",
        rows,
    )


def _row(load: float, how: str, waits: Sequence[float]) -> Row:
    return {
        "load": f"{load:.0%}",
        "how": how,
        "requests": len(waits),
        **spread(waits, 0.5, 0.95, 0.99),
    }
