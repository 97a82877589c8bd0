"""Workers on a bus that share a cache: answered by another, looked up, emptied, and while it is away."""

import asyncio
import hashlib
import os
import secrets
import signal
import sys
import time

import pytest

from bus_worker.cache import MemoryCache, open_cache
from bus_worker.embedded import ValkeyServer
from bus_worker.errors import Unavailable
from bus_worker.messages import pack, unpack
from tests.helpers.house import Workers, until
from tests.helpers.processes import hold


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
    hold(valkey.process.pid)
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


# --- looked up while every slot is taken ------------------------------------------------------


async def test_a_known_answer_comes_while_every_slot_is_taken(workers: Workers):
    service = await workers.start(cache=MemoryCache(), seconds=0, segments=3)
    client = await workers.client()
    known, larger = b"123", bytes(700_000)
    asked = {"format": "wav", "language": "en", "stages": {"pretend": {"segments": 3}}}
    for audio in (known, larger):
        for stream in (False, True):
            await client.transcribe(audio, stream=stream, **asked)
    busy = asyncio.create_task(client.transcribe(b"1", stages={"pretend": {"seconds": 3.0}}))
    await until(lambda: service.credits.busy)
    for audio in (known, larger):
        began = time.monotonic()
        answer = await client.transcribe(audio, request_id="mine", **asked)
        assert time.monotonic() - began < 1
        assert (answer.cache_hit, answer.request_id) == (True, "mine")
        assert answer.text == f"{len(audio)} bytes"
        stream = client.stream(audio, **asked)
        assert [s.text async for s in stream] == [" part 0", " part 1", " part 2"]
        assert stream.transcript.cache_hit
    assert not busy.done()
    assert service.counts["ok"] == 4  # no slot was needed for any of it
    assert not (await busy).cache_hit


async def test_what_is_not_known_or_is_to_be_heard_anew_waits_its_turn(workers: Workers):
    service = await workers.start(cache=MemoryCache(), seconds=0)
    client = await workers.client()
    await client.transcribe(b"123")
    busy = asyncio.create_task(client.transcribe(b"1", stages={"pretend": {"seconds": 0.5}}))
    await until(lambda: service.credits.busy)
    others = [client.transcribe(b"1234"), client.transcribe(b"123", cache=False)]
    answers = await asyncio.gather(*others)
    assert busy.done()
    assert [a.cache_hit for a in answers] == [False, False]
    await busy


async def test_a_question_is_checked_as_strictly_as_a_request(workers: Workers):
    service = await workers.start(cache=MemoryCache(), seconds=0)
    client = await workers.client()
    await client.transcribe(b"123")
    nc = service._bus.client
    sha256 = hashlib.sha256(b"123").hexdigest()

    async def answer(question: bytes) -> dict:
        return unpack((await nc.request("stt.v1.lookup.pretend", question, timeout=20)).data)

    assert (await answer(pack({"sha256": sha256})))["text"] == "3 bytes"
    assert await answer(pack({"sha256": sha256[::-1]})) == {"known": False}
    assert await answer(pack({"sha256": sha256, "options": {"task": "translate"}})) == {
        "known": False
    }
    for wrong in (b"", b"\xc1", pack({"sha256": "x"}), pack({"sha256": sha256, "audio": b"1"})):
        assert (await answer(wrong))["error"]["code"] == "bad_request"
    operators = {"sha256": sha256, "stages": {"pretend": {"spread": 1.0}}}
    assert (await answer(pack(operators)))["error"]["code"] == "bad_request"
