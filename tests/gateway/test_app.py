"""A gateway's life: before the bus, without it, after it."""

import asyncio

from bus_worker.embedded import NatsServer
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers


async def test_a_gateway_starts_without_a_bus_and_finds_it_later(
    bus_server: NatsServer, workers: Workers
):
    await workers.start(seconds=0)
    await bus_server.stop()
    async with gateway(bus_server.url) as door, door.caller() as http:
        refused = await http.post("/transcribe", files={"file": bytes(100)})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-should-retry"] == "true"
        assert (await http.get("/live")).status_code == 200
        await bus_server.start()
        async with asyncio.timeout(30):
            while (await http.post("/transcribe", files={"file": bytes(9)})).status_code != 200:  # noqa: ASYNC110 - it is another's
                await asyncio.sleep(0.1)
        await bus_server.stop()
        refused = await http.post("/transcribe", files={"file": bytes(100)})
        assert refused.status_code == 503
        await bus_server.start()


async def test_a_gateway_that_never_finds_its_bus_stops_all_the_same(bus_server: NatsServer):
    await bus_server.stop()
    async with asyncio.timeout(30), gateway(bus_server.url):
        await asyncio.sleep(0.3)
