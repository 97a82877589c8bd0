"""A job over HTTP from its first byte to its last, done by a worker."""

import asyncio

from bus_worker.embedded import NatsServer
from bus_worker.jobs import Limits
from bus_worker.messages import unpack
from bus_worker.testing import pretend
from plugins.decode import decode
from plugins.tidy import tidy
from tests.helpers.gateway import form, gateway
from tests.helpers.house import Workers
from tests.helpers.tones import tone, wav_bytes

LONG = wav_bytes(tone(9.0))


async def test_it_is_done_told_and_erased(bus_server: NatsServer, workers: Workers):
    await workers.start(
        decode, pretend, tidy, options={"decode": {"max_duration": 2.0}}, seconds=0.05,
        slots=2, job_slots=2, jobs=Limits(longest_clip=2.0),
    )  # fmt: skip
    inbox = await (await workers.bus()).client.subscribe("stt.results.mine")
    headers, body = form(
        ("file", LONG, "a.wav", "audio/wav"), ("reply_to", b"stt.results.mine"), ("language", b"de")
    )
    async with gateway(bus_server.url) as door, door.caller() as http:
        answer = await http.post("/jobs", content=body, headers=headers)
        address = answer.headers["location"]
        told = (await http.get(f"{address}/events")).text
        said = (await http.get(address)).json()
        assert (said["status"], said["progress"], said["duration"]) == ("done", 1.0, 9.0)
        assert said["windows"] == told.count("event: segments") >= 5
        assert said["result"]["text"] == " ".join(["part 0"] * said["windows"])
        async with asyncio.timeout(30):
            heard = unpack((await inbox.next_msg()).data)
        assert heard["text"] == said["result"]["text"]
        assert (await http.delete(address)).status_code == 204
        assert (await http.get(address)).status_code == 404
