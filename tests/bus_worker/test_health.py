"""Health never lies: every way in which a worker cannot serve is said, with its reason."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus_worker import bus as bus_room
from bus_worker import health as room
from bus_worker.errors import DeadlineExceeded
from bus_worker.health import DRAINING, NO_BUS_YET, STARTING, Health
from bus_worker.service import Service
from bus_worker.systemd import Systemd
from tests.helpers.house import Workers, until
from tests.helpers.processes import hold
from tests.helpers.scrape import overheard

NOBODY = Systemd({})


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOOK_EVERY", 0.05)


@asynccontextmanager
async def watching(service: Service, stuck_after: float = 60.0) -> AsyncIterator[Health]:
    health = Health(stuck_after, NOBODY)
    health.start()
    health.watch(service._bus, service)
    try:
        yield health
    finally:
        await health.stop()


async def until_said(health: Health, *words: str) -> None:
    await until(lambda: words == tuple(map(str, health.not_ready())), limit=30)


async def test_before_the_model_is_there_it_lives_but_is_not_ready():
    health = Health(60, NOBODY)
    assert health.not_live() == []
    assert health.not_ready() == [STARTING]
    health.model_loaded()
    assert health.not_ready() == [NO_BUS_YET]


async def test_a_busy_worker_is_ready(workers: Workers):
    service = await workers.start(seconds=0.5)
    async with watching(service) as health:
        assert health.not_ready() == []
        client = await workers.client()
        asking = asyncio.create_task(client.transcribe(b"12"))
        await until(lambda: service.credits.busy == 1)
        await asyncio.sleep(0.05 * (room.DEAF_AFTER + 2))
        assert service.credits.free == 0
        assert health.not_ready() == []
        await asking


async def test_a_bus_that_is_gone_is_said_and_its_return_too(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    service = await workers.start(seconds=0)
    async with watching(service) as health:
        lines = overheard(monkeypatch, "bus_worker.health")
        await workers.server.stop()
        await until_said(health, "the bus is away")
        await workers.server.start()
        await until_said(health)
        assert [line["event"] for line in lines] == ["not_ready", "ready_again"]
        assert lines[0]["reasons"] == ["the bus is away"]
        assert health.not_live() == []


async def test_a_bus_that_hangs_is_said(workers: Workers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bus_room, "WATCH_EVERY", 0.2)
    monkeypatch.setattr(bus_room, "RTT_TIMEOUT", 60)
    monkeypatch.setattr(room, "SILENT_AFTER", 1.0)
    service = await workers.start(seconds=0)
    async with watching(service) as health:
        await asyncio.sleep(1.2)
        assert health.not_ready() == []
        pid = workers.server.process.pid
        hold(pid)
        try:
            await until(health.not_ready, limit=30)
            assert "the bus has not answered for" in health.not_ready()[0]
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_subscription_whose_task_has_died_is_said(workers: Workers):
    service = await workers.start(seconds=0)
    async with watching(service) as health:
        (sub,) = service.credits._idle
        sub._wait_for_msgs_task.cancel()
        await until_said(health, "a subscription has died")


async def test_room_that_is_not_offered_is_said(workers: Workers):
    service = await workers.start(seconds=0)
    async with watching(service) as health:
        service.credits._take_all(service.credits._idle.pop())  # lost, as by a mistake of ours
        await until_said(health, "a subscription has died")


async def test_a_thread_that_hangs_is_said_at_half_the_patience(workers: Workers):
    service = await workers.start(seconds=0, stubborn=1.5)
    async with watching(service, stuck_after=1.0) as health:
        client = await workers.client(timeout=0.2)
        with pytest.raises(DeadlineExceeded):
            await client.transcribe(b"12")
        await until(health.not_ready)
        assert health.not_ready()[0].startswith("a thread is stuck for")
        await until(lambda: not health.not_ready())


async def test_a_worker_that_drains_says_so_at_once(workers: Workers):
    service = await workers.start(seconds=0)
    async with watching(service) as health:
        health.drain()
        assert health.not_ready() == [DRAINING]
        assert health.not_live() == []


async def test_an_event_loop_that_stands_still_does_not_live(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "STANDS_AFTER", 0.2)
    health = Health(60, NOBODY)
    health.start()
    await asyncio.sleep(0.5)
    assert health.not_live() == []
    blocked = asyncio.Event()

    def block() -> None:
        import time  # noqa: PLC0415 - here it must not be asyncio's

        time.sleep(0.4)
        assert "stands still" in health.not_live()[0]
        assert len(health.not_ready()) == 2
        blocked.set()

    asyncio.get_running_loop().call_soon(block)
    await blocked.wait()
    await health.stop()


async def test_systemd_hears_of_each_turn_and_of_what_is_wrong(workers: Workers, tmp_path: Path):
    service = await workers.start(seconds=0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(5)
        systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"})
        health = Health(60, systemd)
        health.start()
        await asyncio.sleep(0.3)
        health.watch(service._bus, service)
        health.drain()
        await health.stop()
        said = []
        while not said or DRAINING not in said[-1]:
            said.append(ear.recv(4096).decode())
    assert said[0] == f"STATUS={STARTING}"
    assert said.count("WATCHDOG=1") >= 2
    rest = [line for line in said[1:] if line != "WATCHDOG=1"]
    assert rest == ["STATUS=ready", "READY=1", "STOPPING=1", f"STATUS={DRAINING}"]
