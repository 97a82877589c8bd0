"""Server-sent events: each segment as it is decoded, and how a stream ends."""

import asyncio
import json
import time

import pytest

from bus_worker.embedded import NatsServer
from tests.helpers.gateway import Gateway, gateway, request
from tests.helpers.house import Workers, until

SLOW = '{"pretend": {"seconds": 1.2, "segments": 3}}'


@pytest.fixture
async def slow_house(bus_server: NatsServer, workers: Workers):
    service = await workers.start(seconds=0, slots=2)
    async with gateway(bus_server.url) as door:
        yield door, service


def events(text: str) -> list[tuple[str, dict]]:
    """Names and data of the events in a stream."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    return [
        (block.split("\n")[0].removeprefix("event: "), json.loads(block.split("\ndata: ")[1]))
        for block in blocks
    ]


@pytest.mark.parametrize("how", ["field", "address", "header"])
async def test_segments_come_as_they_are_decoded_and_the_transcript_last(slow_house, how: str):
    door, _ = slow_house
    began, came, text = time.monotonic(), [], ""
    data = {"stages": SLOW} | ({"stream": "true"} if how == "field" else {})
    headers = {"Accept": "text/event-stream"} if how == "header" else {}
    async with (
        door.caller() as http,
        http.stream(
            "POST",
            "/transcribe?stream=true" if how == "address" else "/transcribe",
            files={"file": bytes(100)}, data=data, headers=headers,
        ) as answer,
    ):  # fmt: skip
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert "content-length" not in answer.headers
        async for piece in answer.aiter_text():
            came.append(time.monotonic() - began)
            text += piece
    names = [name for name, _ in events(text)]
    assert names == ["segment"] * 3 + ["transcript"]
    (_, first), *_, (_, whole) = events(text)
    assert first["text"] == " part 0"
    assert whole["text"] == "100 bytes"
    assert whole["request_id"] == answer.headers["x-request-id"]
    assert came[0] < 1.0 < came[-1]


async def test_a_long_silence_is_filled_with_signs_of_life(slow_house):
    door, _ = slow_house
    async with door.caller() as http:
        answer = await http.post(
            "/transcribe", files={"file": bytes(100)},
            data={"stream": "1", "stages": '{"pretend": {"seconds": 1.3}}'},
        )  # fmt: skip
    assert answer.text.startswith(": working\n\n")
    assert events(answer.text)[-1][0] == "transcript"


async def test_an_error_before_the_stream_is_a_plain_answer(slow_house):
    door, _ = slow_house
    async with door.caller() as http:
        answer = await http.post("/transcribe?stream=true&model=large", files={"file": bytes(100)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_an_error_in_the_stream_is_its_last_event(bus_server: NatsServer, workers: Workers):
    await workers.start(seconds=9, segments=9)
    async with gateway(bus_server.url, request_timeout=1.5) as door, door.caller() as http:
        answer = await http.post("/transcribe?stream=true", files={"file": bytes(100)})
    *_, (name, said) = events(answer.text)
    assert answer.status_code == 200
    assert (name, said["error"]["code"]) == ("error", "deadline_exceeded")
    assert said["error"]["request_id"] == answer.headers["x-request-id"]


async def test_leaving_a_stream_cancels_on_the_bus(slow_house):
    door, service = slow_house
    for body in (bytes(100), bytes(200)):
        async with door.line() as line:
            address = "/transcribe?stream=1&stages=%7B%22pretend%22:%7B%22seconds%22:20%7D%7D"
            await line.say(
                request(body, kind="audio/wav").replace(b"/transcribe", address.encode())
            )
            if body == bytes(100):
                await line.reader.readuntil(b": working")
            else:
                await until(lambda: service.credits.busy)
        await until(lambda: not service.credits.busy)
    assert service.counts["cancelled"] == 2


async def test_a_gateway_told_to_stop_finishes_its_streams(
    bus_server: NatsServer, workers: Workers
):
    await workers.start(seconds=1)

    async def ask(door: Gateway) -> str:
        async with door.caller() as http:
            return (await http.post("/transcribe?stream=1", files={"file": bytes(9)})).text

    async with gateway(bus_server.url) as door:
        asked = asyncio.create_task(ask(door))
        await asyncio.sleep(0.3)
    assert events(await asked)[-1][0] == "transcript"
