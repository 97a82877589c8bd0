"""The caller's side, on a real bus."""

import asyncio
import contextlib
import time

import nats
import pytest
from nats.aio.msg import Msg

from bus_worker import errors, waiting_room
from bus_worker.client import TranscribeClient
from bus_worker.embedded import NatsServer
from bus_worker.messages import unpack
from bus_worker.plugin import Draft, NoOptions, stage
from tests.helpers.house import Workers, until


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


async def test_a_busy_model_is_not_taken_for_an_unserved_one(workers: Workers):
    await workers.start(seconds=0.3, model="one")
    await workers.start(seconds=0.3, model="two")
    client = await workers.client()

    async def ask(model: str, after: float) -> str:
        await asyncio.sleep(after)
        return (await client.transcribe(b"123", model=model)).text

    for first, second in (("one", "two"), ("two", "one")):
        # Who waits for the first has asked who is there, just before the second is refused too.
        asking = [ask(first, 0), ask(first, 0.02), ask(second, 0), ask(second, 0.1)]
        assert await asyncio.gather(*asking) == ["3 bytes"] * 4


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


async def test_a_connection_the_service_has_is_used_and_left_open(workers: Workers):
    await workers.start(seconds=0)
    nc = await nats.connect(workers.server.url)
    try:
        async with TranscribeClient(nc=nc) as client:
            assert (await client.transcribe(b"12")).text == "2 bytes"
        assert nc.is_connected
        assert len(nc._subs) == 0
    finally:
        await nc.close()


async def test_a_connection_whose_inboxes_nobody_answers_is_refused(workers: Workers):
    nc = await nats.connect(workers.server.url, inbox_prefix="mine")
    try:
        with pytest.raises(errors.BadRequest, match="inbox_prefix"):
            await TranscribeClient(nc=nc).open()
    finally:
        await nc.close()


async def test_without_a_model_the_servers_default_answers(workers: Workers):
    await workers.start(seconds=0)
    client = await workers.client(model=None)
    assert (await client.transcribe(b"1")).model.name == "pretend"


async def test_one_who_names_no_model_waits_for_the_one_that_answered_before(workers: Workers):
    await workers.start(seconds=0.1)
    await workers.start(seconds=0, model="other")
    hints: list[str] = []

    async def cb(msg: Msg) -> None:
        hints.append(unpack(msg.data)["model"])

    watching = await workers.bus()
    await watching.client.subscribe("stt.control.waiting", cb=cb)
    await watching.confirmed()
    client = await workers.client(model=None)
    await client.transcribe(b"1")
    await asyncio.gather(client.transcribe(b"2"), client.transcribe(b"3"))
    await until(lambda: bool(hints))
    assert set(hints) == {"pretend"}


async def test_before_any_answer_one_who_names_no_model_asks_until_there_is_room(
    workers: Workers,
):
    await workers.start(seconds=0.3)
    await workers.start(seconds=0, model="other")
    client = await workers.client(model=None)
    got = await asyncio.gather(*(client.transcribe(b"x" * n) for n in range(3)))
    assert [(t.text, t.model.name) for t in got] == [(f"{n} bytes", "pretend") for n in range(3)]


async def test_without_a_model_and_a_mapping_the_only_model_answers(workers: Workers):
    await workers.start(seconds=0, model="other.en")
    client = await workers.client(model=None)
    assert (await client.transcribe(b"1")).model.name == "other.en"


async def test_a_model_may_be_named_with_dots_or_underscores(workers: Workers):
    await workers.start(seconds=0, model="tiny.en")
    client = await workers.client()
    for name in ("tiny.en", "tiny_en"):
        assert (await client.transcribe(b"1", model=name)).model.name == "tiny.en"


@pytest.mark.parametrize("model", ["", "a b", "a>b", "*", "../x", "é", "a" * 500 + ">"])
async def test_no_subject_is_built_from_a_strange_name(model, workers: Workers):
    client = await workers.client(model=None)
    if model:
        with pytest.raises(errors.BadRequest, match="model"):
            await client.transcribe(b"1", model=model)


async def test_fifty_who_wait_send_their_audio_about_once(workers: Workers):
    """Fifty refused waiters that resend 300 KB each moved 456 MB/s: a hint of a few bytes asks instead."""
    await workers.start(seconds=0.02)
    client = await workers.client(timeout=30)
    nc = client._inbox.nc
    before = nc.stats["out_bytes"]
    await asyncio.gather(*(client.transcribe(bytes(100_000)) for _ in range(50)))
    sent = (nc.stats["out_bytes"] - before) / 100_000
    # All fifty are refused once at most before they know; then each goes when there is room.
    assert sent < 50 + 50 + 5


async def test_a_freed_slot_is_taken_at_once_by_the_one_who_waits(workers: Workers):
    service = await workers.start(seconds=0.3)
    client = await workers.client()
    first = asyncio.create_task(client.transcribe(b"1"))
    await until(lambda: service.credits.busy == 1)
    transcript = await client.transcribe(b"2", stages={"pretend": {"seconds": 0}})
    assert first.done()
    assert transcript.timings.queue < 0.05


