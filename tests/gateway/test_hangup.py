"""A caller who leaves takes the work along."""

import asyncio
import time

import pytest

from bus_worker.embedded import NatsServer
from tests.helpers.gateway import gateway, request
from tests.helpers.house import Workers, until


async def test_a_caller_who_hangs_up_cancels_on_the_bus(bus_server: NatsServer, workers: Workers):
    service = await workers.start(seconds=20)
    async with gateway(bus_server.url) as door:
        async with door.line() as line:
            await line.say(request(bytes(5000), kind="audio/wav"))
            await until(lambda: service.credits.busy)
            left = time.monotonic()
        await until(lambda: not service.credits.busy)
        assert time.monotonic() - left < 1
    await until(lambda: service.counts["cancelled"] == 1)


async def test_a_caller_who_hangs_up_while_nobody_has_room_is_forgotten(
    bus_server: NatsServer, workers: Workers
):
    service = await workers.start(seconds=0.8)
    async with gateway(bus_server.url) as door, door.caller() as http:
        first = asyncio.create_task(http.post("/transcribe", files={"file": bytes(100)}))
        await until(lambda: service.credits.busy)
        async with door.line() as line:
            await line.say(request(bytes(5000), kind="audio/wav"))
            await asyncio.sleep(0.2)
        assert (await first).status_code == 200
        last = await http.post("/transcribe", files={"file": bytes(200)})
        assert last.json()["text"] == "200 bytes"
    assert service.counts["ok"] == 2


@pytest.mark.parametrize("sent", [0, 10, 4999])
async def test_a_caller_who_hangs_up_in_the_middle_of_a_body_is_forgotten(
    bus_server: NatsServer, workers: Workers, sent: int
):
    service = await workers.start(seconds=0)
    async with gateway(bus_server.url) as door, door.caller() as http:
        async with door.line() as line:
            await line.say(request(bytes(sent), 5000, kind="audio/wav"))
        assert (await http.post("/transcribe", files={"file": bytes(100)})).status_code == 200
    assert service.counts == {"ok": 1}
