"""Workers and the bus are killed while jobs are done: each has one result, and one end is told."""

import asyncio
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from bus_worker.client import Job, TranscribeClient
from bus_worker.embedded import NatsServer
from bus_worker.errors import Failed
from bus_worker.jobs.cutting import read_windows
from bus_worker.jobs.judging import MAX_DEATHS
from bus_worker.messages import unpack
from tests.helpers.house import until
from tests.helpers.jobs import NAMES, NOTED, hurried, ledger, prepared, receiver
from tests.helpers.processes import Processes, WorkerProcess, until_busy
from tests.helpers.tones import noise, wav_bytes

LONG = {
    "PIPELINE": "decode,limits,pretend", "MAX_AUDIO_DURATION": "1", "PRETEND__SECONDS": "0.1",
}  # fmt: skip
"""Workers that cut recordings into windows of a second, and take a tenth for each."""


@dataclass
class Storm:
    """Kills one worker after another, and the bus now and then."""

    server: NatsServer
    processes: Processes
    killed: int = 0
    restarts: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(6))

    async def kill_one(self) -> None:
        going = self.dice.choice(alive(self.processes))
        going.signal(signal.SIGKILL)
        self.killed += 1
        await going.left()

    async def kill_the_bus(self) -> None:
        assert self.server.process is not None
        self.server.process.kill()
        await self.server.process.wait()
        await self.server.start()
        self.restarts += 1

    async def every_second(self, variables: dict[str, str]) -> None:
        while True:
            await asyncio.sleep(1)
            await self.kill_one()
            await self.processes.spawn(**variables)


def alive(processes: Processes) -> list[WorkerProcess]:
    return [worker for worker in processes.started if worker.process.returncode is None]


async def handed_in(caller: TranscribeClient, *sizes: int, **asked: Any) -> list[Job]:
    """Jobs whose texts tell them apart."""
    return [await caller.submit(b"x" * size, **asked) for size in sizes]


async def all_done(jobs: list[Job], limit: float) -> None:
    await asyncio.gather(*(job.result(timeout=limit) for job in jobs))


async def test_jobs_survive_killed_workers_and_a_killed_bus(
    processes: Processes, caller: TranscribeClient, nc: Client, bus_server: NatsServer
):
    await prepared(nc)
    await processes.start(3, PRETEND__SECONDS="0.2")
    await hurried(nc, 2)
    sizes = range(1, 25)
    jobs = await handed_in(caller, *sizes)
    storm = Storm(bus_server, processes)
    done = asyncio.create_task(all_done(jobs, 30))
    await until_busy(nc)
    await storm.kill_one()
    await storm.kill_the_bus()
    await until_busy(nc)
    await storm.kill_one()
    await done
    book = await ledger(nc, jobs)
    assert (book.status, book.ends, book.pieces) == ({"done": 24}, {1: 24}, {1: 24})
    assert [book.texts[job.id] for job in jobs] == [f"{size} bytes" for size in sizes]
    assert book.failures == 0
    assert 1 <= book.deaths <= 2 + 1  # the bus may forget an acknowledgement as it dies


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_two_hundred_jobs_while_workers_are_killed_each_second_and_the_bus_twice(
    processes: Processes, caller: TranscribeClient, nc: Client, bus_server: NatsServer
):
    await prepared(nc)
    replies = Counter[str]()

    async def replied(msg: Any) -> None:
        replies[msg.headers["Stt-Job-Id"]] += 1

    await nc.subscribe("stt.results.storm", cb=replied)
    variables = {"WORKER_SLOTS": "1", "WEBHOOK_ALLOW": "127.0.0.1", "PRETEND__SECONDS": "0.4"}
    storm = Storm(bus_server, processes)
    async with receiver() as webhooks:
        await processes.start(4, **variables)
        jobs = await handed_in(caller, *range(1, 181), webhook=webhooks.url)
        jobs += await handed_in(caller, *range(181, 201), reply_to="stt.results.storm")
        began = time.monotonic()
        killing = asyncio.create_task(storm.every_second(variables))
        done = asyncio.create_task(all_done(jobs, 500))
        for _ in range(2):
            await asyncio.sleep(12)
            await storm.kill_the_bus()
        await done
        took = time.monotonic() - began
        killing.cancel()
        await asyncio.wait({killing})
        await until(lambda: len(webhooks.heard) == 180, limit=60)
        await asyncio.sleep(2)  # for any that are one too many
    book = await ledger(nc, jobs)
    print(  # noqa: T201 - a soak's figures are what it is run for
        f"\n200 jobs in {took:.0f} s; {storm.killed} workers killed, {storm.restarts} times the bus:"
        f" {dict(book.status)}, last events a job {dict(book.ends)}, words told {dict(book.pieces)},"
        f" {book.attempts} attempts, {book.deaths} deaths, {book.failures} failures;"
        f" {len(webhooks.heard)} webhooks by id, told {webhooks.heard.total()} times;"
        f" {len(replies)} of 20 replies, told {replies.total()} times"
    )
    assert (book.status, book.ends, book.pieces) == ({"done": 200}, {1: 200}, {1: 200})
    assert [book.texts[job.id] for job in jobs] == [f"{size} bytes" for size in range(1, 201)]
    assert book.failures == 0
    assert (len(webhooks.heard), len(replies)) == (180, 20)


