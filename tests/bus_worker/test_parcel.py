"""How audio travels with a call, on real servers: inside its message, or by ticket."""

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest
import structlog

from bus_worker import errors
from bus_worker.client import TranscribeClient
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.messages import pack, unpack
from bus_worker.parcel import INLINE
from bus_worker.service import Service
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from tests.helpers.house import Workers, until
from tests.helpers.tones import noise, wav_bytes

NAMES = Subjects()
STOCK = 1 << 20
TEN_MB = wav_bytes(noise(10_000_000 / 32_000 - 1))


@pytest.fixture
async def stock() -> AsyncIterator[Workers]:
    """Workers on a nats-server with its own max_payload, JetStream, and our stream."""
    async with (
        nats_server(max_payload=STOCK, default_model="pretend") as server,
        Workers(server) as house,
    ):
        await make_streams((await house.bus()).client, NAMES)
        yield house


@pytest.fixture
async def without() -> AsyncIterator[Workers]:
    """As above, without JetStream."""
    async with (
        nats_server(max_payload=STOCK, jetstream=False, default_model="pretend") as server,
        Workers(server) as house,
    ):
        yield house


async def kept(house: Workers) -> tuple[int, int]:
    """How many chunks were ever left on the bus, and bytes that are there now."""
    js = (await house.bus()).client.jetstream()
    state = (await js.stream_info(NAMES.claims_stream)).state
    return state.last_seq, state.bytes


async def until_left(house: Workers, chunks: int) -> None:
    async with asyncio.timeout(30):
        while (await kept(house))[0] < chunks:  # noqa: ASYNC110 - it belongs to another process
            await asyncio.sleep(0.01)


async def until_erased(house: Workers) -> None:
    async with asyncio.timeout(30):
        while (await kept(house))[1] > 10_000:  # noqa: ASYNC110 - it belongs to another process
            await asyncio.sleep(0.01)


