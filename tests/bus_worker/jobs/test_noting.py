"""Each attempt at a job, and each window, is one line and is counted once."""

import contextlib

import numpy as np
import pytest

from bus_worker.errors import BusWorkerError
from bus_worker.jobs import Limits
from bus_worker.metrics import Metrics
from bus_worker.request_line import RequestLine
from bus_worker.testing import pretend
from bus_worker.webhook_rules import WebhookRules
from plugins.decode import decode
from tests.helpers.course import idle
from tests.helpers.house import Workers, until
from tests.helpers.jobs import receiver
from tests.helpers.scrape import overheard, scraped
from tests.helpers.tones import encode, noise, wav_bytes

CLIP = wav_bytes(noise(0.4))
LARGE = encode(np.stack([noise(2.5, 48_000)] * 5, axis=1), 48_000, "wav")
"""A recording of three windows, more than a message takes."""


async def test_what_becomes_of_jobs_is_said_and_counted(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    line = RequestLine(Metrics(), "pretend", "w1")
    lines = overheard(monkeypatch, "bus_worker.request_line", "bus_worker.jobs.ending")
    await workers.start(
        decode, pretend, options={"decode": {"max_duration": 1.0}}, slots=2, seconds=0.0,
        jobs=Limits(longest_clip=1.0), line=line, rules=WebhookRules.read(None, ("127.0.0.1",)),
    )  # fmt: skip
    client, nc = await workers.client(), (await workers.bus()).client
    async with receiver() as hooks:
        for audio in (CLIP, LARGE, b"no audio at all"):
            job = await client.submit(audio, request_id="mine", webhook=hooks.url)
            with contextlib.suppress(BusWorkerError):
                await job.result(30)
        await until(lambda: len(hooks.heard) == 3)
        await idle(nc)
    ended = [entry for entry in lines if entry["event"] == "job"]
    said = scraped(line.metrics)
    assert [said[f"jobs_total,status={s}"] for s in ("done", "failed", "cancelled")] == [2, 1, 0]
    assert [entry["status"] for entry in ended] == ["done", "done", "failed"]
    assert said["webhooks_total,outcome=told"] == 3
    assert said["dead_letters_total"] == 1
    # Once to be heard in one piece, which it is too long for, and once to be cut.
    assert said["claim_checks_total,outcome=fetched"] == 2
    assert line.metrics.ended["job", "ok"] == 2
    assert line.metrics.ended["job", "bad_audio"] == 1
    assert said["queue_wait_seconds_count,lane=job"] == 3
    attempts = [entry for entry in lines if entry["event"] == "attempt"]
    windows = [entry for entry in attempts if entry["lane"] == "window"]
    assert line.metrics.ended["window", "ok"] == len(windows) == 3
    assert abs(said["audio_seconds_total,lane=window"] - 2.5) < 0.01
    clip, recording, refused = (entry for entry in attempts if entry["lane"] == "job")
    assert (clip["code"], clip["worker"], clip["request_id"]) == ("ok", "w1", "mine")
    assert {"stage_decode", "stage_pretend", "queue", "bytes", "cache"} <= set(clip)
    assert recording["bytes"] == len(LARGE)
    assert (refused["outcome"], refused["code"]) == ("error", "bad_audio")
    assert sorted(entry["window"] for entry in windows) == [0, 1, 2]
    assert all(entry["stage_pretend"] >= 0 for entry in windows)
    assert not [entry for entry in lines if "text" in entry]
