"""What large audio costs: leaving it on the bus, fetching it, and a request's whole road."""

import os
import statistics
import time
from collections.abc import Awaitable, Callable

from bus_worker.bench import plain
from bus_worker.bench.processes import PRETEND, WORKER, started
from bus_worker.bench.report import Row, Section, percentile
from bus_worker.bus import Address, Bus, connect
from bus_worker.claim_check import ClaimCheck, Deposit
from bus_worker.client import TranscribeClient
from bus_worker.embedded import MAX_PAYLOAD, nats_server
from bus_worker.messages import pack
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects

__all__ = ["measure"]

SIZES = (1_000_000, 5_000_000, 10_000_000)
WARM = 3
COUNT, QUICK_COUNT = 50, 5
NAMES = Subjects()


async def measure(*, quick: bool = False) -> Section:
    """One after the other, on a bus that has nothing else to do."""
    rows: list[Row] = []
    async with (
        nats_server(default_model="pretend") as server,
        connect(Address((server.url,))) as bus,
        started(*WORKER, **PRETEND, NATS_URL=server.url),
        started("-m", plain.__name__, server.url),
        TranscribeClient(server.url, model="pretend") as client,
    ):
        await make_streams(bus.client, NAMES)
        for size in SIZES:
            for how, once in _ways(bus, client, os.urandom(size)).items():
                found = [await once() for _ in range(WARM + (QUICK_COUNT if quick else COUNT))]
                rows.append(
                    {
                        "clip": f"{size // 1_000_000} MB",
                        "how": how,
                        "median ms": round(statistics.median(found[WARM:]) * 1000, 1),
                        "p95 ms": round(percentile(found[WARM:], 0.95) * 1000, 1),
                    }
                )
    return Section(
        "Large audio: left in a stream, with a ticket in the message",
        rows,
        "The road is the client's round trip less the time in stages: put, ask, get, answer.",
    )


def _ways(
    bus: Bus, client: TranscribeClient, audio: bytes
) -> dict[str, Callable[[], Awaitable[float]]]:
    """What is measured, by name; each call does it once and returns its seconds."""
    checks = ClaimCheck(bus.client, NAMES)

    async def put() -> float:
        deposit, began = Deposit(), time.perf_counter()
        await checks.put(deposit, audio)
        took = time.perf_counter() - began
        await checks.erase(deposit)
        return took

    async def get() -> float:
        deposit = Deposit()
        ticket = await checks.put(deposit, audio)
        began = time.perf_counter()
        await checks.fetch(ticket)
        took = time.perf_counter() - began
        await checks.erase(deposit)
        return took

    async def road() -> float:
        began = time.perf_counter()
        transcript = await client.transcribe(audio)
        return time.perf_counter() - began - sum(transcript.timings.stages.values())

    async def bare() -> float:
        began = time.perf_counter()
        request = pack({"audio": audio, "seconds": 0})
        await bus.client.request(plain.SUBJECT, request, timeout=10)
        return time.perf_counter() - began

    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "put": put,
        "get": get,
        "the road, by ticket": road,
    }
    if len(audio) < MAX_PAYLOAD:
        ways["bare request-reply, inside the message"] = bare
    return ways
