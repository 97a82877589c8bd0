"""The connection: lost, silent, dead, back, gone; and who may be answered."""

import asyncio
import signal

import pytest
from nats.aio.msg import Msg

from bus_worker import bus as bus_module
from bus_worker.bus import Address, Bus, connect, header, may_answer
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.errors import Unavailable
from tests.helpers.house import hears, until
from tests.helpers.processes import hold
from tests.helpers.shell import NOBODY


async def test_a_lost_bus_is_told_and_comes_back(bus_server: NatsServer):
    async with connect(Address((bus_server.url,))) as bus:
        told: list[str] = []

        async def lost() -> None:
            told.append("lost")
            raise RuntimeError("a listener's bug must not end the reconnect")

        async def back() -> None:
            told.append("back")

        bus.on_lost.append(lost)
        bus.on_back.append(back)
        await bus_server.stop()
        await until(lambda: told == ["lost"])
        assert not bus.connected
        await bus_server.start()
        await until(lambda: told == ["lost", "back"])
        assert await hears(bus.client)


async def test_a_silent_server_is_noticed_and_left(bus_server: NatsServer, monkeypatch):
    monkeypatch.setattr(bus_module, "WATCH_EVERY", 0.1)
    monkeypatch.setattr(bus_module, "RTT_TIMEOUT", 0.2)
    async with connect(Address((bus_server.url,))) as bus:
        hold(bus_server.process.pid)
        await until(lambda: not bus.connected)
        bus_server.process.send_signal(signal.SIGCONT)
        await until(lambda: bus.connected)
        assert await hears(bus.client)


async def test_a_dead_read_loop_is_noticed_and_mended(bus_server: NatsServer, monkeypatch):
    monkeypatch.setattr(bus_module, "WATCH_EVERY", 0.1)
    monkeypatch.setattr(bus_module, "RTT_TIMEOUT", 0.2)
    async with connect(Address((bus_server.url,))) as bus:
        bus.client._reading_task.cancel()
        await until(lambda: bus.client.stats["reconnects"] == 1)
        assert await hears(bus.client)


async def test_an_end_for_good_is_told(bus_server: NatsServer):
    async with connect(Address((bus_server.url,))) as bus:
        await bus.client._process_err("'Invalid Client Protocol'")
        await until(bus.gone.is_set)


async def test_a_dead_reconnect_is_an_end_for_good(bus_server: NatsServer, monkeypatch):
    monkeypatch.setattr(bus_module, "WATCH_EVERY", 0.05)
    async with connect(Address((bus_server.url,))) as bus:
        await bus_server.stop()
        await until(lambda: not bus.connected)
        bus.client._reconnection_task.cancel()
        await until(bus.gone.is_set)


async def test_who_gives_up_connecting_is_let_go(monkeypatch: pytest.MonkeyPatch):
    """Though the cancellation meets a refused connection and is lost, as in Python 3.11 it can be."""
    lost: list[bool] = []

    async def connect(**_: object) -> None:
        while True:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(True)

    bus = Bus()
    monkeypatch.setattr(bus.client, "connect", connect)
    opening = asyncio.create_task(bus.open(Address((NOBODY,)), limit=None))
    await asyncio.sleep(0.05)
    opening.cancel()
    done, _ = await asyncio.wait({opening}, timeout=10)
    assert done == {opening}
    assert lost


async def test_nobody_there_is_one_sentence():
    with pytest.raises(Unavailable, match=r"nats://127.0.0.1:1.*is nats-server running"):
        await Bus().open(Address(("nats://127.0.0.1:1",)), limit=0.5)


async def test_wrong_credentials_are_said_at_once_and_never_shown():
    async with nats_server(token="right") as server:
        url = f"nats://wrong-secret@127.0.0.1:{server.port}"
        with pytest.raises(Unavailable, match="Authorization") as caught:
            await Bus().open(Address((url,)), limit=10)
        assert "wrong-secret" not in str(caught.value)


def test_only_inboxes_are_answered():
    assert may_answer("_INBOX.abc.def")
    for subject in (
        "",
        "stt.control.cancel",
        "$JS.API.STREAM.DELETE.X",
        "_INBOX.>",
        "_INBOX.*",
    ):
        assert not may_answer(subject)


def test_headers_are_found_whatever_their_case():
    msg = Msg(_client=None, headers={"stt-deadline": "1", "Stt-Call-Id": "x"})
    assert header(msg, "Stt-Deadline") == "1"
    assert header(msg, "Stt-Call-Id") == "x"
    assert header(msg, "Nope") is None
