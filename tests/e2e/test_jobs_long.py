"""A long recording, heard by real workers with the real model while one of them dies."""

import asyncio
import itertools
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nats.aio.client import Client

from bus_worker.bench.clips import Clip
from bus_worker.bench.engines import Heard
from bus_worker.bench.verdict import counted, rate
from bus_worker.client import Job, TranscribeClient
from bus_worker.job_record import JobEvent
from bus_worker.messages import Transcript
from tests.helpers.clips import clip, manifest
from tests.helpers.jobs import hurried, ledger, prepared
from tests.helpers.processes import Processes, WorkerProcess
from tests.helpers.tones import Samples, encode, wav_bytes

RATE = 16_000
PAUSE = 0.7
"""Seconds between two clips."""
SURE = 0.0
"""Temperature: above it the model throws dice, and hears doubtful speech differently each time."""
HEARS: dict[str, str] = {
    "PIPELINE": "decode,limits,normalize,silence,whisper,tidy",
    "PLUGINS_PATH": "",
    "WHISPER_REPLICAS": "1",
    "WORKER_SLOTS": "1",
}


def joined(speech: Path, seconds: float) -> tuple[Samples, str]:
    """English clips one behind the other, again from the first if they are too few; and their words."""
    rows = manifest(speech).values()
    english = [
        r
        for r in rows
        if r["language"] == "en" and r["kind"] == "original" and r["text"] and r["seconds"] < 30
    ]
    parts: list[Samples] = []
    texts: list[str] = []
    length = 0
    for row in itertools.cycle(english):
        if length >= seconds * RATE:
            return np.concatenate(parts), " ".join(texts)
        parts += [clip(speech, row["id"]), np.zeros(int(PAUSE * RATE), np.float32)]
        texts.append(row["text"])
        length += len(parts[-1]) + len(parts[-2])
    raise AssertionError


def megabytes(worker: WorkerProcess) -> int:
    """The most that a process has held so far."""
    lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1024


async def when(job: Job, part: float) -> JobEvent:
    """Wait until so much of a job is done."""
    async for event in job.events():
        if event.progress >= part or event.final:
            return event
    raise AssertionError


def said(transcript: Transcript) -> list[Any]:
    """All but who did it, and when."""
    return [transcript.text, transcript.language, transcript.duration, transcript.segments]


async def test_a_recording_reads_the_same_though_one_of_two_workers_dies_on_the_way(
    processes: Processes, nc: Client, speech: Path
):
    samples, _ = joined(speech, 45)
    await prepared(nc, "tiny.en")
    variables = {**HEARS, "WHISPER_MODEL": "tiny.en", "MAX_AUDIO_DURATION": "10"}
    dying, _ = await processes.start(2, **variables)
    await hurried(nc, 4, "tiny.en")  # workers say each 3.3 s that they are at it
    async with TranscribeClient(processes.url, model="tiny.en") as caller:
        audio = wav_bytes(samples)
        quiet = await (await caller.submit(audio, temperature=SURE)).result(timeout=50)
        job = await caller.submit(audio, temperature=SURE)
        assert not (await when(job, 0.2)).final
        dying.signal(signal.SIGKILL)
        stormy = await job.result(timeout=50)
        assert said(stormy) == said(quiet)
        assert stormy.duration == pytest.approx(len(samples) / RATE, abs=0.01)
        book = await ledger(nc, [job])
    assert (book.ends, book.pieces) == ({1: 1}, {1: 1})


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_twenty_minutes_read_the_same_though_a_worker_dies_and_another_comes_late(
    processes: Processes, nc: Client, speech: Path
):
    samples, words = joined(speech, 1200)
    audio = encode(samples, RATE, "flac")
    await prepared(nc, "base")
    variables = {**HEARS, "WHISPER_MODEL": "base"}
    seconds: dict[str, float] = {}
    peaks: list[int] = []
    async with TranscribeClient(processes.url, model="base") as caller:

        async def timed(name: str, job: Job) -> Transcript:
            transcript = await job.result(timeout=1800)
            status = await job.status()
            assert status.started_at
            assert status.finished_at
            seconds[name] = status.finished_at - status.started_at
            return transcript

        (first,) = await processes.start(1, **variables)
        alone = await timed("one worker", await caller.submit(audio, temperature=SURE))
        (second,) = await processes.start(1, **variables)
        both = await timed("two workers", await caller.submit(audio, temperature=SURE))
        job = await caller.submit(audio, temperature=SURE)
        await when(job, 0.5)
        peaks += [megabytes(first), megabytes(second)]
        first.signal(signal.SIGKILL)
        await asyncio.sleep(5)
        (late,) = await processes.start(1, **variables)
        stormy = await timed("one killed, one late", job)
        book = await ledger(nc, [job])
        free = await timed("two workers as they are set", await caller.submit(audio))
        peaks += [megabytes(second), megabytes(late)]
    stock, took = await asyncio.to_thread(heard_in_one_piece, samples)
    ours, theirs = (errors(words, text) for text in (free.text, stock))
    print(  # noqa: T201 - a soak's figures are what it is run for
        f"\n{len(samples) / RATE / 60:.1f} minutes, {len(both.segments)} segments; "
        + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        + f", faster-whisper in one piece {took:.0f} s;"
        f" two workers are {seconds['one worker'] / seconds['two workers']:.2f} x one;"
        f" word errors {ours:.2%}, faster-whisper's {theirs:.2%};"
        f" most held by each worker: {', '.join(map(str, peaks))} MB"
    )
    assert said(alone) == said(both) == said(stormy)
    assert (book.ends, book.pieces, book.failures) == ({1: 1}, {1: 1}, 0)
    assert max(peaks) < 700
    assert ours <= theirs + 0.003


def heard_in_one_piece(samples: Samples) -> tuple[str, float]:
    """What faster-whisper itself makes of it, with the same weights; and its seconds."""
    from faster_whisper import WhisperModel  # noqa: PLC0415 - half a second

    from bus_worker.model_store import find_model  # noqa: PLC0415 - as above

    model = WhisperModel(
        str(find_model("base").path), device="cpu", compute_type="int8", cpu_threads=2
    )
    began = time.monotonic()
    segments, _ = model.transcribe(samples)
    return "".join(segment.text for segment in segments), time.monotonic() - began


def errors(words: str, text: str) -> float:
    """The word error rate, spelling and numbers made alike."""
    whole = Clip("whole", b"", words, "en", 0.0)
    return rate(counted([whole], {"whole": Heard(text, "en", [])}))


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_an_hour_of_mp3_is_opened_in_less_than_700_megabytes(
    processes: Processes, nc: Client, speech: Path
):
    samples, _ = joined(speech, 1200)
    audio = encode(np.tile(samples, 3), RATE, "mp3")
    await prepared(nc, "base")
    (worker,) = await processes.start(1, **HEARS, WHISPER_MODEL="base")
    async with TranscribeClient(processes.url, model="base") as caller:
        job = await caller.submit(audio)
        began = time.monotonic()
        status = await job.status()
        while status.windows is None and not status.final:  # until it has been read to its end
            await asyncio.sleep(0.5)
            status = await job.status()
        opened = time.monotonic() - began
        await when(job, 0.05)
        await job.cancel()
    print(  # noqa: T201 - a soak's figures are what it is run for
        f"\n{len(audio) / 1e6:.0f} MB of mp3, {status.duration} s, {status.windows} windows: opened in"
        f" {opened:.1f} s; the worker held {megabytes(worker)} MB at most"
    )
    assert status.windows
    assert megabytes(worker) < 700
