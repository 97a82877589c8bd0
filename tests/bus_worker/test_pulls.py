"""Work is brought one message at a time, and what nobody asks for any more goes straight back."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus_worker import pulls, streams
from bus_worker.bus import Bus
from bus_worker.embedded import NatsServer
from bus_worker.pulls import Pulls, WorkQueue
from bus_worker.streams import make_streams
from tests.helpers.house import NAMES, Workers, until

LOW = WorkQueue("STT_JOBS", "pretend-low")
HIGH = WorkQueue("STT_JOBS", "pretend-high")


@asynccontextmanager
async def asking(workers: Workers, ack_wait: float = 10.0) -> AsyncIterator[tuple[Pulls, Bus]]:
    """Questions on a connection of their own, on a bus with queues."""
    bus = await workers.bus()
    await make_streams(bus.client, NAMES, "pretend")
    asked = Pulls(bus, ack_wait)
    await asked.start()
    yield asked, bus
    await asked.stop()


async def put(workers: Workers, *messages: bytes, priority: str = "low") -> None:
    js = (await workers.bus()).client.jetstream()
    for data in messages:
        await js.publish(f"stt.jobs.pretend.{priority}", data)


async def asked_for(seconds: float, asked: Pulls) -> int:
    """How often a loop without pauses asks a queue that has nothing."""
    times = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while await asked.next([LOW]) is None:
                times += 1
    return times


async def test_a_message_that_comes_later_is_brought(workers: Workers):
    async with asking(workers) as (asked, _):
        coming = asyncio.create_task(asked.next([HIGH, LOW]))
        await until(lambda: set(asked._asked) == {HIGH, LOW})
        await put(workers, b"one")
        held = await coming
        assert held is not None
        assert (held.data, held.queue, held.delivered) == (b"one", LOW, 1)


async def test_an_empty_queue_has_nothing_now(workers: Workers):
    async with asking(workers) as (asked, _):
        assert await asked.now(LOW) is None
        await put(workers, b"one")
        held = await asked.now(LOW)
        assert held is not None
        await held.done()
        assert await asked.now(LOW) is None


async def test_what_a_withdrawn_question_brings_goes_straight_back(workers: Workers):
    async with asking(workers) as (asked, _), asking(workers) as (another, _):
        coming = asyncio.create_task(asked.next([LOW]))
        await until(lambda: LOW in asked._asked)
        await asyncio.sleep(0.05)  # the server has the question
        coming.cancel()
        await asyncio.wait({coming})
        await put(workers, b"one")
        async with asyncio.timeout(5):  # far less than the queue waits for a dead worker
            held = await another.next([LOW])
        assert held is not None
        assert held.delivered == 2


async def test_of_two_messages_at_once_one_goes_straight_back(workers: Workers):
    async with asking(workers) as (asked, _), asking(workers) as (another, _):
        await put(workers, b"one")
        await put(workers, b"two", priority="high")
        first = await asked.next([HIGH, LOW])
        assert first is not None
        left = LOW if first.queue == HIGH else HIGH
        async with asyncio.timeout(5):
            held = await another.next([left])
        assert held is not None
        assert {first.data, held.data} == {b"one", b"two"}


async def test_a_restarted_server_is_asked_again(workers: Workers, bus_server: NatsServer):
    async with asking(workers) as (asked, bus):
        coming = asyncio.create_task(asked.next([LOW], seconds=60.0))
        await until(lambda: LOW in asked._asked)
        await bus_server.stop()
        await until(lambda: not bus.connected)
        await bus_server.start()
        async with asyncio.timeout(30):
            assert await coming is None  # at once: no answer would come before the minute is over
        await put(workers, b"one")
        held = await asked.next([LOW])
        assert held is not None
        assert held.data == b"one"


async def test_a_consumer_that_goes_is_said_once_and_asked_slowly_until_it_is_back(
    workers: Workers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pulls, "PAUSE", 0.1)
    caplog.set_level(logging.INFO, "bus_worker.pulls")
    async with asking(workers) as (asked, bus):
        coming = asyncio.create_task(asked.next([LOW]))
        await until(lambda: LOW in asked._asked)
        await asyncio.sleep(0.05)  # the server has the question
        await bus.client.jetstream().delete_consumer(LOW.stream, LOW.consumer)
        assert await coming is None
        assert await asked_for(0.5, asked) <= 5
        assert await asked.now(LOW) is None
        assert [line.levelname for line in caplog.records] == ["WARNING"]
        await make_streams(bus.client, NAMES, "pretend")
        await put(workers, b"one")
        held = await asked.next([LOW])
        assert held is not None
        assert [line.levelname for line in caplog.records] == ["WARNING", "INFO"]


async def test_a_queue_with_too_many_questions_is_no_busy_loop(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(streams, "MAX_PULLS", 1)
    monkeypatch.setattr(pulls, "PAUSE", 0.2)
    async with asking(workers) as (asked, _), asking(workers) as (another, _):
        waits = asyncio.create_task(asked.next([LOW], seconds=1.0))
        await until(lambda: LOW in asked._asked)
        await asyncio.sleep(0.05)
        assert await asked_for(0.5, another) <= 3
        assert len([line for line in caplog.records if line.name == "bus_worker.pulls"]) == 1
        await put(workers, b"one")
        assert await waits is not None


async def test_a_message_in_hand_stays_there_past_the_time_for_dead_workers(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "ACK_WAIT", 0.3)
    async with asking(workers, 0.3) as (asked, _):
        await put(workers, b"one")
        held = await asked.now(LOW)
        assert held is not None
        async with held.kept_alive():
            assert await asked.next([LOW], seconds=1.0) is None
        again = await asked.next([LOW])  # and not longer
        assert again is not None
        assert again.delivered == 2


async def test_what_is_given_back_for_later_comes_later(workers: Workers):
    async with asking(workers) as (asked, _):
        await put(workers, b"one")
        held = await asked.now(LOW)
        assert held is not None
        await held.back(0.4)
        assert await asked.now(LOW) is None
        again = await asked.next([LOW])
        assert again is not None
        await again.back()
        async with asyncio.timeout(5):
            at_once = await asked.next([LOW])
        assert at_once is not None
        assert at_once.delivered == 3


async def test_what_is_buried_never_comes_again(workers: Workers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "ACK_WAIT", 0.2)
    async with asking(workers, 0.2) as (asked, _):
        await put(workers, b"one")
        held = await asked.now(LOW)
        assert held is not None
        await held.buried()
        assert await asked.next([LOW], seconds=0.6) is None


async def test_what_is_no_work_harms_nothing(workers: Workers):
    async with asking(workers) as (asked, _):
        stranger = (await workers.bus()).client
        for reply in ("", "x", "$JS.ACK.a.b", "$JS.ACK.a.b.c.d.e.f.g"):
            await stranger.publish(f"{asked._inbox}.x", b"work", reply=reply)
        await stranger.flush()
        await put(workers, b"one")
        held = await asked.next([LOW])
        assert held is not None