async def pieces(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[at : at + size]


def requests_of(service: Service) -> list[dict]:
    """The messages that a worker is sent from now on."""
    seen: list[dict] = []
    handle = service.credits._handle

    async def watched(msg) -> None:
        seen.append(unpack(msg.data))
        await handle(msg)

    service.credits._handle = watched
    return seen


async def test_ten_megabytes_go_over_a_bus_of_one_megabyte_messages(stock: Workers):
    await stock.start(seconds=0)
    client = await stock.client()
    transcript = await client.transcribe(TEN_MB)
    assert transcript.text == f"{len(TEN_MB)} bytes"
    assert (await kept(stock))[0] >= 12
    await until_erased(stock)


async def test_a_stream_of_segments_takes_large_audio_too(stock: Workers):
    await stock.start(seconds=0)
    client = await stock.client()
    stream = client.stream(TEN_MB, stages={"pretend": {"segments": 2}})
    assert [segment.text async for segment in stream] == [" part 0", " part 1"]


@pytest.mark.parametrize("size", [0, 10, INLINE, INLINE + 1, 900_000, 2_000_000])
async def test_an_iterator_is_as_good_as_bytes(stock: Workers, size: int):
    await stock.start(seconds=0)
    client = await stock.client()
    transcript = await client.transcribe(pieces(bytes(size)))
    assert transcript.text == f"{size} bytes"
    assert ((await kept(stock))[0] > 0) == (size > INLINE)


@pytest.mark.parametrize("size", [INLINE, INLINE + 1])
async def test_audio_goes_inside_the_message_up_to_the_threshold(stock: Workers, size: int):
    seen = requests_of(await stock.start(seconds=0))
    client = await stock.client()
    await client.transcribe(bytes(size))
    assert [set(body) & {"audio", "claim"} for body in seen] == [
        {"audio"} if size <= INLINE else {"claim"}
    ]


async def test_without_jetstream_what_fits_a_message_goes_and_more_says_what_to_set(
    without: Workers,
):
    await without.start(seconds=0)
    client = await without.client()
    for fits in (bytes(1_000_000), pieces(bytes(1_000_000))):
        assert (await client.transcribe(fits)).text == "1000000 bytes"
    for audio in (TEN_MB, pieces(TEN_MB)):
        with pytest.raises(errors.TooLarge, match="jetstream") as caught:
            await client.transcribe(audio)
        for word in ("`bus-worker setup`", "max_payload"):
            assert word in caught.value.message
        assert not caught.value.retry


async def test_a_full_stream_is_busy_and_smaller_audio_goes_inside_its_message(stock: Workers):
    js = (await stock.bus()).client.jetstream()
    config = (await js.stream_info(NAMES.claims_stream)).config
    await js.update_stream(config, max_bytes=500_000)
    await stock.start(seconds=0)
    client = await stock.client()
    for audio in (TEN_MB, pieces(TEN_MB)):
        with pytest.raises(errors.Busy, match="no room for large audio"):
            await client.transcribe(audio)
    for fits in (bytes(900_000), pieces(bytes(900_000))):
        assert (await client.transcribe(fits)).text == "900000 bytes"


async def test_a_refused_iterator_whose_beginning_is_gone_is_busy(stock: Workers):
    js = (await stock.bus()).client.jetstream()
    config = (await js.stream_info(NAMES.claims_stream)).config
    await js.update_stream(config, max_bytes=2_000_000)
    await stock.start(seconds=0)
    client = await stock.client()
    with pytest.raises(errors.Busy, match="no room for large audio"):
        await client.transcribe(pieces(TEN_MB))
    await until_erased(stock)


async def test_refused_twice_the_audio_goes_by_ticket(
    stock: Workers, monkeypatch: pytest.MonkeyPatch
):
    """Room that is told of and gone when the audio arrives must not cost the audio again and again."""
    service = await stock.start(seconds=0.5)
    first = await stock.client()
    seen = requests_of(service)
    holding = asyncio.create_task(first.transcribe(b"1"))
    await until(lambda: service.credits.busy == 1)
    second = await stock.client()
    calls = second._calls
    assert calls is not None
    refusals = 0

    async def room(*_: object) -> None:
        """Nobody says there is room; ask anyway."""
        nonlocal refusals
        refusals += 1
        await asyncio.sleep(0.05)

    monkeypatch.setattr(calls, "_room", room)
    monkeypatch.setattr("bus_worker.calls.ASK_ANYWAY", 0.0)
    nc = second._inbox.nc
    before = nc.stats["out_bytes"]
    transcript = await second.transcribe(bytes(300_000))
    assert transcript.text == "300000 bytes"
    assert refusals > 3
    # Twice inside the message, once onto the bus.
    assert nc.stats["out_bytes"] - before < 3 * 300_000 + 50_000
    assert set(seen[-1]) & {"audio", "claim"} == {"claim"}
    await holding


async def test_a_worker_that_dies_while_fetching_is_replaced_and_the_ticket_is_the_same(
    stock: Workers, monkeypatch: pytest.MonkeyPatch
):
    dead = await stock.start(seconds=0)
    seen = requests_of(dead)
    fetching = asyncio.Event()

    async def stuck(_: object) -> bytes:
        fetching.set()
        await asyncio.sleep(60)
        return b""

    monkeypatch.setattr(dead._checks, "fetch", stuck)
    client = await stock.client()
    call = asyncio.create_task(client.transcribe(TEN_MB))
    await fetching.wait()
    left = (await kept(stock))[0]
    seen_too = requests_of(await stock.start(seconds=0))
    dead._bus.client.options["allow_reconnect"] = False
    dead._bus.client._transport._io_writer.transport.abort()  # as kill -9 does to its socket
    transcript = await call
    assert (transcript.worker_id, transcript.text) == ("w2", f"{len(TEN_MB)} bytes")
    assert seen[0]["claim"] == seen_too[0]["claim"]
    assert left == seen[0]["claim"]["chunks"]


async def test_a_deadline_ends_the_fetch_and_frees_the_slot(
    stock: Workers, monkeypatch: pytest.MonkeyPatch
):
    service = await stock.start(seconds=0)
    before = asyncio.all_tasks()

    async def stuck(*_: object) -> bytes:
        await asyncio.sleep(60)
        return b""

    monkeypatch.setattr(service._checks, "_chunk", stuck)
    client = await stock.client()
    with pytest.raises(errors.DeadlineExceeded):
        await client.transcribe(TEN_MB, timeout=0.5)
    await until(lambda: service.credits.busy == 0)
    assert not {task for task in asyncio.all_tasks() - before if task.get_name() == "fetch"}
    assert (await client.transcribe(b"12")).text == "2 bytes"


async def test_an_upload_that_is_not_done_by_the_deadline_says_so(stock: Workers):
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(200_000)
            await asyncio.sleep(0.05)

    await stock.start(seconds=0)
    client = await stock.client()
    with pytest.raises(errors.DeadlineExceeded, match="not on the bus"):
        await client.transcribe(slow(), timeout=0.5)
    await until_erased(stock)


async def test_a_cancelled_upload_leaves_nothing(stock: Workers):
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for number in range(10**6):
            yield bytes(300_000)
            if number == 10:
                begun.set()
                await asyncio.sleep(60)

    await stock.start(seconds=0)
    client = await stock.client()
    await client.transcribe(b"1")
    before = asyncio.all_tasks()
    call = asyncio.create_task(client.transcribe(endless()))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until_erased(stock)
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert not left & {"chunk", "fetch"}


async def test_what_an_iterator_raises_comes_out_as_it_is(stock: Workers):
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(1_000_000)
        raise ConnectionError("the browser hung up")

    await stock.start(seconds=0)
    client = await stock.client()
    with pytest.raises(ConnectionError, match="hung up"):
        await client.transcribe(broken())
    await until_erased(stock)


async def test_audio_over_the_limit_is_refused_before_any_is_fetched(
    stock: Workers, monkeypatch: pytest.MonkeyPatch
):
    service = await stock.start(seconds=0)

    async def never(_: object) -> bytes:
        raise AssertionError("it was fetched")

    monkeypatch.setattr(service._checks, "fetch", never)
    client = await stock.client()
    with pytest.raises(errors.TooLarge, match="MAX_FILE_SIZE"):
        await client.transcribe(bytes(10_000_001))
    await until_erased(stock)


async def test_a_ticket_whose_audio_is_gone_is_answered_with_410_and_the_log_tells_the_fetch(
    stock: Workers, monkeypatch: pytest.MonkeyPatch
):
    await stock.start(seconds=0)
    nc = (await stock.bus()).client
    claim = {"id": "0" * 32, "chunks": 2, "size": 1_000_000, "sha256": "0" * 64}
    capture = structlog.testing.LogCapture()
    lines = capture.entries
    log = structlog.wrap_logger(None, [capture], wrapper_class=structlog.BoundLogger)
    monkeypatch.setattr("bus_worker.request_line._log", log)
    msg = await nc.request(NAMES.transcribe("pretend"), pack({"claim": claim}), timeout=20)
    assert unpack(msg.data)["error"]["code"] == "claim_expired"
    assert msg.headers["Nats-Service-Error-Code"] == "410"
    client = await stock.client()
    await client.transcribe(TEN_MB)
    await until(lambda: [line["event"] for line in lines].count("request") == 2)
    gone, came = (line for line in lines if line["event"] == "request")
    assert gone["code"] == "claim_expired"
    assert came["bytes"] > len(TEN_MB)
    assert gone["fetch"] > 0
    assert 0 < came["fetch"] <= came["queue"]


async def test_the_bus_may_restart_between_leaving_and_fetching(
    stock: Workers, monkeypatch: pytest.MonkeyPatch
):
    service = await stock.start(seconds=0)
    fetch = service._checks.fetch
    server: NatsServer = stock.server

    async def after_a_restart(ticket):
        await server.stop()
        await server.start()
        return await fetch(ticket)

    monkeypatch.setattr(service._checks, "fetch", after_a_restart)
    client = await stock.client()
    transcript = await client.transcribe(TEN_MB, timeout=20)
    assert transcript.text == f"{len(TEN_MB)} bytes"


async def test_a_connection_that_a_service_has_serves_for_large_audio_too(stock: Workers):
    await stock.start(seconds=0)
    nc = await nats.connect(stock.server.url)
    try:
        async with TranscribeClient(nc=nc, model="pretend") as client:
            assert (await client.transcribe(TEN_MB)).text == f"{len(TEN_MB)} bytes"
        assert nc.is_connected
    finally:
        await nc.close()
    await until_erased(stock)


# --- audio left before it is known what is asked of it -------------------------------------------


@pytest.mark.parametrize(("size", "chunks"), [(5000, 0), (3_000_000, 4)])
async def test_an_upload_is_left_first_and_asked_about_later_and_again(
    stock: Workers, size: int, chunks: int
):
    await stock.start(seconds=0)
    client = await stock.client()
    async with client.leave(pieces(bytes(size))) as left:
        assert left.size == size
        assert (left.ticket.chunks if left.ticket else 0) == chunks
        for _ in range(2):
            assert (await client.transcribe(left)).text == f"{size} bytes"
    await until_erased(stock)


async def test_an_upload_that_breaks_off_leaves_nothing(stock: Workers):
    client = await stock.client()

    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(bytes(3_000_000)):
            yield piece
        raise ConnectionError

    with pytest.raises(ConnectionError):
        async with client.leave(broken()):
            pass
    await until_left(stock, 6)  # three chunks, and nothing over each: they may still be on the way
    await until_erased(stock)


async def test_an_upload_that_no_message_holds_needs_a_stream(without: Workers):
    await without.start(seconds=0)
    client = await without.client()
    async with client.leave(pieces(bytes(950_000))) as left:
        assert (await client.transcribe(left)).text == "950000 bytes"
    with pytest.raises(errors.TooLarge, match="jetstream"):
        async with client.leave(pieces(bytes(2_000_000))):
            pass