async def test_a_leaving_worker_hands_all_it_has_to_another_and_nothing_counts_as_a_failure(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    await prepared(nc)
    leaving, _ = await processes.start(2, **LONG, WORKER_SLOTS="2")
    recordings = [await caller.submit(wav_bytes(noise(15, seed=n))) for n in range(2)]
    clips = [await caller.submit(wav_bytes(noise(0.5, seed=n))) for n in range(12)]
    jobs = recordings + clips
    done = asyncio.create_task(all_done(jobs, 40))
    async for event in recordings[0].events():
        if event.progress:
            break
    leaving.signal(signal.SIGTERM)
    assert await leaving.left(35) == 0
    assert not done.done()
    await done
    book = await ledger(nc, jobs)
    assert (book.status, book.ends, book.pieces) == ({"done": 14}, {1: 14}, {1: 14})
    assert (book.failures, book.deaths) == (0, 0)


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """A stage's file; beside it the stage writes `heard`."""
    path = tmp_path / "noted.py"
    path.write_text(NOTED)
    return path


async def reason_of(nc: Client, job: Job) -> str:
    """Why a job is a dead letter."""
    kept = await nc.jetstream().get_last_msg(NAMES.dead_stream, NAMES.dead(job.id))
    letter = unpack(kept.data)
    assert letter["message"] or letter["record"]["claim"]
    return str(letter["reason"]["message"])


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["clip", "window"])
async def test_what_kills_ten_workers_is_given_up_and_the_next_worker_lives_on(
    processes: Processes, caller: TranscribeClient, nc: Client, noted: Path, what: str
):
    await prepared(nc)
    recording = wav_bytes(noise(0.5 if what == "clip" else 1.5))
    deadly = len(list(read_windows(recording, longest=1))[-1].samples)
    variables = {
        **LONG, "PIPELINE": "decode,limits,noted,pretend", "NOTED__DEADLY": str(deadly),
        "NOTED__FILE": str(noted.with_name("heard")), "WORKER_SLOTS": "1",
    }  # fmt: skip
    poison = await caller.submit(recording)
    ended = asyncio.create_task(poison.result(timeout=800))
    while not ended.done():
        if not alive(processes):
            await processes.spawn(noted, **variables)
        await asyncio.sleep(0.2)
    with pytest.raises(Failed, match=f"{MAX_DEATHS} workers died"):
        await ended
    deaths = len(processes.started) - 1
    assert deaths == MAX_DEATHS + (
        what == "window"
    )  # a window's first delivery is not written down
    assert f"{MAX_DEATHS} workers died" in await reason_of(nc, poison)
    (alone,) = alive(processes)
    assert (await (await caller.submit(wav_bytes(noise(0.4)))).result(30)).text == "6400 samples"
    assert alone.process.returncode is None
    print(f"\ngiven up after {deaths} deaths: {await reason_of(nc, poison)}")  # noqa: T201 - a soak's figures
