"""Jobs in the slots that people leave free."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from nats.aio.msg import Msg

from bus_worker import streams
from bus_worker.credits import Credits
from bus_worker.jobs import Limits, worker
from bus_worker.lanes import Lanes
from bus_worker.messages import pack
from bus_worker.pulls import Held, Pulls, WorkQueue
from bus_worker.results import Results
from bus_worker.streams import make_streams
from tests.helpers.course import queued_in
from tests.helpers.house import NAMES, Workers, until

QUEUES = [
    [WorkQueue("STT_WINDOWS", "pretend-high"), WorkQueue("STT_JOBS", "pretend-high")],
    [WorkQueue("STT_WINDOWS", "pretend-low"), WorkQueue("STT_JOBS", "pretend-low")],
]


@dataclass
class Hall:
    """Lanes whose jobs are done as the test wants it."""

    took: list[bytes] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    most: int = 0
    now: int = 0

    async def take(self, held: Held) -> None:
        self.took.append(held.data)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.may_end.wait()
        self.now -= 1
        await held.done()

    @asynccontextmanager
    async def open(self, workers: Workers, slots: int, most: int | None) -> AsyncIterator[Lanes]:
        async def handle(_: Msg) -> None:
            """Nobody asks."""

        bus = await workers.bus()
        offered, pulls = Credits(bus, "work", "group", slots, handle), Pulls(bus, 10.0)
        lanes = Lanes(offered, pulls, QUEUES, self.take, somebody_waits=lambda: False, most=most)
        await offered.start()
        await pulls.start()
        offered.on_room.append(lanes.wake)
        lanes.start()
        yield lanes
        self.may_end.set()
        await lanes.stop()
        await pulls.stop()
        await offered.stop(5)


async def put(workers: Workers, *subjects: str) -> None:
    """One message a subject, which says where it was put."""
    nc = (await workers.bus()).client
    await make_streams(nc, NAMES, "pretend")
    for subject in subjects:
        kind, _, priority = subject.partition(" ")
        await nc.jetstream().publish(f"stt.{kind}.pretend.{priority}", subject.encode())


@pytest.mark.parametrize(("most", "begun"), [(0, 0), (1, 1), (9, 3), (None, 2)])
async def test_of_three_slots_jobs_take_as_many_as_they_may(
    workers: Workers, most: int | None, begun: int
):
    await put(workers, *["jobs low"] * 5)
    hall = Hall()
    async with hall.open(workers, 3, most) as lanes:
        await until(lambda: hall.now == begun)
        await asyncio.sleep(0.1)
        assert lanes.jobs == begun
        hall.may_end.set()
        await until(lambda: len(hall.took) == (5 if begun else 0))
    assert hall.most == begun


async def test_of_one_slot_jobs_take_that_one(workers: Workers):
    await put(workers, "jobs low", "jobs low")
    hall = Hall()
    async with hall.open(workers, 1, None):
        await until(lambda: hall.now == 1)
        hall.may_end.set()
        await until(lambda: len(hall.took) == 2)
    assert hall.most == 1


async def test_windows_go_before_jobs_and_high_before_low(workers: Workers):
    await put(workers, *["jobs low", "jobs high", "windows low", "windows high"] * 2)
    hall = Hall()
    hall.may_end.set()
    async with hall.open(workers, 1, None):
        await until(lambda: len(hall.took) == 8)
    assert hall.took == [
        b"windows high", b"windows high", b"jobs high", b"jobs high",
        b"windows low", b"windows low", b"jobs low", b"jobs low",
    ]  # fmt: skip


async def test_each_eighth_turn_begins_with_the_low_priority(workers: Workers):
    await put(workers, *["jobs high"] * 20, *["jobs low"] * 2, "windows low")
    hall = Hall()
    hall.may_end.set()
    async with hall.open(workers, 1, None):
        await until(lambda: len(hall.took) == 23)
    low = [(n, took) for n, took in enumerate(hall.took) if took != b"jobs high"]
    assert low == [(7, b"windows low"), (15, b"jobs low"), (22, b"jobs low")]


async def test_people_go_before_all_jobs_but_the_one_that_is_begun(workers: Workers):
    service = await workers.start(jobs=Limits(), slots=1, seconds=0.03)
    lanes, course = workers.jobs[0].lanes, list[str]()
    take, enter = lanes._take, service.waiting.enter

    async def taken(held: Held) -> None:
        course.append("job")
        await take(held)

    def entered(inbox: str) -> None:
        course.append("waits")
        enter(inbox)

    lanes._take, service.waiting.enter = taken, entered  # type: ignore[method-assign]
    client = await workers.client()
    nc = (await workers.bus()).client
    for _ in range(100):
        await nc.jetstream().publish("stt.jobs.pretend.high", pack({"audio": b"job"}))
    for _ in range(5):
        await until(lambda: lanes.jobs == 1)
        course.clear()
        await client.transcribe(b"person")
        behind = course[course.index("waits") :] if "waits" in course else []
        assert behind.count("job") <= 1
    assert await queued_in(nc, "STT_JOBS")


async def test_a_job_that_was_fetched_in_vain_goes_back_at_once_and_nothing_is_counted(
    workers: Workers,
):
    await workers.start(jobs=Limits(), slots=1, seconds=0.0)
    lanes, waits = workers.jobs[0].lanes, list[int]()
    begin = lanes._begin

    async def begun(held: Held) -> None:
        if held.delivered < 3:  # a person came while it was fetched
            waits.append(held.delivered)
        await begin(held)
        if held.delivered < 3:
            asyncio.get_running_loop().call_later(0.05, waits.clear)

    lanes._begin, lanes._somebody_waits = begun, lambda: bool(waits)  # type: ignore[method-assign]
    job = await (await workers.client()).submit(b"job")
    await job.result(8)  # far sooner than what a dead worker had in hand comes again
    bus = await workers.bus()
    queue = await bus.client.jetstream().consumer_info("STT_JOBS", "pretend-low")
    assert queue.delivered.consumer_seq == 3
    record = await Results(bus.client, NAMES).record(job.id)
    assert (record.attempts, record.failures, record.deaths) == (1, 0, 0)


async def test_a_job_that_waits_for_its_slot_when_the_worker_stops_goes_back(workers: Workers):
    service = await workers.start(jobs=Limits(), slots=2, seconds=0.6)
    client = await workers.client()
    people = [asyncio.create_task(client.transcribe(bytes([n]))) for n in range(2)]
    await until(lambda: service.credits.busy == 2)
    job = await client.submit(b"job")
    stopped = workers.jobs.pop()
    lanes = stopped.lanes
    await until(lambda: lanes.jobs == 1)
    await stopped.stop_taking()
    assert lanes.jobs == service.credits.aside == 0
    bus = await workers.bus()
    another = Pulls(bus, 10.0)
    await another.start()
    async with asyncio.timeout(5):  # far less than the queue waits for a dead worker
        held = await another.next([QUEUES[1][1]])
    await another.stop()
    assert held is not None
    assert held.delivered == 2
    await asyncio.gather(*people)
    assert (await Results(bus.client, NAMES).record(job.id)).attempts == 0


async def test_a_job_that_waits_for_its_slot_stays_in_hand(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "ACK_WAIT", 0.6)
    monkeypatch.setattr(worker, "ACK_WAIT", 0.6)
    service = await workers.start(jobs=Limits(), slots=2, seconds=2.0)
    client = await workers.client()
    people = [asyncio.create_task(client.transcribe(bytes([n]))) for n in range(2)]
    await until(lambda: service.credits.busy == 2)
    job = await client.submit(b"job")
    await asyncio.sleep(0.3)
    js = (await workers.bus()).client.jetstream()
    another = await js.pull_subscribe_bind("pretend-low", "STT_JOBS")
    with pytest.raises(TimeoutError):
        await another.fetch(1, timeout=1.2)
    await asyncio.gather(*people)
    await job.result(30)
    queue = await js.consumer_info("STT_JOBS", "pretend-low")
    assert queue.delivered.consumer_seq == 1
