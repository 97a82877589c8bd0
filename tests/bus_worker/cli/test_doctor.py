"""What is wrong, found and told."""

import re
from pathlib import Path

import pytest

from bus_worker import doctor
from bus_worker.embedded import NatsServer, ValkeyServer, nats_server
from bus_worker.streams import make_streams
from bus_worker.subjects import Subjects
from tests.helpers.house import Workers
from tests.helpers.shell import NOBODY, PRETEND, shell


async def test_setup_and_doctor_find_a_bus_that_takes_small_clips_only(tmp_path: Path):
    async with nats_server(max_payload=1_000_000, jetstream=False) as server:
        on_bus = {"cwd": tmp_path, "NATS_URL": server.url, **PRETEND}
        ended = await shell("setup", **on_bus)
        assert ended.status == 1
        assert "enable jetstream" in ended.sentence
        assert "set max_payload: 8388608" in ended.sentence
        ended = await shell("doctor", **on_bus)
        assert ended.status == 1
        assert "✗ bus size     messages of up to 1000000 bytes, but clips may have" in ended.out
        assert "`bus-worker setup`" in ended.out
        ended = await shell("doctor", MAX_FILE_SIZE="900000", **on_bus)
        assert "✓ bus size     messages of up to 1000000 bytes, clips may have 900000" in ended.out


async def test_setup_makes_a_bus_of_small_messages_take_large_clips(tmp_path: Path):
    async with nats_server(max_payload=1_000_000) as server:
        on_bus = {"cwd": tmp_path, "NATS_URL": server.url, **PRETEND}
        assert "✗ bus size" in (await shell("doctor", **on_bus)).out
        assert (await shell("setup", **on_bus)).status == 0
        ended = await shell("doctor", **on_bus)
        assert "✓ bus size     messages of up to 1000000 bytes; STT_CLAIMS keeps more" in ended.out
        assert "✓ jobs         STT_JOBS and STT_WINDOWS have queues for" in ended.out
        ended = await shell("doctor", DEFAULT_MODEL="another", **on_bus)
        assert (
            "jobs         none are taken: stream STT_JOBS has no consumer another-high" in ended.out
        )


async def test_doctor_is_content_where_all_is_well(workers: Workers, tmp_path: Path):
    await workers.start()
    await workers.start()
    await make_streams((await workers.bus()).client, Subjects())
    ended = await shell("doctor", cwd=tmp_path, NATS_URL=workers.server.url, **PRETEND)
    assert "✗" not in ended.out
    assert (ended.status, ended.err) == (0, "")
    assert "✓ workers      2 with pretend (2 at once)" in ended.out
    assert "✓ pipeline     pretend" in ended.out
    assert re.search(rf"✓ bus +{workers.server.url}, nats-server \d+\.\d+\.\d+, ", ended.out)


async def test_doctor_says_all_that_is_wrong(bus_server: NatsServer, tmp_path: Path):
    ended = await shell(
        "doctor", cwd=tmp_path, HOME=str(tmp_path), NATS_URL=bus_server.url,
        WHISPER_MODEL="small", PIPELINE="whisper,decode",
    )  # fmt: skip
    assert ended.status == 1
    wrong = [line.split()[1] for line in ended.out.splitlines() if line.startswith("✗")]
    assert wrong == ["pipeline", "model", "bus", "workers"]
    assert "`bus-worker models pull small`" in ended.out
    assert "`bus-worker run`" in ended.out


async def test_doctor_notices_that_nobody_serves_the_model_asked_for(
    workers: Workers, tmp_path: Path
):
    await workers.start()
    ended = await shell(
        "doctor", cwd=tmp_path, NATS_URL=workers.server.url, **{**PRETEND, "DEFAULT_MODEL": "other"}
    )
    assert ended.status == 1
    assert "none serves other" in ended.out


async def test_doctor_without_a_bus_or_with_a_wrong_setting_ends_too(tmp_path: Path):
    ended = await shell("doctor", cwd=tmp_path, NATS_URL=NOBODY, **PRETEND)
    assert ended.status == 1
    assert "✗ bus          cannot connect" in ended.out
    ended = await shell("doctor", cwd=tmp_path, LOG_LEVEL="LOUD")
    assert ended.status == 1
    assert "✗ settings     LOG_LEVEL='LOUD': " in ended.out


async def test_doctor_looks_at_the_cache(workers: Workers, valkey: ValkeyServer, tmp_path: Path):
    await workers.start()
    await make_streams((await workers.bus()).client, Subjects())
    caching = {**PRETEND, "CACHE_ENABLED": "true", "NATS_URL": workers.server.url}
    ended = await shell("doctor", cwd=tmp_path, **caching, REDIS_URL=valkey.url)
    assert (ended.status, ended.err) == (0, "")
    assert f"✓ cache        redis://***@127.0.0.1:{valkey.port}/0, " in ended.out
    ended = await shell("doctor", cwd=tmp_path, **caching, REDIS_URL="redis://:hush@127.0.0.1:1")
    assert ended.status == 1
    assert "✗ cache        redis://***@127.0.0.1:1: " in ended.out
    assert "hush" not in ended.out


async def test_doctor_tells_a_version_and_a_file_that_is_not_there(tmp_path: Path):
    ended = await shell("doctor", cwd=tmp_path, NATS_URL=NOBODY, NATS_CA="/nope", **PRETEND)
    (line,) = (line for line in ended.out.splitlines() if " nats-server " in line)
    assert re.fullmatch(r"✓ nats-server +\d+\.\d+\.\d+, /.*", line)
    assert "✗ bus          NATS_CA='/nope': cannot be read: no such file" in ended.out
    assert (ended.status, ended.err) == (1, "")


def test_a_machine_with_a_gateway_alone_lacks_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        doctor, "_broken", lambda name: None if name == "structlog" else ImportError(name)
    )
    *_, worker = doctor._libraries()
    assert worker.well is None
    assert "to run workers here" in worker.says
