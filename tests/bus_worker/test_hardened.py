"""The hardened client: each override against the same trouble on nats-py's own class, which must fail."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, FlushTimeoutError, MaxPayloadError

from bus_worker.embedded import NatsServer, nats_server
from bus_worker.hardened import HardenedClient
from tests.helpers.house import hears, until
from tests.helpers.processes import hold
from tests.helpers.wire import RecordingProxy, raw_publish

pytestmark = pytest.mark.parametrize("kind", [HardenedClient, Client])


@contextlib.asynccontextmanager
async def connected(kind: type[Client], url: str, **options) -> AsyncIterator[Client]:
    client = kind()
    await client.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, **options)
    try:
        yield client
    finally:
        with contextlib.suppress(Error, OSError):
            await client.close()


async def test_a_pong_after_its_flush_gave_up_does_no_harm(kind, bus_server: NatsServer):
    async with connected(kind, bus_server.url) as client:
        hold(bus_server.process.pid)
        with pytest.raises(FlushTimeoutError):
            await client.flush(0.1)
        bus_server.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.2)
        assert await hears(client) is (kind is HardenedClient)


@pytest.mark.parametrize("headers", [None, {"Status": "503"}], ids=["answer", "nobody-listens"])
async def test_a_request_cancelled_at_the_moment_of_its_answer_is_cancelled(
    kind, headers, bus_server: NatsServer
):
    async def heard(_: Msg) -> None:
        """Say nothing."""

    async with connected(kind, bus_server.url) as client:
        await client.subscribe("silent", cb=heard)
        asking = asyncio.create_task(client.request("silent", b"", timeout=5))
        await until(lambda: client._resp_map)
        await asyncio.sleep(0.05)
        (answer,) = client._resp_map.values()
        answer.set_result(Msg(client, headers=headers))
        asking.cancel()
        await asyncio.wait({asking}, timeout=2)
        healed = kind is HardenedClient or sys.version_info >= (3, 12)  # by asyncio itself
        assert asking.cancelled() is healed


@pytest.mark.parametrize("what", ["rtt", "flush"])
async def test_a_ping_cancelled_at_the_moment_of_its_pong_is_cancelled(
    kind, what, bus_server: NatsServer
):
    async with connected(kind, bus_server.url) as client:
        hold(bus_server.process.pid)
        try:
            asking = asyncio.create_task(getattr(client, what)(5))
            await until(lambda: client._pongs)
            client._pongs[-1].set_result(True)
            asking.cancel()
            await asyncio.wait({asking}, timeout=2)
        finally:
            bus_server.process.send_signal(signal.SIGCONT)
        healed = kind is HardenedClient or sys.version_info >= (3, 12)
        assert asking.cancelled() is healed


async def test_a_publish_that_is_cancelled_while_it_waits_for_the_writer_is_cancelled(
    kind, bus_server: NatsServer
):
    async with connected(kind, bus_server.url) as client:
        client._flusher_task.cancel()
        await asyncio.wait({client._flusher_task})
        client._flusher_task = asyncio.create_task(
            asyncio.sleep(60)
        )  # a writer that takes its time
        publishing = asyncio.create_task(client._flush_pending(force_flush=True))
        await asyncio.sleep(0.01)
        publishing.cancel()
        await asyncio.wait({publishing}, timeout=2)
        client._flusher_task.cancel()
        assert publishing.cancelled() is (kind is HardenedClient)


@pytest.mark.parametrize(
    "block",
    [
        b"\r\n",
        b"\r\n\r\n",
        b"N",
        b"NATS/1.0",
        b"NATS/1.0 \xff\xfe\r\n\r\n",
        b"NATS/1.0 50\xff\r\n\r\n",
    ],
    ids=["short", "empty", "one-byte", "unended", "not-utf8-status", "not-utf8-code"],
)
async def test_malformed_headers_cost_one_message(kind, block, bus_server: NatsServer):
    async with connected(kind, bus_server.url) as client:

        async def cb(_: Msg) -> None: ...

        await client.subscribe("stt.>", cb=cb)
        await client.flush()
        await raw_publish(bus_server, "stt.x", b"bad", headers=block)
        assert await hears(client) is (kind is HardenedClient)


async def test_a_subject_that_is_no_text_costs_one_message(kind, bus_server: NatsServer):
    async with connected(kind, bus_server.url) as client:

        async def cb(_: Msg) -> None: ...

        await client.subscribe("stt.>", cb=cb)
        await client.flush()
        await raw_publish(bus_server, b"stt.\xff\xfe", b"x")
        assert await hears(client) is (kind is HardenedClient)


async def test_an_error_callback_that_raises_does_no_harm(kind, bus_server: NatsServer):
    async def error_cb(_: Exception) -> None:
        raise RuntimeError("a bug of the service's")

    async with connected(kind, bus_server.url, error_cb=error_cb) as client:
        stay = asyncio.Event()

        async def cb(_: Msg) -> None:
            await stay.wait()

        await client.subscribe("slow", cb=cb, pending_msgs_limit=1)
        for _ in range(4):  # one in hand, one pending, the third is a slow consumer
            await client.publish("slow", b"x")
        with contextlib.suppress(Error):
            await client.flush(1)
        assert await hears(client) is (kind is HardenedClient)
        stay.set()


async def test_a_handler_that_awaits_something_cancelled_gets_the_next_message(
    kind, bus_server: NatsServer
):
    async with connected(kind, bus_server.url) as client:
        got: list[bytes] = []

        async def cb(msg: Msg) -> None:
            got.append(msg.data)
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

        await client.subscribe("x", cb=cb)
        for data in (b"1", b"2"):
            await client.publish("x", data)
            await client.flush()
            await asyncio.sleep(0.05)
        assert got == ([b"1", b"2"] if kind is HardenedClient else [b"1"])


async def test_ordered_consumers_on_new_ack_subjects_leave_the_connection_alive(kind, tmp_path):
    async with nats_server() as template:
        conf = (template._folder / "nats-server.conf").read_text()
    conf = conf.replace("js_ack_fc_v2: false", "js_ack_fc_v2: true")
    conf = conf.replace(str(template._folder), str(tmp_path))
    server = NatsServer(conf, tmp_path)
    await server.start()
    try:
        async with connected(kind, server.url) as client:
            js = client.jetstream()
            await js.add_stream(name="S", subjects=["s"])
            await js.publish("s", b"x")

            async def cb(_: Msg) -> None: ...

            await js.subscribe("s", ordered_consumer=True, cb=cb)
            await asyncio.sleep(0.2)
            assert await hears(client) is (kind is HardenedClient)
    finally:
        await server.stop()


async def test_a_flush_comes_after_what_was_written_before_it(kind, bus_server: NatsServer):
    async with RecordingProxy(bus_server.port) as proxy, connected(kind, proxy.url) as client:

        async def cb(_: Msg) -> None: ...

        del proxy.sent[:]
        sub = await client.subscribe("x", cb=cb)
        await client._send_unsubscribe(sub._id)
        await client.flush()
        sent = bytes(proxy.sent)
        ordered = sent.index(b"UNSUB") < sent.index(b"PING")
        assert ordered is (kind is HardenedClient)


async def test_headers_count_towards_the_largest_message(kind, bus_server: NatsServer):
    async with connected(kind, bus_server.url) as client:
        body = bytes(client.max_payload)
        if kind is HardenedClient:
            with pytest.raises(MaxPayloadError):
                await client.publish("x", body, headers={"A": "b"})
            assert await hears(client)
        else:
            await client.publish("x", body, headers={"A": "b"})
            await until(lambda: client.is_closed)


async def test_a_subscription_made_while_the_bus_is_away_is_there_once_it_is_back(
    kind, bus_server: NatsServer
):
    async with connected(kind, bus_server.url) as client:
        await bus_server.stop()
        await until(lambda: not client.is_connected)
        got: list[bytes] = []

        async def cb(msg: Msg) -> None:
            got.append(msg.data)

        sub = await client.subscribe("x", cb=cb)
        assert any(c.startswith(b"SUB ") for c in client._pending) is (kind is Client)
        await bus_server.start()
        await until(lambda: client.is_connected)
        await client.publish("x", b"1")
        await until(lambda: got == [b"1"])
        assert sub.delivered == 1
