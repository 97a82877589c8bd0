"""Audio left on the bus and fetched again: whole, altered, gone, refused; a real nats-server."""

import asyncio
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from bus_worker.bus import Address, Bus, connect
from bus_worker.claim_check import AT_ONCE, CHUNK, ClaimCheck, Deposit, NoStream
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.errors import BadRequest, Busy, ClaimExpired, Failed, Unavailable
from bus_worker.messages import Ticket
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects

NAMES = Subjects()
AUDIO = os.urandom(2_000_000)


@pytest.fixture
async def stock() -> AsyncIterator[NatsServer]:
    """A server of small messages, as nats-server comes, with JetStream and our stream."""
    async with nats_server(max_payload=1 << 20) as server:
        async with connect(Address((server.url,))) as bus:
            await make_streams(bus.client, NAMES)
        yield server


@pytest.fixture
async def bus(stock: NatsServer) -> AsyncIterator[Bus]:
    async with connect(Address((stock.url,))) as bus:
        yield bus


@pytest.fixture
def checks(bus: Bus) -> ClaimCheck:
    return ClaimCheck(bus.client, NAMES)


async def kept(bus: Bus) -> tuple[int, int]:
    """Messages and bytes in the stream."""
    state = (await bus.client.jetstream().stream_info(NAMES.claims_stream)).state
    return state.messages, state.bytes


async def until_less(bus: Bus, than: int) -> None:
    async with asyncio.timeout(30):
        while (await kept(bus))[1] >= than:  # noqa: ASYNC110 - it belongs to another process
            await asyncio.sleep(0.01)


async def pieces(data: bytes, size: int = 64_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 10_000_000])
async def test_what_is_left_comes_back(checks: ClaimCheck, size: int):
    audio = os.urandom(size)
    ticket = await checks.put(Deposit(), audio)
    assert (ticket.size, ticket.chunks) == (size, -(-size // CHUNK))
    assert ticket.sha256 == hashlib.sha256(audio).hexdigest()
    assert await checks.fetch(ticket) == audio


async def test_pieces_go_up_as_they_come(checks: ClaimCheck, bus: Bus):
    ticket = await checks.put(Deposit(), AUDIO[:950_000], pieces(AUDIO[950_000:]))
    assert await checks.fetch(ticket) == AUDIO
    assert ticket.chunks == 3


async def test_a_slow_bus_holds_the_pieces_back(
    checks: ClaimCheck, monkeypatch: pytest.MonkeyPatch
):
    """However much there is to come, no more of it is taken than a few chunks."""
    let = asyncio.Event()
    sent = taken = 0
    leave = checks._leave

    async def slow(*given: Any) -> None:
        nonlocal sent
        if sent:
            await let.wait()
        sent += 1
        await leave(*given)

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(20):
            taken += 1
            yield bytes(CHUNK)

    monkeypatch.setattr(checks, "_leave", slow)
    putting = asyncio.create_task(checks.put(Deposit(), b"x", source()))
    await asyncio.sleep(0.3)
    assert taken <= AT_ONCE + 1
    let.set()
    assert (await putting).size == 20 * CHUNK + 1


async def test_chunks_fit_a_bus_of_small_messages():
    async with (
        nats_server(max_payload=100_000) as server,
        connect(Address((server.url,))) as bus,
    ):
        await make_streams(bus.client, NAMES)
        checks = ClaimCheck(bus.client, NAMES)
        ticket = await checks.put(Deposit(), AUDIO)
        assert ticket.chunks == -(-len(AUDIO) // (100_000 - 4096))
        assert await checks.fetch(ticket) == AUDIO


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "0" * 64}, "claim.sha256"),
        ({"size": len(AUDIO) - 1}, "claim.size"),
        ({"size": len(AUDIO) + 1}, "claim.size"),
        ({"size": 1}, "claim.size"),
        ({"chunks": 2}, "claim.size"),
    ],
)
async def test_an_altered_ticket_is_refused_by_the_field(
    checks: ClaimCheck, change: dict, says: str
):
    ticket = replace(await checks.put(Deposit(), AUDIO), **change)
    with pytest.raises(BadRequest, match=says):
        await checks.fetch(ticket)


