"""`setup`'s part on the bus: streams made once, put right later, an admin's figures left alone."""

import pytest
from nats.js.api import DiscardPolicy, StorageType

from bus_worker.bus import Address, connect
from bus_worker.embedded import NatsServer, nats_server
from bus_worker.errors import SetupError
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects

NAMES = Subjects()


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
