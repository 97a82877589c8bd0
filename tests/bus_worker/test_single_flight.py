"""Equal requests at once: worked out once, whoever leaves, fails or dies meanwhile."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from bus_worker import credits as credits_room
from bus_worker import single_flight as room
from bus_worker.cache import MemoryCache, open_cache
from bus_worker.client import TranscribeClient
from bus_worker.embedded import ValkeyServer
from bus_worker.errors import BadAudio, BusWorkerError, DeadlineExceeded, Unavailable
from bus_worker.messages import Transcript
from bus_worker.plugin import Draft, NoOptions, Stage, stage
from bus_worker.service import Service
from bus_worker.testing import segment
from tests.helpers.house import Workers, until


class Engine:
    """Takes its time in a thread; remembers what it ran, and how many at once."""

    def __init__(self, seconds: float = 0.3, segments: int = 1) -> None:
        self.seconds = seconds
        self.segments = segments
        self.runs: list[bytes] = []
        self.ended: list[str] = []
        self.now = self.most = 0
        self.errors: list[BusWorkerError] = []

    @property
    def stage(self) -> Stage:
        @stage(NoOptions, gives=("segments", "text"))
        def pretend(draft: Draft, options: NoOptions) -> None:
            """Hear how long it is."""
            self.runs.append(draft.audio)
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                self._hear(draft)
            except BusWorkerError as error:
                self.ended.append(error.code)
                raise
            finally:
                self.now -= 1
            self.ended.append("ok")

        return pretend

    def _hear(self, draft: Draft) -> None:
        for number in range(self.segments):
            end = time.monotonic() + self.seconds / self.segments
            while time.monotonic() < end:
                draft.check()
                time.sleep(0.005)
            heard = segment(f" part {number}", number, number + 1, number)
            draft.segments.append(heard)
            draft.emit(heard)
        if self.errors:
            raise self.errors.pop(0)
        draft.text = f"{len(draft.audio)} bytes"


async def shared(workers: Workers, valkey: ValkeyServer, engine: Engine, **more: Any) -> Service:
    """A worker whose cache others share."""
    cache = await workers.stack.enter_async_context(
        open_cache(enabled=True, url=valkey.url, prefix="stt")
    )
    return await workers.start(engine.stage, cache=cache, **more)


async def asking(client: TranscribeClient, *audio: bytes, **asked: Any) -> list[Any]:
    """All at once; what becomes of each."""
    calls = [client.transcribe(one, **asked) for one in audio]
    return await asyncio.gather(*calls, return_exceptions=True)


def begun(engine: Engine) -> Callable[[], bool]:
    return lambda: engine.now > 0


# --- in one worker ---------------------------------------------------------------------------


async def test_equal_requests_at_once_are_heard_once(workers: Workers):
    engine = Engine()
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    answers = await asking(client, *[b"12345"] * 50)
    assert {a.text for a in answers} == {"5 bytes"}
    assert len({a.request_id for a in answers}) == 50
    assert engine.runs == [b"12345"]
    assert service.counts == {"ok": 50}
    figures = (await client.cache_figures())["w1"]
    assert figures["misses"] == 1
    assert figures["shared"] + figures["hits"] == 49
    assert (service.credits.busy, service.credits.aside, service.credits.free) == (0, 0, 2)


async def test_who_waits_for_anothers_work_leaves_its_slot_to_others(workers: Workers):
    engine = Engine(0.6)
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    equal = [asyncio.create_task(client.transcribe(b"1")) for _ in range(10)]
    await until(lambda: service.credits.aside == 10)
    assert (service.credits.busy, service.credits.free) == (1, 1)
    assert (await client.transcribe(b"22")).text == "2 bytes"
    assert len(await asyncio.gather(*equal)) == 10
    assert engine.runs == [b"1", b"22"]
    assert engine.most == 2


async def test_only_so_many_wait_without_a_slot(workers: Workers, monkeypatch):
    monkeypatch.setattr(credits_room, "MAX_ASIDE", 3)
    engine = Engine(0.5)
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    equal = [asyncio.create_task(client.transcribe(b"1")) for _ in range(20)]
    await until(lambda: service.credits.busy == 2 and service.credits.aside == 5)
    assert {(await a).text for a in equal} == {"1 bytes"}
    assert engine.runs == [b"1"]
    await until(lambda: service.credits.free == 2)


@pytest.mark.parametrize("other", [{"language": "de"}, {"stages": {}, "format": "wav"}])
async def test_what_is_asked_otherwise_is_heard_for_itself(other, workers: Workers):
    engine = Engine(0.2)
    await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    await asyncio.gather(client.transcribe(b"1"), client.transcribe(b"1", **other))
    assert len(engine.runs) == 2


async def test_what_is_to_be_heard_anew_is_heard_for_itself(workers: Workers):
    engine = Engine(0.2)
    await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    await asyncio.gather(client.transcribe(b"1"), client.transcribe(b"1", cache=False))
    assert len(engine.runs) == 2


async def test_the_first_caller_leaves_and_the_others_have_their_answer(workers: Workers):
    engine = Engine(0.5)
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    first = asyncio.create_task(client.transcribe(b"1"))
    await until(begun(engine))
    others = [asyncio.create_task(client.transcribe(b"1")) for _ in range(3)]
    await until(lambda: service.credits.aside == 4)
    first.cancel()
    await until(lambda: service.counts["cancelled"] == 1)
    assert {(await a).text for a in others} == {"1 bytes"}
    assert engine.ended == ["ok"]


async def test_the_first_deadline_ends_its_own_answer_only(workers: Workers):
    engine = Engine(0.6)
    await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    first = asyncio.create_task(client.transcribe(b"1", timeout=0.3))
    await until(begun(engine))
    other = asyncio.create_task(client.transcribe(b"1", timeout=5))
    with pytest.raises(DeadlineExceeded):
        await first
    assert (await other).text == "1 bytes"
    assert engine.ended == ["ok"]


async def test_a_waiters_own_deadline_ends_its_wait(workers: Workers):
    engine = Engine(0.6)
    await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    first = asyncio.create_task(client.transcribe(b"1"))
    await until(begun(engine))
    with pytest.raises(DeadlineExceeded):
        await client.transcribe(b"1", timeout=0.2)
    assert not first.done()
    assert (await first).text == "1 bytes"


async def test_the_last_to_leave_ends_the_work(workers: Workers):
    engine = Engine(30)
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    calls = [asyncio.create_task(client.transcribe(b"1")) for _ in range(3)]
    await until(lambda: service.credits.aside == 3)
    for call in calls:
        call.cancel()
    await until(lambda: service.credits.free == 2)
    assert engine.ended == ["cancelled"]
    assert service.stuck_for() == 0
    engine.seconds = 0
    assert (await client.transcribe(b"1")).text == "1 bytes"


async def test_a_failure_that_may_pass_is_tried_again_for_the_next(workers: Workers):
    engine = Engine(0.2)
    engine.errors = [Unavailable("not now"), Unavailable("not yet")]
    await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    answers = await asking(await workers.client(), *[b"1"] * 5)
    assert sorted(type(a).__name__ for a in answers) == ["Transcript"] * 3 + ["Unavailable"] * 2
    assert engine.ended == ["unavailable", "unavailable", "ok"]
    assert engine.most == 1


async def test_a_failure_that_stays_is_told_to_all(workers: Workers):
    engine = Engine(0.4)
    engine.errors = [BadAudio("no audio")]
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    calls = [asyncio.create_task(client.transcribe(b"1")) for _ in range(5)]
    await until(lambda: service.credits.aside == 5)
    for call in calls:
        with pytest.raises(BadAudio, match="no audio"):
            await call
    assert engine.ended == ["bad_audio"]


async def test_who_joins_a_stream_late_hears_all_of_it_once(workers: Workers):
    engine = Engine(0.8, segments=8)
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()

    async def heard() -> tuple[list[str], bool]:
        stream = client.stream(b"1")
        parts = [segment.text async for segment in stream]
        assert stream.transcript is not None
        return parts, stream.transcript.cache_hit

    first = asyncio.create_task(heard())
    await until(begun(engine))
    await asyncio.sleep(0.35)
    late = asyncio.create_task(heard())
    await until(lambda: service.credits.aside == 2)
    parts = [f" part {n}" for n in range(8)]
    assert await first == (parts, False)
    assert await late == (parts, False)
    assert await heard() == (parts, True)
    assert len(engine.runs) == 1


async def test_a_worker_that_stops_answers_all_who_wait(workers: Workers):
    engine = Engine(0.5)
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    calls = [asyncio.create_task(client.transcribe(b"1")) for _ in range(5)]
    await until(lambda: service.credits.aside == 5)
    await service.stop(5)
    assert service.counts == {"ok": 5}
    assert {(await call).text for call in calls} == {"1 bytes"}


async def test_a_worker_that_must_go_sends_all_who_wait_to_another(workers: Workers):
    engine = Engine(30)
    service = await workers.start(engine.stage, cache=MemoryCache(), slots=2)
    client = await workers.client()
    calls = [asyncio.create_task(client.transcribe(b"1")) for _ in range(5)]
    await until(lambda: service.credits.aside == 5)
    engine.seconds = 0.1
    other = await workers.start(engine.stage, cache=MemoryCache())
    await service.stop_now()
    assert {(await call).text for call in calls} == {"1 bytes"}
    assert service.counts == {"stopping": 5}
    assert other.counts == {"ok": 5}


# --- among workers ---------------------------------------------------------------------------


async def test_fifty_equal_requests_over_two_workers_are_heard_once(
    workers: Workers, valkey: ValkeyServer
):
    engine = Engine(0.5)
    services = [await shared(workers, valkey, engine) for _ in range(2)]
    answers = await asking(await workers.client(), *[b"12345"] * 50)
    assert {a.text for a in answers} == {"5 bytes"}
    assert engine.runs == [b"12345"]
    assert {a.worker_id for a in answers} == {"w1", "w2"}
    assert sum(s.counts["ok"] for s in services) == 50
    async with Redis.from_url(valkey.url) as redis:
        assert await redis.keys("transcription:lock:*") == []


async def test_who_waits_for_another_worker_leaves_its_slot_to_others(
    workers: Workers, valkey: ValkeyServer
):
    engine = Engine(1.0)
    services = [await shared(workers, valkey, engine) for _ in range(2)]
    client = await workers.client()
    equal = [asyncio.create_task(client.transcribe(b"1")) for _ in range(6)]
    await until(lambda: sum(len(s._in_hand) for s in services) == 6)
    await until(lambda: sum(s.credits.free for s in services) == 1)
    assert (await client.transcribe(b"22")).text == "2 bytes"
    assert {(await a).text for a in equal} == {"1 bytes"}
    assert engine.runs == [b"1", b"22"]


async def locked(valkey: ValkeyServer, client: TranscribeClient, seconds: float) -> None:
    """Somebody else has the lock of what was asked last, and does nothing for it."""
    async with Redis.from_url(valkey.url) as redis:
        (name,) = [n for n in await redis.keys() if b"samples:" not in n and b"lock:" not in n]
        await redis.delete(name)
        prefix, _, what = name.partition(b":")
        await redis.set(prefix + b":lock:" + what, "nobody", px=int(seconds * 1000))


async def test_work_whose_worker_died_is_taken_over(workers: Workers, valkey: ValkeyServer):
    engine = Engine(0.1)
    service = await shared(workers, valkey, engine, slots=2)
    client = await workers.client()
    await client.transcribe(b"1")
    await locked(valkey, client, 0.7)
    call = asyncio.create_task(client.transcribe(b"1"))
    await until(lambda: service.credits.aside == 2)
    assert (service.credits.busy, service.credits.free) == (0, 2)
    assert not (await call).cache_hit
    assert len(engine.runs) == 2
    await until(lambda: service.credits.free == 2)
    assert service.credits.overshoot == 0


async def test_who_takes_over_waits_for_a_slot_before_new_requests_do(
    workers: Workers, valkey: ValkeyServer
):
    engine = Engine(0)
    service = await shared(workers, valkey, engine)
    client = await workers.client()
    await client.transcribe(b"1")
    await locked(valkey, client, 0.5)
    engine.seconds = 1.0
    waiting = asyncio.create_task(client.transcribe(b"1"))
    await until(lambda: service.credits.aside == 2)
    busy = asyncio.create_task(client.transcribe(b"22"))
    await until(begun(engine))
    late = asyncio.create_task(client.transcribe(b"333"))
    answers: list[Transcript] = await asyncio.gather(waiting, busy, late)
    assert [a.text for a in answers] == ["1 bytes", "2 bytes", "3 bytes"]
    assert engine.runs[1:] == [b"22", b"1", b"333"]
    assert engine.most == 1


async def test_nobody_waits_longer_than_the_work_would_take(
    workers: Workers, valkey: ValkeyServer, monkeypatch
):
    monkeypatch.setattr(room, "LOCKED_FOR", 0.3)
    engine = Engine(0.1)
    await shared(workers, valkey, engine)
    client = await workers.client()
    await client.transcribe(b"1")
    await locked(valkey, client, 60)
    began = time.monotonic()
    assert (await client.transcribe(b"1")).text == "1 bytes"
    assert 0.3 < time.monotonic() - began < 3
    assert len(engine.runs) == 2


async def test_long_work_keeps_its_lock(workers: Workers, valkey: ValkeyServer):
    engine = Engine(room.LOCKED_FOR + 0.8)
    for _ in range(2):
        await shared(workers, valkey, engine)
    answers = await asking(await workers.client(), *[b"1"] * 4)
    assert {a.text for a in answers} == {"1 bytes"}
    assert len(engine.runs) == 1


async def test_given_up_the_work_goes_to_the_worker_that_waits(
    workers: Workers, valkey: ValkeyServer
):
    engine = Engine(1.5)
    service = await shared(workers, valkey, engine)
    client = await workers.client()
    first = asyncio.create_task(client.transcribe(b"1"))
    await until(begun(engine))
    other = await shared(workers, valkey, engine)
    second = asyncio.create_task(client.transcribe(b"1"))
    await until(lambda: other.credits.aside + service.credits.aside >= 2)
    first.cancel()
    assert (await second).text == "1 bytes"


async def test_without_its_redis_a_worker_still_hears_equal_requests_once(
    workers: Workers, valkey: ValkeyServer
):
    engine = Engine(0.4)
    await shared(workers, valkey, engine, slots=2)
    await valkey.stop()
    client = await workers.client()
    for audio in (b"1", b"22"):
        answers = await asking(client, *[audio] * 10)
        assert {a.text for a in answers} == {f"{len(audio)} bytes"}
    assert engine.runs == [b"1", b"22"]


async def test_redis_dies_while_others_wait_for_its_answer(workers: Workers, valkey: ValkeyServer):
    engine = Engine(0.6)
    services = [await shared(workers, valkey, engine) for _ in range(2)]
    client = await workers.client()
    calls = [asyncio.create_task(client.transcribe(b"1")) for _ in range(6)]
    await until(lambda: sum(len(s._in_hand) for s in services) == 6)
    valkey.process.kill()
    assert {(await call).text for call in calls} == {"1 bytes"}
    assert len(engine.runs) <= 2
