"""Worker processes and their cache: shared, absent, killed, held, full, locked, restarted."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from redis.asyncio import Redis

from bus_worker.client import TranscribeClient
from bus_worker.embedded import ValkeyServer, valkey_server
from tests.helpers.processes import Processes, hold

PACE = {"CACHE_ENABLED": "true", "PRETEND__SECONDS": "0"}
NOWHERE = "redis://:hush@127.0.0.1:1"
WAITED = 200
"""Milliseconds that a request takes at least which waits for a cache that says nothing."""


async def costs(caller: TranscribeClient, count: int, kind: str) -> list[float]:
    """Milliseconds in the worker of requests that nobody asked before, each answered rightly."""
    found = []
    for _ in range(count):
        answer = await caller.transcribe(os.urandom(16))
        assert (answer.text, answer.cache_hit) == ("16 bytes", False)
        found.append(answer.timings.total * 1000)
    sys.stdout.write(f"{kind}: median {sorted(found)[count // 2]:.2f}, most {max(found):.1f} ms\n")
    return found


async def hits(caller: TranscribeClient, count: int, audio: bytes) -> int:
    return sum([(await caller.transcribe(audio)).cache_hit for _ in range(count)])


async def test_what_one_process_heard_the_others_know(
    processes: Processes, caller: TranscribeClient, valkey: ValkeyServer
):
    await processes.start(3, **PACE, REDIS_URL=valkey.url, CACHE_TTL="100")
    assert await hits(caller, 30, b"1234") == 29
    async with Redis.from_url(valkey.url) as redis:
        (name,) = await redis.keys()
        assert name.startswith(b"transcription:")
        assert 90_000 < await redis.pttl(name) <= 100_000
        await redis.set(name, b"garbage")
    assert await hits(caller, 2, b"1234") == 1
    assert sum((await caller.clear_cache()).values()) == 1
    assert await hits(caller, 1, b"1234") == 0


async def test_the_same_samples_in_wav_and_flac_are_heard_once(
    processes: Processes, caller: TranscribeClient, valkey: ValkeyServer, tmp_path: Path
):
    (tmp_path / "ear.py").write_text('''
"""Hear something."""
from bus_worker.plugin import Draft, NoOptions, stage
from bus_worker.testing import segment

@stage(needs=("samples",), gives=("segments",))
async def ear(draft: Draft, options: NoOptions) -> None:
    """Hear how loud it is."""
    draft.segments = [segment(f" {draft.extras['gain']:.3f}")]
''')
    road = {"PIPELINE": "decode,limits,normalize,silence,ear,tidy", "CACHE_ENABLED": "true"}
    await processes.start(2, tmp_path / "ear.py", **road, REDIS_URL=valkey.url)
    tone = (np.sin(np.arange(32_000) / 20) * 9_000).astype(np.int16)
    answers = []
    for kind in ("wav", "flac", "flac"):
        path = tmp_path / f"tone.{kind}"
        soundfile.write(path, tone, 16_000, subtype="PCM_16")
        answers.append(await caller.transcribe(path.read_bytes()))
    assert [a.cache_hit for a in answers] == [False, True, True]
    assert len({a.text for a in answers}) == 1
    assert ["decode" in a.timings.stages for a in answers] == [True, True, False]


async def test_without_its_redis_a_worker_starts_serves_and_complains_once(
    processes: Processes, caller: TranscribeClient
):
    (worker,) = await processes.start(**PACE, REDIS_URL=NOWHERE)
    found = await costs(caller, 50, "absent")
    assert sorted(found)[25] < WAITED
    (said,) = [line for line in worker.lines if line["event"].startswith("cache_")]
    assert (said["event"], said["url"]) == ("cache_away", "redis://***@127.0.0.1:1")
    assert "hush" not in str(worker.lines)


@pytest.mark.parametrize(
    "wrong", [lambda url: url.replace("//:", "//:x"), lambda url: "redis://" + url.split("@")[1]]
)
async def test_a_wrong_password_is_told_once_and_costs_nothing(
    processes: Processes,
    caller: TranscribeClient,
    valkey: ValkeyServer,
    wrong: Callable[[str], str],
):
    (worker,) = await processes.start(**PACE, REDIS_URL=wrong(valkey.url))
    assert sorted(await costs(caller, 50, "locked"))[25] < WAITED
    assert [x["event"] for x in worker.lines if x["event"].startswith("cache_")] == ["cache_away"]


async def test_killed_held_and_restarted_it_costs_one_request_a_little_and_comes_back(
    processes: Processes, caller: TranscribeClient, valkey: ValkeyServer
):
    (worker,) = await processes.start(**PACE, REDIS_URL=valkey.url)
    well = await costs(caller, 50, "well")
    hold(valkey.process.pid)
    assert max(await costs(caller, 1, "held")) < 300 + max(well)
    assert sorted(await costs(caller, 50, "held, the next ones"))[25] < WAITED
    os.kill(valkey.process.pid, signal.SIGCONT)
    await worker_knows(caller, "cache_back", worker)
    assert await hits(caller, 3, b"12345") == 2
    valkey.process.kill()
    await valkey.process.wait()
    assert sorted(await costs(caller, 50, "killed"))[25] < WAITED
    await valkey.start()
    while (await caller.transcribe(b"123456")).cache_hit is False:
        pass  # until the worker has found it again; the test's own limit ends it
    said = [x["event"] for x in worker.lines if x["event"].startswith("cache_")]
    assert said == ["cache_away", "cache_back"] * 2


async def worker_knows(caller: TranscribeClient, event: str, worker: object) -> None:
    """Ask on, as callers do, until the worker has said so."""
    while not worker.has_said(event):
        await caller.transcribe(os.urandom(16))


async def test_full_it_still_answers_what_it_knows(processes: Processes, caller: TranscribeClient):
    async with valkey_server(memory="2500kb", policy="noeviction") as valkey:
        (worker,) = await processes.start(**PACE, REDIS_URL=valkey.url)
        assert await hits(caller, 2, b"12345") == 1
        async with Redis.from_url(valkey.url) as redis:
            await redis.config_set("maxmemory", "1")
        await costs(caller, 50, "full")
        assert await hits(caller, 2, b"12345") == 2
    said = [x["event"] for x in worker.lines if x["event"].startswith("cache_")]
    assert said[:1] == ["cache_refuses"]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("localhost:6379", "REDIS_URL=(hidden): must be redis://"),
        ("redis://:hush@h?speed=high", "REDIS_URL=redis://***@h is no Redis URL"),
    ],
)
async def test_a_url_that_is_none_stops_the_start_in_one_sentence(
    processes: Processes, url: str, sentence: str
):
    worker = await processes.spawn(**PACE, REDIS_URL=url)
    assert await worker.left(40) == 1
    (said,) = worker.sentences
    assert said.startswith(f"bus-worker: {sentence}")
    assert "hush" not in said