async def test_waiters_are_served_in_their_order(workers: Workers, monkeypatch: pytest.MonkeyPatch):
    # However busy the machine is, nobody is forgotten or takes too long.
    monkeypatch.setattr(waiting_room, "REMEMBERED", 60.0)
    monkeypatch.setattr(waiting_room, "TAKES", 10.0)
    gate, order = asyncio.Event(), list[int]()

    @stage(gives=("segments", "text"))
    async def gated(draft: Draft, _: NoOptions) -> None:
        """Wait."""
        await gate.wait()
        draft.text = "through"

    service = await workers.start(gated)
    client = await workers.client()

    async def one(number: int) -> None:
        await client.transcribe(b"x")
        order.append(number)

    tasks = [asyncio.create_task(one(0))]
    await until(lambda: service.credits.busy)
    for number in range(1, 20):
        tasks.append(asyncio.create_task(one(number)))
        await until(lambda: len(service.waiting._until) == number)  # noqa: B023 - it is waited for
    gate.set()
    await asyncio.gather(*tasks)
    assert order == list(range(20))


async def test_a_worker_that_vanishes_is_noticed_and_another_asked(workers: Workers):
    dead = await workers.start(seconds=30)
    client = await workers.client()
    call = asyncio.create_task(client.transcribe(b"123"))
    await until(lambda: dead.credits.busy == 1)
    await workers.start(seconds=0)
    began = time.monotonic()
    dead._bus.client.options["allow_reconnect"] = False
    dead._bus.client._transport._io_writer.transport.abort()  # as kill -9 does to its socket
    transcript = await call
    assert transcript.worker_id == "w2"
    assert time.monotonic() - began < 6


async def test_leaving_a_stream_cancels_its_request(workers: Workers):
    service = await workers.start(seconds=3)
    client = await workers.client()
    stream = client.stream(b"x", stages={"pretend": {"segments": 10}})
    async with contextlib.aclosing(aiter(stream)) as segments:
        async for _ in segments:
            break
    await until(lambda: service.counts["cancelled"] == 1)
    assert stream.transcript is None


async def test_a_streams_error_comes_out_of_its_loop(workers: Workers):
    await workers.start()
    client = await workers.client()
    with pytest.raises(errors.BadRequest, match="nope"):
        async for _ in client.stream(b"x", stages={"pretend": {"nope": 1}}):
            pass


async def test_a_request_while_the_bus_is_away_ends_at_its_deadline(
    workers: Workers, bus_server: NatsServer
):
    await workers.start(seconds=0)
    client = await workers.client()
    await bus_server.stop()
    await until(lambda: not client.connected)
    with pytest.raises(errors.Unavailable, match="bus was away"):
        await client.transcribe(b"1", timeout=0.3)
    await bus_server.start()
    assert (await client.transcribe(b"1", timeout=10)).text == "1 bytes"


async def test_an_answer_survives_a_restart_of_the_bus(workers: Workers, bus_server: NatsServer):
    service = await workers.start(seconds=1.0)
    client = await workers.client()
    call = asyncio.create_task(client.transcribe(b"123", timeout=20))
    await until(lambda: service.credits.busy == 1)
    await bus_server.stop()
    await bus_server.start()
    assert (await call).text == "3 bytes"


async def test_more_than_the_bus_takes_is_refused_with_what_to_do(workers: Workers):
    await workers.start()
    client = await workers.client()
    with pytest.raises(errors.TooLarge, match="max_payload"):
        await client.transcribe(bytes(8 * 1024 * 1024))


async def test_a_client_that_is_not_open_says_so():
    with pytest.raises(errors.Unavailable, match="not open"):
        await TranscribeClient().transcribe(b"x")


async def test_an_unknown_option_is_named(workers: Workers):
    await workers.start()
    client = await workers.client()
    with pytest.raises(errors.BadRequest, match=r"options\.lingo"):
        await client.transcribe(b"x", lingo="de")


async def test_workers_are_listed_with_their_models(workers: Workers):
    await workers.start()
    await workers.start(model="tiny.en")
    client = await workers.client()
    assert [(w.id, w.model) for w in await client.workers()] == [
        ("w1", "pretend"),
        ("w2", "tiny.en"),
    ]


async def test_one_client_serves_two_models_at_once(workers: Workers):
    """A full house of one model holds up nobody who wants the other."""
    busy = await workers.start(seconds=1)
    await workers.start(seconds=0, model="tiny.en")
    client = await workers.client()
    slow = [asyncio.create_task(client.transcribe(b"x")) for _ in range(2)]
    await until(lambda: busy.credits.busy == 1)
    transcript = await client.transcribe(b"12", model="tiny.en", timeout=0.5)
    assert transcript.text == "2 bytes"
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_silence_is_not_taken_for_absence(workers: Workers, bus_server: NatsServer):
    """A frozen house answers no PING; only the server knows that nobody is there."""
    service = await workers.start(seconds=0.2)
    client = await workers.client()

    async def frozen(*_: object, **__: object) -> bool:
        return True

    holding = asyncio.create_task(client.transcribe(b"1"))
    await until(lambda: service.credits.busy == 1)
    for sub in list(service._bus.client._subs.values()):
        if sub.subject.startswith("$SRV."):
            sub._cb = frozen
    transcript = await client.transcribe(b"22", timeout=8)
    assert transcript.text == "2 bytes"
    await holding
