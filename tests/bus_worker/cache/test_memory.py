"""The cache in this process."""

import pytest

from bus_worker.cache import MemoryCache, NoCache, memory


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    return now


async def test_a_value_is_found_until_its_time_is_over(clock: list[float]):
    cache = MemoryCache()
    await cache.put({"a": b"1"}, ttl=60, limit=1)
    clock[0] += 59.9
    assert await cache.get("a", 1) == b"1"
    clock[0] += 0.2
    assert await cache.get("a", 1) is None
    assert cache.figures()["entries"] == cache.figures()["held"] == 0


async def test_the_least_used_goes_first_when_there_are_too_many():
    cache = MemoryCache(max_entries=2)
    await cache.put({"a": b"1"}, 60, 1)
    await cache.put({"b": b"2"}, 60, 1)
    await cache.get("a", 1)
    await cache.put({"c": b"3"}, 60, 1)
    assert [await cache.get(name, 1) for name in "abc"] == [b"1", None, b"3"]


async def test_it_holds_no_more_bytes_than_it_may():
    cache = MemoryCache(max_bytes=10_000)
    for n in range(50):
        await cache.put({f"{n}": bytes(1000)}, 60, 1)
        assert cache.figures()["held"] <= 10_000
    assert cache.figures()["entries"] == 7
    await cache.put({"huge": bytes(20_000)}, 60, 1)
    assert cache.figures()["held"] == 0


async def test_a_value_put_again_counts_once():
    cache = MemoryCache()
    for _ in range(3):
        await cache.put({"a": bytes(100)}, 60, 1)
    figures = cache.figures()
    assert (figures["entries"], figures["stored"], figures["bytes"]) == (1, 3, 300)
    assert figures["held"] < 500


async def test_clearing_tells_how_many_values_there_were_and_counts_no_copies():
    cache = MemoryCache(copy="copy:")
    await cache.put({"a": b"1", "copy:a": b"1"}, 60, 1)
    await cache.put({"b": b"1"}, 60, 1)
    assert await cache.clear() == 2
    assert await cache.get("copy:a", 1) is None
    assert await cache.clear() == 0


async def test_no_cache_keeps_nothing_and_spares_the_trouble_of_a_name():
    cache = NoCache()
    await cache.put({"a": b"1"}, 60, 1)
    assert await cache.get("a", 1) is None
    assert not cache.ready()
    assert await cache.clear() == 0
