"""Two hundred callers who leave when they like: no slot of a worker stays taken."""

import asyncio
import random

from bus_worker.embedded import NatsServer
from tests.helpers.gateway import Gateway, gateway, request
from tests.helpers.house import Workers
from tests.helpers.processes import figures


async def leaves_at_random(door: Gateway, chance: random.Random) -> None:
    audio = chance.randbytes(100) + bytes(chance.choice([0, 5000, 1_500_000]))
    body = request(audio, kind="audio/wav")
    if chance.random() < 0.3:
        body = body.replace(b"/transcribe", b"/transcribe?stream=true")
    async with door.line() as line:
        await line.say(body[: chance.randrange(len(body) + 1)] if chance.random() < 0.3 else body)
        await asyncio.sleep(chance.random() * 0.5)


async def test_no_slot_stays_taken_by_those_who_left(bus_server: NatsServer, workers: Workers):
    await workers.start(seconds=1, slots=4)
    await workers.start(seconds=1, slots=4)
    watcher = (await workers.bus()).client
    chance = random.Random(7)
    async with gateway(bus_server.url, api_key_requests=300) as door, door.caller() as http:
        async with asyncio.TaskGroup() as callers:
            for _ in range(200):
                callers.create_task(leaves_at_random(door, chance))
        async with asyncio.timeout(30):
            while any(one["in_flight"] for one in (await figures(watcher)).values()):
                pass  # each question waits a little for its answers
        asked = [http.post("/transcribe", files={"file": bytes(100 + n)}) for n in range(8)]
        async with asyncio.timeout(3):
            assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 8
        text = (await http.get("/metrics")).text
    assert "bus_gateway_requests_in_hand 1.0" in text
    found = await figures(watcher)
    assert len(found) == 2
    assert [one["stuck"] for one in found.values()] == [0, 0]
    assert sum(one["answers"]["cancelled"] for one in found.values()) > 3
