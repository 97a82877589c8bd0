"""How much sooner a long recording is done with more workers, and what they are at meanwhile."""

import io
import statistics
import wave
from contextlib import AsyncExitStack

import numpy as np

from bus_worker.bench.jobs import LIMIT, prepared
from bus_worker.bench.processes import PRETEND, WORKER, started
from bus_worker.bench.report import Row, Section
from bus_worker.client import TranscribeClient
from bus_worker.errors import Failed

__all__ = ["measure", "recording"]

CROWDS = (1, 2, 4, 8, 16)
LENGTH, QUICK_LENGTH = 3600, 300
"""Seconds of audio."""
WINDOW = "0.1"
"""Seconds that the pretended engine takes for a window of 30 s."""
TURNS = 3
RATE = 16_000


async def measure(*, quick: bool = False) -> Section:
    """From the moment that a worker begins until the transcript is there, for more and more workers."""
    length = QUICK_LENGTH if quick else LENGTH
    audio = recording(length)
    rows: list[Row] = []
    variables = {"PIPELINE": "decode,limits,pretend", "PRETEND__SECONDS": WINDOW}
    async with prepared() as (url, client), AsyncExitStack() as stack:
        there = 0
        for workers in CROWDS:
            for _ in range(workers - there):
                worker = started(
                    *WORKER, **{**PRETEND, **variables}, NATS_URL=url, WORKER_SLOTS="1"
                )
                await stack.enter_async_context(worker)
            there = workers
            turns = [await _seconds(client, audio) for _ in range(1 if quick else TURNS)]
            seconds = statistics.median(turns)
            first = rows[0]["seconds"] if rows else seconds
            rows.append(
                {
                    "workers": workers,
                    "seconds": round(seconds, 2),
                    "lowest": round(min(turns), 2),
                    "highest": round(max(turns), 2),
                    "x as fast as one": round(first / seconds, 2),
                    "of what is possible": f"{first / seconds / workers:.0%}",
                }
            )
    return Section(
        f"One recording of {length / 60:g} minutes over many workers of one slot",
        rows,
        f"An engine that takes {WINDOW} s for a window of 30 s; {len(turns)} turns, their median.",
    )


async def _seconds(client: TranscribeClient, audio: bytes) -> float:
    job = await client.submit(audio)
    await job.result(LIMIT)
    status = await job.status()
    if status.started_at is None or status.finished_at is None:
        raise Failed("a job is done that never began")
    await job.erase()
    return status.finished_at - status.started_at


def recording(seconds: float) -> bytes:
    """A wav of noise with a pause every six seconds, as speech has."""
    count = int(seconds * RATE)
    samples = np.random.default_rng(1).standard_normal(count, dtype=np.float32) * 1500
    samples[np.arange(count) % (6 * RATE) < RATE // 2] *= 0.01
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()