async def test_other_bytes_in_a_chunks_place_are_noticed(checks: ClaimCheck, bus: Bus):
    ticket = await checks.put(Deposit(), AUDIO)
    await bus.client.jetstream().publish(NAMES.claim(ticket.id, 1), os.urandom(CHUNK))
    with pytest.raises(BadRequest, match=r"claim\.sha256"):
        await checks.fetch(ticket)


async def test_a_ticket_for_nothing_or_for_a_chunk_too_many_has_expired(checks: ClaimCheck):
    with pytest.raises(ClaimExpired):
        await checks.fetch(Ticket(secrets.token_hex(16), 3, 100_000, "0" * 64))
    ticket = await checks.put(Deposit(), AUDIO)
    with pytest.raises(ClaimExpired):
        await checks.fetch(replace(ticket, chunks=ticket.chunks + 1))


async def test_a_claim_with_a_chunk_gone_has_expired(checks: ClaimCheck, bus: Bus):
    ticket = await checks.put(Deposit(), AUDIO)
    stream, chunk = NAMES.claims_stream, NAMES.claim(ticket.id, 1)
    await bus.client.jetstream().purge_stream(stream, subject=chunk)
    with pytest.raises(ClaimExpired):
        await checks.fetch(ticket)


async def test_claims_leave_by_age(checks: ClaimCheck, bus: Bus):
    js = bus.client.jetstream()
    config = (await js.stream_info(NAMES.claims_stream)).config
    await js.update_stream(config, max_age=0.2, duplicate_window=0.1)
    ticket = await checks.put(Deposit(), AUDIO)
    await until_less(bus, 1)
    with pytest.raises(ClaimExpired):
        await checks.fetch(ticket)


async def test_an_erased_claim_takes_no_room_and_has_expired(checks: ClaimCheck, bus: Bus):
    deposit = Deposit()
    ticket = await checks.put(deposit, AUDIO)
    other = await checks.put(Deposit(), b"another's")
    await checks.erase(deposit)
    await until_less(bus, 10_000)
    with pytest.raises(ClaimExpired):
        await checks.fetch(ticket)
    assert await checks.fetch(other) == b"another's"


