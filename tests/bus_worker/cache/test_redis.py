"""The cache in a real valkey-server: well, absent, killed, held, full, and locked."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bus_worker.cache import open_cache
from bus_worker.cache import redis as redis_room
from bus_worker.cache.redis import RedisCache
from bus_worker.embedded import ValkeyServer, valkey_server
from bus_worker.errors import BadSetting, Unavailable
from bus_worker.settings import load_settings
from tests.helpers.house import until
from tests.helpers.processes import hold

NOWHERE = "redis://:hush@127.0.0.1:1/0"


@asynccontextmanager
async def opened(url: str, prefix: str = "stt") -> AsyncIterator[RedisCache]:
    async with open_cache(enabled=True, url=url, prefix=prefix) as cache:
        assert isinstance(cache, RedisCache)
        yield cache


async def took(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def put(cache: RedisCache, name: str = "a", value: bytes = b"1") -> None:
    await cache.put({name: value}, 60, 1)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes come a tenth of a second apart."""
    monkeypatch.setattr(redis_room, "PROBE_EVERY", 0.1)


async def well_again(cache: RedisCache) -> None:
    """Ask now and then, as requests do, until the breaker is closed."""
    await until(cache.ready, 30)


# --- as it should be -------------------------------------------------------------------------


async def test_a_value_is_shared_and_lives_as_long_as_it_may(valkey: ValkeyServer):
    async with opened(valkey.url) as one, opened(valkey.url) as other:
        await one.put({"a": b"\x00\xff", "samples:b": b"2"}, ttl=0.15, limit=1)
        assert await other.get("a", 1) == b"\x00\xff"
        async with Redis.from_url(valkey.url) as redis:
            assert sorted(await redis.keys()) == [b"transcription:a", b"transcription:samples:b"]
            assert 0 < await redis.pttl("transcription:a") <= 150
        await asyncio.sleep(0.2)
        assert await other.get("a", 1) is None
        assert one.figures() == {
            "kind": "redis", "breaker": "closed", "errors": 0, "stored": 2, "bytes": 3,
        }  # fmt: skip


async def test_clearing_removes_what_is_ours_alone_and_counts_no_copies(valkey: ValkeyServer):
    async with (
        opened(valkey.url) as ours,
        opened(valkey.url, prefix="other") as others,
        Redis.from_url(valkey.url) as redis,
    ):
        for n in range(1200):
            await ours.put({f"{n}": b"1", f"samples:{n}": b"1"}, 60, 1)
        await put(others)
        await redis.set("sessions:a", 1)
        assert await ours.clear() == 1200
        assert await ours.clear() == 0
        assert await others.get("a", 1) == b"1"
        assert sorted(await redis.keys()) == [b"other:transcription:a", b"sessions:a"]


async def test_two_who_clear_at_once_count_each_value_once(valkey: ValkeyServer):
    async with opened(valkey.url) as one, opened(valkey.url) as other:
        for n in range(500):
            await put(one, str(n))
        assert sum(await asyncio.gather(one.clear(), other.clear())) == 500


@pytest.mark.parametrize("url", ["redis://localhost:port", "http://localhost", "redis://:x@"])
async def test_a_url_that_leads_nowhere_stops_the_start_without_telling_its_password(url: str):
    with pytest.raises(BadSetting, match=r"REDIS_URL=\(hidden\): .*must be redis://"):
        load_settings({"REDIS_URL": url})


@pytest.mark.parametrize("option", ["socket_timeout=soon", "speed=high", "db=first"])
async def test_an_option_in_the_url_that_there_is_not_is_one_sentence(option: str):
    with pytest.raises(BadSetting, match=r"^REDIS_URL=redis://\*\*\*@h:1 is no Redis URL"):
        RedisCache(f"redis://:hush@h:1?{option}", "")


