"""What JetStream keeps: written and read on a real nats-server, which may be away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.msg import Msg

from bus_worker.bus import Address, Bus, connect
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.errors import Busy, DeadlineExceeded, Failed, Unavailable
from bus_worker.jetstream import Conflict, JetStream, NoStream, if_last, kept_for


@pytest.fixture
async def bus(bus_server: NatsServer) -> AsyncIterator[Bus]:
    async with connect(Address((bus_server.url,))) as bus:
        await bus.client.jetstream().add_stream(
            name="S", subjects=["s.>"], max_msgs_per_subject=1, allow_direct=True,
            allow_msg_ttl=True, max_msgs=20, discard="new",
        )  # fmt: skip
        yield bus


@pytest.fixture
def js(bus: Bus) -> JetStream:
    return JetStream(bus.client)


@asynccontextmanager
async def losing_answers(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, lost: int = 1
) -> AsyncIterator[None]:
    """The server does what it is asked, and its first answers never arrive."""
    request, left = bus.client.request, lost

    async def asked(subject: str, *given: object, **more: object) -> Msg:
        nonlocal left
        msg = await request(subject, *given, **more)
        if left:
            left -= 1
            raise DeadlineExceeded("lost")
        return msg

    with monkeypatch.context() as patch:
        patch.setattr(bus.client, "request", asked)
        yield


async def test_what_is_written_is_read(js: JetStream):
    written = await js.write("S", "s.a", b"one", {"X": "y"})
    kept = await js.last("S", "s.a")
    assert kept is not None
    assert (kept.data, kept.sequence, kept.headers["X"]) == (b"one", written.sequence, "y")
    assert await js.last("S", "s.b") is None


async def test_what_follows_is_found_on_one_subject_and_on_many(js: JetStream):
    for number, subject in enumerate(("s.a.1", "s.b.1", "s.a.2")):
        await js.write("S", subject, bytes([number]))
    kept = await js.following("S", "s.a.*", 2)
    assert kept is not None
    assert (kept.sequence, kept.headers["Nats-Subject"]) == (3, "s.a.2")
    assert await js.following("S", "s.a.*", 4) is None


async def test_the_leader_tells_the_same_and_is_asked_for_nothing_more(js: JetStream):
    await js.write("S", "s.a.1", b"one", {"X": "y: z"})
    await js.write("S", "s.a.2", b"", kept_for(60))
    kept = await js.surely_last("S", "s.a.1")
    assert kept is not None
    assert (kept.data, kept.sequence, kept.headers["X"]) == (b"one", 1, "y: z")
    assert kept.headers["Nats-Subject"] == "s.a.1"
    behind = await js.surely_following("S", "s.a.*", 2)
    assert behind is not None
    assert (behind.data, behind.sequence, behind.headers["Nats-TTL"]) == (b"", 2, "60")
    assert await js.surely_last("S", "s.b") is None
    assert await js.surely_following("S", "s.a.*", 3) is None
    with pytest.raises(NoStream):
        await js.surely_last("T", "s.a.1")


async def test_of_twenty_writers_at_once_one_gets_through(js: JetStream):
    first = await js.write("S", "s.a", b"0")

    async def write(number: int) -> bool:
        try:
            await js.write("S", "s.a", bytes([number]), if_last(first.sequence))
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*map(write, range(20)))) == 1


async def test_a_write_whose_answer_was_lost_is_no_conflict_with_itself(
    js: JetStream, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    async with losing_answers(bus, monkeypatch):
        written = await js.write("S", "s.a", b"mine", if_last(0))
    kept = await js.last("S", "s.a")
    assert kept is not None
    assert kept.sequence == written.sequence
    async with losing_answers(bus, monkeypatch):
        with pytest.raises(Conflict):
            await js.write("S", "s.a", b"mine", if_last(0))  # the same bytes, by somebody else


async def test_a_name_written_twice_is_told(js: JetStream):
    one = await js.write("S", "s.a", b"x", {"Nats-Msg-Id": "n"})
    two = await js.write("S", "s.a", b"x", {"Nats-Msg-Id": "n"})
    assert (one.sequence, one.duplicate) == (two.sequence, False)
    assert two.duplicate


async def test_what_is_kept_for_a_second_is_gone_after_it(js: JetStream):
    await js.write("S", "s.a", b"x", kept_for(0.2))
    assert await js.last("S", "s.a") is not None
    async with asyncio.timeout(30):
        while await js.last("S", "s.a") is not None:  # noqa: ASYNC110 - it belongs to the server
            await asyncio.sleep(0.1)


async def test_a_full_stream_is_busy(js: JetStream):
    for number in range(20):
        await js.write("S", f"s.{number}", b"x")
    with pytest.raises(Busy):
        await js.write("S", "s.more", b"x")


async def test_a_stream_that_is_not_there_is_said(js: JetStream):
    with pytest.raises(NoStream):
        await js.write("T", "t.a", b"x")
    with pytest.raises(NoStream):
        await js.last("T", "t.a")
    with pytest.raises(Unavailable):
        await js.write("T", "s.a", b"x")  # another stream's subject


async def test_whoever_answers_in_the_streams_place_is_not_believed(js: JetStream, bus: Bus):
    async def lies(msg: Msg) -> None:
        await msg.respond(b"[1]")

    sub = await bus.client.subscribe("t.a", cb=lies)
    with pytest.raises(Failed, match="does not keep"):
        await js.write("T", "t.a", b"x")
    await sub.unsubscribe()


async def test_a_server_that_comes_back_is_asked_again(
    js: JetStream, bus: Bus, bus_server: NatsServer
):
    await js.write("S", "s.a", b"1")
    await bus_server.stop()
    asking = asyncio.gather(js.last("S", "s.a"), js.write("S", "s.b", b"2", if_last(0)))
    await asyncio.sleep(0.1)
    await bus_server.start()
    kept, _ = await asking
    assert kept is not None
    assert kept.data == b"1"


async def test_a_server_that_stays_away_is_given_up(
    js: JetStream, bus: Bus, bus_server: NatsServer
):
    await bus_server.stop()
    with pytest.raises(Unavailable, match=r"nothing for 0\.3 s"):
        await js.last("S", "s.a", limit=0.3)
    await bus.client.close()
    with pytest.raises(Unavailable):
        await js.last("S", "s.a")
    await bus_server.start()


async def test_a_bus_without_jetstream_is_said():
    async with nats_server(jetstream=False) as server, connect(Address((server.url,))) as bus:
        for asked in (JetStream(bus.client).api("INFO"), JetStream(bus.client).last("S", "s.a")):
            with pytest.raises(NoStream, match="enable jetstream"):
                await asked


async def test_the_servers_own_refusal_is_handed_on(js: JetStream):
    said = await js.api("STREAM.INFO.T")
    assert said["error"]["err_code"] == 10059, json.dumps(said)
