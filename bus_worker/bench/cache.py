"""What the cache gives and costs: a repeated request, a new one, and one while Redis is dead."""

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator

from bus_worker.bench.processes import PRETEND, WORKER, started
from bus_worker.bench.report import Row, Section, percentile
from bus_worker.client import TranscribeClient
from bus_worker.embedded import nats_server, valkey_server
from bus_worker.messages import Transcript

__all__ = ["measure"]

SIZE = 300_000
WARM = 50
COUNT, QUICK_COUNT = 1000, 200

Ask = Callable[[], Awaitable[Transcript]]


async def seconds(ask: Ask, count: int, *, hit: bool) -> list[float]:
    """Round trips of so many requests, one after the other.

    Raises:
        RuntimeError: one was (or was not) answered from the cache, against what is measured.
    """
    found = []
    for n in range(WARM + count):
        began = time.perf_counter()
        answer = await ask()
        if answer.cache_hit != hit and n >= WARM:
            raise RuntimeError(f"cache_hit is {answer.cache_hit}, and should be {hit}")
        found.append(time.perf_counter() - began)
    return found[WARM:]


async def measure(*, quick: bool = False) -> Section:
    """Round trips of a client, the engine taking no time."""
    count = QUICK_COUNT if quick else COUNT
    rows: list[Row] = []
    async with (
        nats_server(default_model="pretend") as server,
        TranscribeClient(server.url, model="pretend") as client,
        valkey_server() as valkey,
    ):
        clip, news = os.urandom(SIZE), _news()

        async def again() -> Transcript:
            return await client.transcribe(clip)

        async def anew() -> Transcript:
            return await client.transcribe(next(news))

        worker = {**PRETEND, "NATS_URL": server.url}
        async with started(*WORKER, **worker):
            plain = await seconds(anew, count, hit=False)
            rows.append(_row("new, no cache", plain))
        worker |= {"CACHE_ENABLED": "true", "REDIS_URL": valkey.url}
        async with started(*WORKER, **worker):
            known = await seconds(again, count, hit=True)
            rows.append(_row("repeated", known))
            rows.append(_row("new", await seconds(anew, count, hit=False), plain))
            await valkey.stop()
            rows.append(_row("new, Redis dead", await seconds(anew, count, hit=False), plain))
    notes = f"A clip of {SIZE // 1000} KB; `added` is the median beyond that without a cache."
    return Section("The cache: round trips over the bus", rows, notes)


def _news() -> Iterator[bytes]:
    """Clips that nobody has asked for before."""
    rest = os.urandom(SIZE - 8)
    number = 0
    while True:
        number += 1
        yield number.to_bytes(8, "big") + rest


def _row(what: str, found: list[float], beyond: list[float] | None = None) -> Row:
    middle = statistics.median(found)
    added = "" if beyond is None else round((middle - statistics.median(beyond)) * 1000, 2)
    return {
        "request": what,
        "median ms": round(middle * 1000, 2),
        "p99 ms": round(percentile(found, 0.99) * 1000, 2),
        "added ms": added,
    }
