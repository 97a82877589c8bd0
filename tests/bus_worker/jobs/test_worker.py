"""The jobs' side of a worker: what is taken when, and what becomes of it whatever happens."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from bus_worker import streams
from bus_worker.embedded import NatsServer
from bus_worker.jetstream import if_last
from bus_worker.job_record import JobRecord
from bus_worker.jobs import Limits, worker
from bus_worker.jobs.attempt import Attempt
from bus_worker.messages import pack
from bus_worker.plugin import Draft, NoOptions, Stage, stage
from bus_worker.results import Results
from bus_worker.streams import check_queues, make_streams
from bus_worker.testing import pretend
from plugins.decode import decode
from tests.helpers.course import events_of, idle
from tests.helpers.house import NAMES, Workers, until
from tests.helpers.tones import noise, wav_bytes

LONG = wav_bytes(noise(6.0))


class Gate:
    """A stage that holds whoever comes until it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.heard = 0

    def stage(self) -> Stage:
        @stage(gives=("segments", "text"))
        async def gate(draft: Draft, _: NoOptions) -> None:
            """Wait."""
            self.heard += 1
            await self.open.wait()
            draft.text, draft.language = "through", "en"

        return gate


async def record_of(nc: Client, job_id: str) -> JobRecord:
    return await Results(nc, NAMES).record(job_id)


async def test_jobs_queued_and_in_hand_outlive_the_bus(workers: Workers, bus_server: NatsServer):
    service = await workers.start(jobs=Limits(), slots=2, seconds=0.3)
    client = await workers.client()
    jobs = [await client.submit(b"%d" % n) for n in range(6)]
    await until(lambda: service.credits.busy)
    await bus_server.stop()
    await until(lambda: not service._bus.connected)
    await asyncio.sleep(0.5)  # what is in hand is heard meanwhile, and cannot be told
    await bus_server.start()
    for job in jobs:
        await job.result(30)
    nc = (await workers.bus()).client
    for job in jobs:
        record = await record_of(nc, job.id)
        assert (record.attempts, record.failures, record.deaths) == (1, 0, 0)
        assert [event.final for event in await events_of(nc, job.id)].count(True) == 1


async def test_queues_that_are_made_later_are_taken_from(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker, "LOOK_AGAIN", 0.1)
    monkeypatch.setattr("tests.helpers.house.make_streams", no_streams)
    await workers.start(jobs=Limits(), seconds=0.0)
    await asyncio.sleep(0.3)
    assert not workers.jobs[0]._started
    await make_streams((await workers.bus()).client, NAMES, "pretend")
    job = await (await workers.client()).submit(b"job")
    await job.result(30)


