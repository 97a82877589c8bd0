"""Workers on a bus that share a cache: answered by another, looked at, emptied; and no cache at all."""

import os
import secrets
import signal
import sys
import time

import pytest

from bus_worker.cache import MemoryCache, open_cache
from bus_worker.embedded import ValkeyServer
from bus_worker.errors import Unavailable
from tests.helpers.house import Workers


async def pair(workers: Workers, valkey: ValkeyServer) -> None:
    """Two workers with the same Redis; the pretended engine takes a fifth of a second."""
    for _ in range(2):
        cache = await workers.stack.enter_async_context(
            open_cache(enabled=True, url=valkey.url, prefix="stt")
        )
        await workers.start(cache=cache, seconds=0.2)


async def test_what_one_worker_heard_any_worker_answers(workers: Workers, valkey: ValkeyServer):
    await pair(workers, valkey)
    client = await workers.client()
    first = await client.transcribe(b"123")
    again = [await client.transcribe(b"123") for _ in range(20)]
    assert not first.cache_hit
    assert all(a.cache_hit and a.text == "3 bytes" for a in again)
    assert {a.worker_id for a in again} == {"w1", "w2"}
    assert len({a.request_id for a in again}) == 20
    assert max(a.timings.total for a in again) < 0.2
    figures = await client.cache_figures()
    assert set(figures) == {"w1", "w2"}
    assert sum(f["hits"] for f in figures.values()) == 20
    assert sum(f["misses"] for f in figures.values()) == 1
    assert {f["breaker"] for f in figures.values()} == {"closed"}


async def test_clearing_reaches_every_worker_and_counts_each_answer_once(
    workers: Workers, valkey: ValkeyServer
):
    await pair(workers, valkey)
    await workers.start(cache=MemoryCache(), model="other", seconds=0)
    client = await workers.client()
    for n in range(3):
        await client.transcribe(bytes(n + 1))
    await client.transcribe(b"1", model="other")
    removed = await client.clear_cache()
    assert set(removed) == {"w1", "w2", "w3"}
    assert sum(removed.values()) == 4
    assert removed["w3"] == 1
    assert not (await client.transcribe(bytes(1))).cache_hit
    assert not (await client.transcribe(b"1", model="other")).cache_hit


async def test_clearing_a_cache_that_is_away_is_said_to_have_failed(
    workers: Workers, valkey: ValkeyServer
):
    await pair(workers, valkey)
    client = await workers.client()
    await valkey.stop()
    with pytest.raises(Unavailable, match=r"the cache redis://\*\*\*@127.0.0.1:\d+/0 cannot"):
        await client.clear_cache()


async def test_with_nobody_there_is_nothing_to_clear(workers: Workers):
    client = await workers.client()
    with pytest.raises(Unavailable, match="no worker"):
        await client.clear_cache()


async def test_requests_go_on_while_the_cache_is_held_killed_and_back(
    workers: Workers, valkey: ValkeyServer
):
    cache = await workers.stack.enter_async_context(
        open_cache(enabled=True, url=valkey.url, prefix="stt")
    )
    await workers.start(cache=cache, seconds=0)
    client = await workers.client()

    async def costs(count: int) -> list[float]:
        """Milliseconds in the worker of requests that were never asked before."""
        found = [await client.transcribe(secrets.token_bytes(9)) for _ in range(count)]
        assert all(t.text == "9 bytes" for t in found)
        return [t.timings.total * 1000 for t in found]

    well = await costs(20)
    os.kill(valkey.process.pid, signal.SIGSTOP)
    held, after = await costs(1), await costs(20)
    os.kill(valkey.process.pid, signal.SIGCONT)
    valkey.process.kill()
    await valkey.process.wait()
    killed = await costs(20)
    sys.stdout.write(
        f"well {max(well):.1f}, held {max(held):.0f}, then {max(after):.1f}, killed {max(killed):.1f} ms\n"
    )
    assert max(held) < 300 + max(well)
    assert sorted(after)[10] < 20
    assert sorted(killed)[10] < 20


async def test_clearing_ends_as_soon_as_all_have_answered(workers: Workers):
    began = time.monotonic()
    await workers.start(cache=MemoryCache())
    client = await workers.client()
    assert await client.clear_cache(wait=5) == {"w1": 0}
    assert time.monotonic() - began < 5
