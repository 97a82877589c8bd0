"""What is there before the first worker."""

from pathlib import Path

from bus_worker.embedded import NatsServer, nats_server
from tests.helpers.shell import NOBODY, PRETEND, shell


async def test_setup_fetches_the_model_and_makes_the_streams(
    bus_server: NatsServer, tmp_path: Path
):
    home = {"cwd": tmp_path, "WHISPER_MODEL": "tiny.en"}
    ended = await shell("setup", NATS_URL=bus_server.url, **home)
    assert (ended.status, ended.err) == (0, "")
    model, bus, *streams = ended.out.splitlines()
    assert model.startswith("model tiny.en (0d3d19a32d33): ")
    assert bus == f"bus {bus_server.url}: takes messages of 8388608 bytes"
    assert streams[0] == "stream STT_CLAIMS: keeps audio too large for a message"
    assert "stream STT_JOBS: keeps jobs that wait" in streams
    again = await shell("setup", NATS_URL=bus_server.url, **home)
    assert (again.status, again.out) == (0, ended.out)
    look = await shell("doctor", NATS_URL=bus_server.url, **home)
    assert "✓ jobs         STT_JOBS and STT_WINDOWS have queues for tiny.en" in look.out
    absent = await shell("setup", NATS_URL=NOBODY, **home)
    assert absent.status == 1
    assert "cannot connect" in absent.sentence


async def test_an_admins_machine_needs_no_model(bus_server: NatsServer, tmp_path: Path):
    """The largest of all is neither here nor fetched."""
    here = {"cwd": tmp_path, "NATS_URL": bus_server.url, "WHISPER_MODEL": "large-v3"}
    ended = await shell("setup", "--bus-only", **here)
    assert (ended.status, ended.err) == (0, "")
    bus, *rest = ended.out.splitlines()
    assert bus.startswith("bus ")
    assert rest[-1] == "queues for large-v3: where its jobs wait"


async def test_a_server_of_its_own_keeps_nothing_three_times(
    bus_server: NatsServer, tmp_path: Path
):
    here = {"cwd": tmp_path, "NATS_URL": bus_server.url, **PRETEND}
    ended = await shell("setup", "--replicas", "3", **here)
    assert ended.status == 1
    assert ended.sentence == (
        "the bus refuses stream STT_CLAIMS: replicas > 1 not supported in non-clustered mode"
    )
    assert (await shell("setup", "--replicas", "1", **here)).status == 0


async def test_setup_is_content_with_large_messages_alone(tmp_path: Path):
    async with nats_server(jetstream=False) as server:
        ended = await shell("setup", cwd=tmp_path, NATS_URL=server.url, **PRETEND)
    assert (ended.status, ended.err) == (0, "")
    assert "audio of over 8388608 bytes will not be taken" in ended.out


async def test_a_model_that_does_not_exist_stops_setup_and_up(tmp_path: Path):
    for command in ("setup", "up"):
        ended = await shell(command, cwd=tmp_path, WHISPER_MODEL="large-v9", NATS_URL=NOBODY)
        assert ended.status == 1
        assert ended.sentence.startswith("there is no model 'large-v9'; did you mean ")
