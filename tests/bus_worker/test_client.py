"""The caller's side, on a real bus."""

import asyncio

import pytest

from bus_worker import errors
from tests.helpers.house import Workers


async def test_a_clip_comes_back_as_a_transcript(workers: Workers):
    await workers.start(seconds=0)
    client = await workers.client()
    transcript = await client.transcribe(b"123", request_id="mine")
    assert transcript.text == "3 bytes"
    assert transcript.request_id == "mine"
    assert transcript.model.name == "pretend"
    assert transcript.worker_id == "w1"
    assert set(transcript.timings.stages) == {"pretend"}


async def test_more_calls_than_slots_wait_their_turn(workers: Workers):
    await workers.start(seconds=0.02, slots=2)
    client = await workers.client()
    got = await asyncio.gather(*(client.transcribe(b"x" * n) for n in range(30)))
    assert [t.text for t in got] == [f"{n} bytes" for n in range(30)]


async def test_no_worker_is_said_at_once(workers: Workers):
    client = await workers.client()
    with pytest.raises(errors.Unavailable, match="no worker"):
        await client.transcribe(b"x", timeout=5)


async def test_an_unserved_model_is_named_with_those_served(workers: Workers):
    await workers.start()
    client = await workers.client()
    with pytest.raises(errors.ModelNotFound, match="served: pretend") as caught:
        await client.transcribe(b"x", model="large-v3", timeout=5)
    assert caught.value.details["models"] == ["pretend"]


async def test_no_room_by_the_deadline_is_busy(workers: Workers):
    await workers.start(seconds=2)
    client = await workers.client()
    first = asyncio.create_task(client.transcribe(b"x"))
    await asyncio.sleep(0.1)
    with pytest.raises(errors.Busy):
        await client.transcribe(b"x", timeout=0.3)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_segments_stream_before_the_end(workers: Workers):
    await workers.start(seconds=0.3, slots=1)
    client = await workers.client()
    stream = client.stream(b"x", stages={"pretend": {"segments": 3}})
    texts = [segment.text async for segment in stream]
    assert texts == [" part 0", " part 1", " part 2"]
    assert stream.transcript is not None
    assert [s.text for s in stream.transcript.segments] == texts


async def test_a_cancelled_call_frees_its_slot(workers: Workers):
    service = await workers.start(seconds=5)
    client = await workers.client()
    call = asyncio.create_task(client.transcribe(b"x"))
    await asyncio.sleep(0.1)
    assert service.credits.busy == 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    transcript = await client.transcribe(b"xy", stages={"pretend": {"seconds": 0}}, timeout=2)
    assert transcript.text == "2 bytes"
    assert service.counts["cancelled"] == 1