async def test_the_url_s_own_options_make_nobody_wait_longer_or_read_otherwise(
    valkey: ValkeyServer,
):
    options = "socket_timeout=9&decode_responses=yes&retry_on_timeout=yes&db=3"
    async with opened(valkey.url.replace("/0", f"?{options}")) as cache:
        await cache.put({"a": b"\xff"}, 60, 1)
        assert await cache.get("a", 1) == b"\xff"
        assert await cache.clear() == 1
        async with Redis.from_url(valkey.url) as redis:
            assert (await redis.info("keyspace")).keys() == set()  # it was in db 3, and is no more


async def test_a_host_that_can_be_none_is_only_away():
    with capture_logs() as lines:
        async with opened("redis://a..b/0") as cache:
            assert await cache.get("a", 1) is None
    assert [line["event"] for line in lines] == ["cache_away"]


async def test_one_of_two_that_find_nothing_is_told_to_work_it_out(valkey: ValkeyServer):
    async with opened(valkey.url) as one, opened(valkey.url) as other:
        assert await one.get_or_lock("a", "1", 1) == (None, True)
        assert await one.get_or_lock("a", "1", 1) == (None, True)
        assert await other.get_or_lock("a", "2", 1) == (None, False)
        assert await other.get_or_lock("b", "2", 1) == (None, True)
        await other.unlock("a", "2")
        assert await other.get_or_lock("a", "2", 1) == (None, False)
        await one.unlock("a", "1")
        assert await other.get_or_lock("a", "2", 1) == (None, True)
        await other.put({"a": b"1"}, 60, 1, unlock=("a", "2"))
        assert await one.get_or_lock("a", "1", 1) == (b"1", False)
        async with Redis.from_url(valkey.url) as redis:
            assert sorted(await redis.keys()) == [b"transcription:a", b"transcription:lock:b"]


async def test_a_lock_lives_as_long_as_its_holder_says_so(valkey: ValkeyServer):
    async with RedisCache(valkey.url, "p:", locked_for=0.3) as cache:
        assert await cache.get_or_lock("a", "1", 1) == (None, True)
        for _ in range(5):
            await asyncio.sleep(0.1)
            await cache.hold("a", "1")
            await cache.hold("a", "2")
        assert await cache.get_or_lock("a", "2", 1) == (None, False)
        await asyncio.sleep(0.4)
        assert await cache.get_or_lock("a", "2", 1) == (None, True)
        await cache.hold("a", "1")
        await asyncio.sleep(0.35)
        assert await cache.get_or_lock("a", "3", 1) == (None, True)


async def test_clearing_leaves_the_locks(valkey: ValkeyServer):
    async with opened(valkey.url) as cache:
        await cache.get_or_lock("a", "1", 1)
        await put(cache, "b")
        assert await cache.clear() == 1
        assert await cache.get_or_lock("a", "2", 1) == (None, False)


async def test_a_redis_that_runs_no_scripts_is_still_read(valkey: ValkeyServer):
    async with Redis.from_url(valkey.url) as redis:
        await redis.set("transcription:a", b"1")
        await redis.acl_setuser(
            "plain", enabled=True, passwords=["+x"], keys=["*"], commands=["+@all", "-@scripting"]
        )
    async with opened(f"redis://plain:x@127.0.0.1:{valkey.port}") as cache:
        assert await cache.get_or_lock("a", "1", 1) == (b"1", True)
        assert await cache.get_or_lock("b", "1", 1) == (None, True)
        await put(cache, "b")
        assert await cache.get_or_lock("b", "1", 1) == (b"1", True)
        assert cache.ready()


# --- as it may be ----------------------------------------------------------------------------


