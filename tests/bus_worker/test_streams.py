"""`setup`'s part on the bus: streams made once, put right later, an admin's figures left alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.js.api import DiscardPolicy, StorageType

from bus_worker.bus import Address, connect
from bus_worker.embedded import NatsServer, nats_server, server_conf
from bus_worker.errors import SetupError
from bus_worker.jetstream import JetStream
from bus_worker.streams import check_queues, make_streams
from bus_worker.subjects import Subjects

NAMES = Subjects()


@asynccontextmanager
async def small_server(folder: Path, room: str) -> AsyncIterator[NatsServer]:
    """A nats-server that may store so much."""
    conf = server_conf(port=-1, store=folder)
    server = NatsServer(conf.replace("store_dir:", f"max_file_store: {room}, store_dir:"), folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_the_stream_keeps_audio_and_never_pushes_any_out(bus_server: NatsServer):
    async with connect(Address((bus_server.url,))) as bus:
        made = await make_streams(bus.client, NAMES)
        assert "STT_CLAIMS" in dict(made)
        assert await make_streams(bus.client, NAMES) == made
        config = (await bus.client.jetstream().stream_info("STT_CLAIMS")).config
    assert config.subjects == ["stt.claims.*.*"]
    assert (config.storage, config.discard) == (StorageType.FILE, DiscardPolicy.NEW)
    assert (config.max_age, config.max_bytes) == (7 * 86_400, 4 << 30)
    assert (config.max_msgs_per_subject, config.allow_direct) == (1, True)


async def test_an_older_stream_is_put_right_and_an_admins_figures_stay(bus_server: NatsServer):
    async with connect(Address((bus_server.url,))) as bus:
        js = bus.client.jetstream()
        await js.add_stream(
            name="STT_CLAIMS", subjects=[NAMES.claims], max_bytes=5_000_000, max_age=60
        )
        await make_streams(bus.client, NAMES)
        config = (await js.stream_info("STT_CLAIMS")).config
        assert (config.max_bytes, config.max_age) == (5_000_000, 60)
        assert (config.discard, config.allow_direct) == (DiscardPolicy.NEW, True)
        assert config.max_msgs_per_subject == 1
        await js.update_stream(config, max_bytes=-1, max_age=0)
        await make_streams(bus.client, NAMES)
        config = (await js.stream_info("STT_CLAIMS")).config
        assert (config.max_bytes, config.max_age) == (4 << 30, 7 * 86_400)


async def test_each_prefix_has_its_own_and_takes_nobody_elses(bus_server: NatsServer):
    async with connect(Address((bus_server.url,))) as bus:
        await make_streams(bus.client, NAMES)
        assert "OTHER_CLAIMS" in dict(await make_streams(bus.client, Subjects("other")))
        with pytest.raises(SetupError, match="another SUBJECT_PREFIX"):
            await make_streams(bus.client, Subjects("Stt"))


async def test_a_bus_without_jetstream_is_told_apart_from_one_that_refuses(
    bus_server: NatsServer,
):
    async with nats_server(jetstream=False) as server, connect(Address((server.url,))) as bus:
        with pytest.raises(SetupError, match="enable jetstream"):
            await make_streams(bus.client, NAMES)
    async with connect(Address((bus_server.url,))) as bus:
        await bus.client.jetstream().add_stream(name="MINE", subjects=["stt.>"])
        with pytest.raises(SetupError, match="overlap"):
            await make_streams(bus.client, NAMES)


async def test_every_queue_of_a_model_is_made_and_then_nothing_is_amiss(bus_server: NatsServer):
    async with connect(Address((bus_server.url,))) as bus:
        await make_streams(bus.client, NAMES, "tiny.en")
        await make_streams(bus.client, NAMES, "pretend")  # the others stay
        js = bus.client.jetstream()
        for stream in ("STT_JOBS", "STT_WINDOWS"):
            found = {c.name: c.config.filter_subject for c in await js.consumers_info(stream)}
            assert set(found) == {"tiny_en-high", "tiny_en-low", "pretend-high", "pretend-low"}
            assert found["tiny_en-low"] == f"stt.{stream[4:].lower()}.tiny_en.low"
        for model in ("tiny.en", "pretend"):
            assert await check_queues(JetStream(bus.client), NAMES, model) is None


async def test_a_model_without_queues_is_told_what_to_do(bus_server: NatsServer):
    async with connect(Address((bus_server.url,))) as bus:
        js = JetStream(bus.client)
        wanted = "stream STT_JOBS has no consumer pretend-high: run `bus-worker setup`"
        assert await check_queues(js, NAMES, "pretend") == wanted
        await make_streams(bus.client, NAMES, "other")
        assert await check_queues(js, NAMES, "pretend") == wanted


async def test_a_bus_without_jetstream_has_no_queues():
    async with nats_server(jetstream=False) as server, connect(Address((server.url,))) as bus:
        said = await check_queues(JetStream(bus.client), NAMES, "pretend")
    assert said == "the bus keeps no jobs: enable jetstream on nats-server"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"max_deliver": 3}, "has max_deliver 3 where -1 is needed"),
        ({"ack_wait": 30.0}, "has ack_wait 30000000000 where 10000000000 is needed"),
    ],
)
async def test_an_admins_differing_queue_is_named_and_put_right(
    bus_server: NatsServer, changed: dict[str, float], said: str
):
    async with connect(Address((bus_server.url,))) as bus:
        await make_streams(bus.client, NAMES, "pretend")
        js = bus.client.jetstream()
        queue = (await js.consumer_info("STT_WINDOWS", "pretend-low")).config
        await js.add_consumer("STT_WINDOWS", queue.evolve(**changed))
        asked = JetStream(bus.client)
        assert await check_queues(asked, NAMES, "pretend") == (
            f"consumer pretend-low of stream STT_WINDOWS {said}: run `bus-worker setup`"
        )
        await make_streams(bus.client, NAMES, "pretend")
        assert await check_queues(asked, NAMES, "pretend") is None


async def test_a_queue_that_cannot_be_put_right_is_said(bus_server: NatsServer):
    """Work is acknowledged one by one, or lost: that is no matter of taste, and never changes later."""
    async with connect(Address((bus_server.url,))) as bus:
        await make_streams(bus.client, NAMES)
        await bus.client.jetstream().add_consumer(
            "STT_EVENTS", durable_name="pretend-low", ack_policy="none"
        )
        await make_streams(bus.client, NAMES, "pretend")  # not in our way
        js = bus.client.jetstream()
        await js.delete_consumer("STT_JOBS", "pretend-low")
        await js.add_consumer(
            "STT_JOBS", durable_name="mine", ack_policy="explicit",
            filter_subject="stt.jobs.pretend.low",
        )  # fmt: skip
        with pytest.raises(SetupError, match="the bus refuses stream STT_JOBS"):
            await make_streams(bus.client, NAMES, "pretend")


@pytest.mark.parametrize("room", [1, 4])
async def test_a_server_with_little_room_gets_smaller_streams(tmp_path: Path, room: int):
    """All alike: a server of 4 GB would else give everything to the first."""
    async with (
        small_server(tmp_path, f"{room}GB") as server,
        connect(Address((server.url,))) as bus,
    ):
        made = await make_streams(bus.client, NAMES, "pretend")
        js = bus.client.jetstream()
        sizes = {n: (await js.stream_info(n)).config.max_bytes for n, _ in made}
        assert await check_queues(JetStream(bus.client), NAMES, "pretend") is None
    assert min(sizes.values()) >= 16 << 20
    assert sizes["STT_CLAIMS"] == room << 29
    assert room << 28 < sum(sizes.values()) <= room << 30


async def test_a_server_with_no_room_at_all_is_said(tmp_path: Path):
    async with small_server(tmp_path, "64MB") as server, connect(Address((server.url,))) as bus:
        with pytest.raises(SetupError, match="insufficient storage"):
            await make_streams(bus.client, NAMES)