@pytest.mark.parametrize("breaks", ["look", "begin"])
async def test_a_mistake_on_the_way_to_the_queues_is_said_and_does_not_end_the_taking(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, breaks: str
):
    looks, starts = ["not yet"], [worker.WebhookLine.start]

    async def looked(*given: Any) -> str | None:
        if looks:
            return looks.pop()
        if breaks == "look":
            monkeypatch.setattr(worker, "check_queues", check_queues)
            raise ValueError("a mistake")
        return await check_queues(*given)

    async def begun(line: worker.WebhookLine) -> None:
        if breaks == "begin":
            monkeypatch.setattr(worker.WebhookLine, "start", starts[0])
            raise ValueError("a mistake")
        await starts[0](line)

    monkeypatch.setattr(worker, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(worker, "check_queues", looked)
    monkeypatch.setattr(worker.WebhookLine, "start", begun)
    with capture_logs() as lines:
        await workers.start(jobs=Limits(), seconds=0.0)
        await (await (await workers.client()).submit(b"job")).result(30)
    said = [line for line in lines if line["event"] == "no_jobs"]
    assert ["why" in line for line in said] == [True, False]


async def no_streams(*_: Any) -> None:
    """What `setup` would make."""


async def test_a_worker_that_stops_while_it_looks_for_queues_just_stops(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tests.helpers.house.make_streams", no_streams)
    service = await workers.start(jobs=Limits(), seconds=0.0)
    jobs = workers.jobs.pop()
    await jobs.stop_taking()
    assert jobs._starting is not None
    assert jobs._starting.done()
    assert await (await workers.client()).transcribe(b"x")
    assert service.credits.busy == 0


async def test_a_recording_that_is_opened_when_the_worker_stops_is_anothers_at_once(
    workers: Workers,
):
    """Though a webhook is being told, which takes seconds."""
    gate = Gate()
    await workers.start(
        decode, gate.stage(), options={"decode": {"max_duration": 1.0}},
        slots=2, jobs=Limits(longest_clip=1.0),
    )  # fmt: skip
    jobs = workers.jobs.pop()
    job = await (await workers.client()).submit(LONG)
    await until(lambda: gate.heard)
    nc = (await workers.bus()).client
    telling, webhooks_stop = asyncio.Event(), jobs._webhooks.stop

    async def slow() -> None:
        await telling.wait()
        await webhooks_stop()

    jobs._webhooks.stop = slow  # type: ignore[method-assign]
    stopping = asyncio.create_task(jobs.stop_taking())
    async with asyncio.timeout(30):
        while (await record_of(nc, job.id)).holder:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)
    record = await record_of(nc, job.id)
    assert (record.status, record.attempts) == ("queued", 1)
    assert (record.failures, record.deaths) == (0, 0)
    assert not stopping.done()
    gate.open.set()
    await workers.start(
        decode, pretend, options={"decode": {"max_duration": 1.0}}, seconds=0.0,
        jobs=Limits(longest_clip=1.0),
    )  # fmt: skip
    transcript = await job.result(8)  # far sooner than a dead worker's work comes again
    assert transcript.duration == pytest.approx(6.0, abs=0.1)
    record = await record_of(nc, job.id)
    assert (record.attempts, record.failures, record.deaths) == (2, 0, 0)
    telling.set()
    await stopping


async def test_whoever_says_that_a_job_was_cancelled_is_not_believed(workers: Workers):
    gate = Gate()
    await workers.start(gate.stage(), jobs=Limits())
    job = await (await workers.client()).submit(b"job")
    await until(lambda: gate.heard)
    stranger = (await workers.bus()).client
    for said in (pack({"job_id": job.id}), pack({"job_id": 7}), pack({}), b"\xc1", b""):
        await stranger.publish(NAMES.cancel, said)
    await stranger.flush()
    await asyncio.sleep(0.1)
    (attempt,) = workers.jobs[0]._in_hand
    assert not attempt.gave_up.done()
    gate.open.set()
    assert (await job.result(30)).text == "through"


async def test_a_job_that_is_cancelled_indeed_stops(workers: Workers):
    gate = Gate()
    service = await workers.start(gate.stage(), jobs=Limits())
    job = await (await workers.client()).submit(b"job")
    await until(lambda: gate.heard)
    await job.cancel()
    await until(lambda: not service.credits.busy)
    assert (await job.status()).status == "cancelled"
    assert not gate.open.is_set()


@pytest.mark.parametrize(
    ("kind", "garbage"),
    [
        ("jobs", b"\xc1 garbage"),
        ("jobs", pack({"job_id": "j", "status": "queued", "model": []})),
        ("windows", pack({"job_id": 1})),
    ],
    ids=["no msgpack", "another type", "no record"],
)
async def test_a_job_whose_record_cannot_be_read_is_buried_and_said(
    workers: Workers, kind: str, garbage: bytes, capsys: pytest.CaptureFixture[str]
):
    nc = (await workers.bus()).client
    await make_streams(nc, NAMES, "pretend")
    await Results(nc, NAMES).js.write("STT_STATE", NAMES.state("j", "status"), garbage, if_last(0))
    window = {"job_id": "j", "number": 0, "start": 0, "pcm": bytes(3200), "scale": 1.0}
    body = pack({"audio": b"job"} if kind == "jobs" else window)
    await nc.jetstream().publish(f"stt.{kind}.pretend.low", body, headers={"Stt-Job-Id": "j"})
    await workers.start(jobs=Limits(), seconds=0.0)
    await idle(nc, limit=5)
    await until(lambda: not workers.jobs[0]._in_hand)
    said = [line for line in capsys.readouterr().out.splitlines() if "job_buried" in line]
    assert len(said) == 1


async def test_two_workers_with_one_job_at_once_make_one_course_of_events(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "ACK_WAIT", 0.3)
    gate = Gate()
    await workers.start(gate.stage(), jobs=Limits())  # says too seldom that it is at it
    await workers.start(gate.stage(), jobs=Limits())
    job = await (await workers.client()).submit(b"job")
    await until(lambda: gate.heard == 2)
    gate.open.set()
    assert (await job.result(30)).text == "through"
    nc = (await workers.bus()).client
    await idle(nc)
    await until(lambda: not any(jobs._in_hand for jobs in workers.jobs))
    events = await events_of(nc, job.id)
    assert [event.window for event in events].count(0) == 1
    assert [event for event in events if event.final] == events[-1:]
    texts = await texts_of(nc, job.id)
    assert len(texts) == 1
    record = await record_of(nc, job.id)
    assert record.answer in texts[0]


async def texts_of(nc: Client, job_id: str) -> list[str]:
    """The transcripts that are kept of a job."""
    found = await Results(nc, NAMES)._parts(job_id)
    return [part for part in found if part.startswith("text-")]


async def test_many_jobs_leave_nothing_behind_in_the_worker(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    service = await workers.start(
        decode, pretend, options={"decode": {"max_duration": 1.0}}, slots=2, seconds=0.0,
        jobs=Limits(longest_clip=1.0),
    )  # fmt: skip
    client = await workers.client()
    nc = (await workers.bus()).client
    clip, long = wav_bytes(np.zeros(1600, np.float32)), wav_bytes(noise(1.5))

    async def some(count: int) -> None:
        for at in range(0, count, 20):
            jobs = [await client.submit(long if (at + n) % 20 == 0 else clip) for n in range(20)]
            await asyncio.gather(*(job.result(30) for job in jobs))
        await idle(nc)
        await until(lambda: not workers.jobs[0]._in_hand and not service.credits._spent)

    await some(20)
    before = left(service._bus.client, tmp_path)
    await some(180)
    await until(
        lambda: all(
            now <= was for now, was in zip(left(service._bus.client, tmp_path), before, strict=True)
        )
    )


def left(nc: Client, folder: Path) -> tuple[int, int, int, int, int]:
    """Tasks, subscriptions, attempts, open files and temporary files that there are now."""
    gc.collect()
    # By `type`: a weak proxy is asked what it stands for by `isinstance`, and that may be gone.
    attempts = sum(type(one) is Attempt for one in gc.get_objects())
    files = len(list(Path("/proc/self/fd").iterdir()))
    return len(asyncio.all_tasks()), len(nc._subs), attempts, files, len(list(folder.iterdir()))
