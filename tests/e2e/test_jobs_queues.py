"""People before jobs, queues that are full, jobs that are cancelled, audio that cannot be heard."""

import asyncio
import time
from pathlib import Path

import pytest
from nats.aio.client import Client

from bus_worker.client import Job, TranscribeClient
from bus_worker.errors import BadAudio, Busy
from bus_worker.messages import unpack
from tests.helpers.jobs import NAMES, NOTED, ledger, narrowed, prepared, until_queues_are_empty
from tests.helpers.processes import Processes
from tests.helpers.tones import noise, wav_bytes

LONG = {
    "PIPELINE": "decode,limits,noted,pretend", "MAX_AUDIO_DURATION": "1", "PRETEND__SECONDS": "0.1",
}  # fmt: skip
"""Workers that cut recordings into windows of a second, and take a tenth for each."""


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """A stage's file; beside it the stage writes `heard`."""
    path = tmp_path / "noted.py"
    path.write_text(NOTED)
    (tmp_path / "heard").touch()
    return path


def heard(noted: Path) -> list[int]:
    """The size of all that workers began to hear, in order."""
    return [int(line) for line in noted.with_name("heard").read_text().split()]


async def started(processes: Processes, noted: Path, **variables: str) -> None:
    file = str(noted.with_name("heard"))
    given = {"PIPELINE": "noted,pretend", "NOTED__FILE": file, "WORKER_SLOTS": "1", **variables}
    await processes.start(1, noted, **given)


async def until_heard(noted: Path, count: int) -> None:
    async with asyncio.timeout(30):
        while len(heard(noted)) < count:  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.01)


async def test_at_most_one_of_a_hundred_jobs_goes_before_a_person(
    processes: Processes, caller: TranscribeClient, nc: Client, noted: Path
):
    await prepared(nc)
    await started(processes, noted, PRETEND__SECONDS="0.05")
    for size in range(1, 101):
        await caller.submit(b"x" * size)
    await until_heard(noted, 5)
    for person in range(1001, 1006):
        before = len(heard(noted))
        await caller.transcribe(b"x" * person)
        assert heard(noted).index(person) - before <= 1
    assert len(heard(noted)) < 105


async def test_with_two_slots_people_and_jobs_both_go_on_while_the_others_flood(
    processes: Processes, caller: TranscribeClient, nc: Client, noted: Path
):
    await prepared(nc)
    await started(processes, noted, WORKER_SLOTS="2", PRETEND__SECONDS="0.05")
    jobs = [await caller.submit(b"x" * size) for size in range(1, 41)]
    people = 0
    async with asyncio.timeout(30):
        while (await jobs[9].status()).status != "done":
            await caller.transcribe(b"x" * 1000, timeout=5)
            people += 1
    assert people > 0
    assert (await jobs[-1].status()).status == "queued"
    flood = [asyncio.create_task(_flood(caller)) for _ in range(8)]
    try:
        await asyncio.gather(*(job.result(timeout=30) for job in jobs))
        assert not any(asking.done() for asking in flood)
    finally:
        for asking in flood:
            asking.cancel()
        await asyncio.wait(flood)


async def _flood(caller: TranscribeClient) -> None:
    while True:
        await caller.transcribe(b"x" * 2000)


async def _fill(caller: TranscribeClient, jobs: list[Job]) -> None:
    while len(jobs) < 20:
        jobs.append(await caller.submit(b"x" * (len(jobs) + 1)))


async def test_a_full_stream_of_jobs_refuses_and_what_it_holds_is_done(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    await prepared(nc)
    await processes.start(1, WORKER_SLOTS="1", PRETEND__SECONDS="0.3")
    await narrowed(nc, NAMES.jobs_stream, 3)
    jobs: list[Job] = []
    with pytest.raises(Busy, match="the queue of jobs is full"):
        await _fill(caller, jobs)
    assert len(jobs) >= 3
    await asyncio.gather(*(job.result(timeout=30) for job in jobs))
    assert (await (await caller.submit(b"again")).result(timeout=30)).text == "5 bytes"


async def test_a_recording_of_more_windows_than_their_stream_holds_is_done_all_the_same(
    processes: Processes, caller: TranscribeClient, nc: Client, noted: Path
):
    await prepared(nc)
    await started(processes, noted, **LONG)
    await narrowed(nc, NAMES.windows_stream, 4)
    job = await caller.submit(wav_bytes(noise(7)))
    transcript = await job.result(timeout=25)
    status = await job.status()
    assert status.attempts == 2, "it had to wait for room"
    assert (status.failures, status.windows_done) == (0, status.windows)
    assert transcript.duration == 7
    assert sum(heard(noted)) == 7 * 16_000, "each window is heard once"
    await until_queues_are_empty(nc)


async def test_a_cancelled_job_that_waits_never_runs_and_a_running_one_stops(
    processes: Processes, caller: TranscribeClient, nc: Client, noted: Path
):
    await prepared(nc)
    await started(processes, noted, **{**LONG, "PRETEND__SECONDS": "0.3"})
    running = await caller.submit(wav_bytes(noise(30)))
    replies = await nc.subscribe("stt.results.cancelled")
    queued = await caller.submit(wav_bytes(noise(0.5)), reply_to="stt.results.cancelled")
    after = await caller.submit(wav_bytes(noise(0.4)))
    await queued.cancel()
    await until_heard(noted, 3)
    cancelled = time.monotonic()
    assert (await running.cancel()).status == "cancelled"
    count = len(heard(noted))
    assert (await after.result(timeout=30)).text == "6400 samples"
    print(  # noqa: T201 - for the closing note
        f"\nwindows begun after the cancellation: {len(heard(noted)) - count - 1};"
        f" the next job was done {time.monotonic() - cancelled:.2f} s after it"
    )
    assert len(heard(noted)) - count - 1 <= 1
    assert 8000 not in heard(noted), "the half second that waited"
    assert unpack((await replies.next_msg(timeout=30)).data)["error"]["code"] == "cancelled"
    book = await ledger(nc, [running, queued])
    assert (book.status, book.ends) == ({"cancelled": 2}, {1: 2})
    await until_queues_are_empty(nc)
    assert len(heard(noted)) - count - 1 <= 1


async def test_audio_that_cannot_be_heard_is_a_dead_letter_with_its_reason(
    processes: Processes, caller: TranscribeClient, nc: Client, noted: Path
):
    await prepared(nc)
    await started(processes, noted, **LONG)
    poison = await caller.submit(b"this is no audio at all" * 50)
    good = await caller.submit(wav_bytes(noise(0.5)))
    with pytest.raises(BadAudio) as refused:
        await poison.result(timeout=30)
    kept = await nc.jetstream().get_last_msg(NAMES.dead_stream, NAMES.dead(poison.id))
    letter = unpack(kept.data)
    assert letter["reason"]["message"] == refused.value.message
    assert unpack(letter["message"])["audio"] == b"this is no audio at all" * 50
    assert (await poison.status()).attempts == 1
    assert (await good.result(timeout=30)).text == "8000 samples"
    await until_queues_are_empty(nc)