async def test_absent_at_the_start_it_costs_nothing_and_is_told_once():
    with capture_logs() as lines:
        async with opened(NOWHERE) as cache:
            spent = [await took(cache.get("a", 1)) for _ in range(100)]
            spent += [await took(put(cache)) for _ in range(100)]
            with pytest.raises(Unavailable, match=r"redis://\*\*\*@127.0.0.1:1/0 cannot"):
                await cache.clear()
            assert cache.figures()["breaker"] == "open"
    sys.stdout.write(f"absent: at most {max(spent) * 1000:.3f} ms a command\n")
    assert max(spent) < 0.05
    assert sorted(spent)[190] < 0.001
    assert [(line["event"], line["log_level"]) for line in lines] == [("cache_away", "warning")]
    assert "hush" not in str(lines)


@pytest.mark.usefixtures("soon")
async def test_killed_and_started_again_it_is_found_again(valkey: ValkeyServer):
    with capture_logs() as lines:
        async with opened(valkey.url) as cache:
            await put(cache)
            valkey.process.kill()
            await valkey.process.wait()
            spent = [await took(cache.get("a", 1)) for _ in range(20)]
            assert cache.figures()["breaker"] in {"open", "half-open"}
            await valkey.start()
            await well_again(cache)
            await put(cache, "b")
            assert await cache.get("b", 1) == b"1"
    sys.stdout.write(f"killed: at most {max(spent) * 1000:.2f} ms a command\n")
    assert max(spent) < 0.25
    assert [line["event"] for line in lines] == ["cache_away", "cache_back"]


async def test_a_restart_between_two_questions_goes_unnoticed(valkey: ValkeyServer):
    async with opened(valkey.url) as cache:
        await put(cache)
        await valkey.stop()
        await valkey.start()
        await put(cache)
        assert await cache.get("a", 1) == b"1"
        assert cache.figures()["errors"] == 0


@pytest.mark.usefixtures("soon")
async def test_held_it_costs_one_timeout_and_then_nothing(valkey: ValkeyServer):
    async with opened(valkey.url) as cache:
        await put(cache)
        hold(valkey.process.pid)
        try:
            first = await took(cache.get("a", 1))
            next_ones = [await took(cache.get("a", 1)) for _ in range(100)]
        finally:
            os.kill(valkey.process.pid, signal.SIGCONT)
        await well_again(cache)
        assert await cache.get("a", 1) == b"1"
    sys.stdout.write(f"held: {first * 1000:.0f} ms, then at most {max(next_ones) * 1000:.3f} ms\n")
    assert 0.2 < first < 2  # once, not what a client of Redis does by itself: 20 s
    assert sorted(next_ones)[50] < 0.05


async def test_full_it_is_read_from_and_said_to_be_full_once():
    async with (
        valkey_server(memory="3mb", policy="noeviction") as valkey,
        opened(valkey.url) as cache,
    ):
        await put(cache)
        with capture_logs() as lines:
            for n in range(40):
                await put(cache, str(n), bytes(200_000))
            assert await cache.get("a", 1) == b"1"
            assert cache.figures()["breaker"] == "closed"
            assert cache.figures()["errors"] > 10
            async with Redis.from_url(valkey.url) as redis:
                await redis.delete(*(f"transcription:{n}" for n in range(40)))
            await put(cache)
    assert [line["event"] for line in lines] == ["cache_refuses", "cache_takes_again"]
    assert "maxmemory" in lines[0]["why"]


@pytest.mark.parametrize(
    "wrong",
    [lambda url: url.replace("//:", "//:x"), lambda url: "redis://" + url.partition("@")[2]],
)
async def test_with_a_wrong_password_or_none_it_is_as_good_as_absent(
    valkey: ValkeyServer, wrong: Callable[[str], str]
):
    with capture_logs() as lines:
        async with opened(wrong(valkey.url)) as cache:
            assert max([await took(put(cache)) for _ in range(20)]) < 0.05
            assert await cache.get("a", 1) is None
    assert [line["event"] for line in lines] == ["cache_away"]


async def test_a_request_that_has_no_time_left_does_not_ask(valkey: ValkeyServer):
    async with opened(valkey.url) as cache:
        await put(cache)
        assert await cache.get("a", 0) is None
        assert cache.figures()["breaker"] == "closed"