async def test_no_more_is_erased_than_a_ticket_can_have(
    checks: ClaimCheck, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bus_worker.claim_check.MAX_CHUNKS", 3)
    before = bus.client.stats["out_msgs"]
    await checks.erase(Deposit(chunks=1 << 40))
    assert bus.client.stats["out_msgs"] - before == 3


async def test_a_full_stream_refuses_and_no_live_ticket_is_lost(
    checks: ClaimCheck, bus: Bus, caplog: pytest.LogCaptureFixture
):
    js = bus.client.jetstream()
    config = (await js.stream_info(NAMES.claims_stream)).config
    await js.update_stream(config, max_bytes=3_000_000)
    first = Deposit()
    ticket = await checks.put(first, AUDIO)
    second = Deposit()
    with pytest.raises(Busy, match="no room for large audio") as caught:
        await checks.put(second, AUDIO)
    assert caught.value.retry
    assert NAMES.claims_stream not in caught.value.message  # callers of the gateway read it
    assert f"{NAMES.claims_stream} takes nothing: maximum bytes exceeded" in caplog.text
    await checks.erase(second)
    assert await checks.fetch(ticket) == AUDIO
    await checks.erase(first)
    await until_less(bus, 10_000)
    assert await checks.fetch(await checks.put(Deposit(), AUDIO)) == AUDIO


async def test_without_the_stream_it_is_said_at_once_and_remembered(
    bus_server: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    async with connect(Address((bus_server.url,))) as bus:
        checks = ClaimCheck(bus.client, NAMES)
        assert not await checks.ready()
        sent = bus.client.stats["out_msgs"]
        for _ in range(3):
            with pytest.raises(NoStream, match="bus-worker setup"):
                await checks.put(Deposit(), AUDIO)
        assert bus.client.stats["out_msgs"] == sent + 1
        monkeypatch.setattr("bus_worker.claim_check.STREAM_BACK", 0.2)
        with pytest.raises(NoStream):
            await checks.fetch(Ticket("0" * 32, 1, 1, "0" * 64))


async def test_the_stream_is_ready_once_it_is_made(checks: ClaimCheck):
    assert await checks.ready()


async def test_a_claim_outlives_the_server(stock: NatsServer, checks: ClaimCheck, bus: Bus):
    ticket = await checks.put(Deposit(), AUDIO)
    assert stock.process is not None
    stock.process.kill()
    await stock.process.wait()
    fetching = asyncio.create_task(checks.fetch(ticket))
    await asyncio.sleep(0.2)
    await stock.start()
    assert await fetching == AUDIO


async def test_putting_goes_on_when_the_server_comes_back(stock: NatsServer, checks: ClaimCheck):
    async def source() -> AsyncIterator[bytes]:
        yield AUDIO[:1_000_000]
        await stock.stop()
        restarting.append(asyncio.create_task(stock.start()))
        yield AUDIO[1_000_000:]

    restarting: list[asyncio.Task[None]] = []
    ticket = await checks.put(Deposit(), b"x", source())
    await restarting[0]
    assert await checks.fetch(ticket) == b"x" + AUDIO


async def test_putting_goes_on_where_the_stream_is_a_moment_behind_its_server(
    checks: ClaimCheck, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    request, missing = bus.client.request, 3

    async def behind(subject: str, *args: Any, **more: Any) -> Msg:
        nonlocal missing
        if subject.endswith(".1") and missing:
            missing -= 1
            raise NoRespondersError
        return await request(subject, *args, **more)

    monkeypatch.setattr(bus.client, "request", behind)
    assert await checks.fetch(await checks.put(Deposit(), AUDIO)) == AUDIO
    assert not missing


async def test_a_bus_that_says_nothing_is_not_waited_for_for_ever(
    checks: ClaimCheck,
    bus: Bus,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    async def silent(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    ticket = await checks.put(Deposit(), AUDIO)
    monkeypatch.setattr(bus.client, "request", silent)
    monkeypatch.setattr("bus_worker.claim_check.PUT_LIMIT", 0.1)
    monkeypatch.setattr("bus_worker.claim_check.FETCH_LIMIT", 0.1)
    monkeypatch.setattr("bus_worker.claim_check.PER_MEGABYTE", 0.0)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"^the bus said nothing for 0\.1 s$"):
        await checks.put(Deposit(), AUDIO)
    assert "is this user allowed to publish there?" in caplog.text
    with pytest.raises(Unavailable):
        await checks.fetch(ticket)
    assert time.monotonic() - began < 5


async def test_a_cancelled_fetch_or_upload_leaves_no_task(
    checks: ClaimCheck, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    ticket = await checks.put(Deposit(), AUDIO)

    async def never(*_: object) -> bytes:
        return await asyncio.Event().wait() or b""

    monkeypatch.setattr(checks, "_chunk", never)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)
            await asyncio.sleep(0)

    before = asyncio.all_tasks()
    for work in (checks.fetch(ticket), checks.put(Deposit(), b"x", endless())):
        task = asyncio.create_task(work)
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == before


async def test_the_callers_own_failure_comes_out_as_it_is(checks: ClaimCheck):
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(CHUNK)
        raise RuntimeError("the upload broke off")

    await checks.ready()  # the connection's own inbox is there
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="broke off"):
        await checks.put(Deposit(), b"x", broken())
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("reply", [b"", b"hello", b"[]", b'{"error": 5}'])
async def test_who_answers_in_the_streams_place_is_not_believed(
    bus_server: NatsServer, reply: bytes, caplog: pytest.LogCaptureFixture
):
    async with connect(Address((bus_server.url,))) as bus:

        async def answer(msg) -> None:
            await msg.respond(reply)

        await bus.client.subscribe(NAMES.claims, cb=answer)
        with pytest.raises(Failed, match="does not keep what it should"):
            await ClaimCheck(bus.client, NAMES).put(Deposit(), b"x")
    assert "is no stream of nats-server's" in caplog.text


@pytest.mark.parametrize(
    "claim_id",
    ["*", ">", "../x", "a.b", "", "0" * 31, "0" * 33, "0" * 32 + "\n", "G" * 32, "é" * 32],
)
def test_no_subject_is_built_from_another_id(claim_id: str):
    with pytest.raises(BadRequest, match=r"claim\.id"):
        NAMES.claim(claim_id, 0)
