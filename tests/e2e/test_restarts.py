"""Workers come, go and die under load; no caller loses anything by it."""

import asyncio
import signal
import time
from dataclasses import dataclass, field

import pytest
from nats.aio.client import Client

from bus_worker import errors
from bus_worker.client import TranscribeClient
from tests.helpers.processes import Processes, figures, until_busy


@dataclass
class Load:
    """Callers who ask again as soon as they have their answer, each time with a size of its own."""

    caller: TranscribeClient
    seconds: float = 0.02
    asked: int = 0
    answered: int = 0
    served_by: set[str] = field(default_factory=set)
    enough: bool = False

    async def ask(self) -> None:
        while not self.enough:
            self.asked += 1
            size = self.asked
            transcript = await self.caller.transcribe(
                b"x" * size, stages={"pretend": {"seconds": self.seconds}}
            )
            assert transcript.text == f"{size} bytes"
            self.answered += 1
            self.served_by.add(transcript.worker_id)

    async def run(self, restarts: "asyncio.Task[None]", callers: int = 8) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self.ask())
            try:
                await restarts
            finally:
                self.enough = True


async def rolling(processes: Processes, times: int) -> None:
    """Replace one worker after another, as a roll-out does."""
    for number in range(times):
        await asyncio.sleep(0.2)
        going = processes.started[number]
        going.signal(signal.SIGTERM)
        assert await going.left() == 0
        assert going.event("stopped")
        await processes.start(WORKER_SLOTS="2")
    await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    "restarts",
    [
        3,
        pytest.param(40, marks=[pytest.mark.soak, pytest.mark.timeout(400)]),
    ],
)
async def test_rolling_restarts_under_load_lose_no_request(
    processes: Processes, caller: TranscribeClient, restarts: int
):
    await processes.start(3, WORKER_SLOTS="2")
    load = Load(caller)
    await load.run(asyncio.create_task(rolling(processes, restarts)))
    assert load.answered == load.asked > 50
    assert load.served_by >= {worker.worker_id for worker in processes.started[: restarts + 1]}
    served = sum(
        worker.event("stopped")["answers"].get("ok", 0) for worker in processes.started[:restarts]
    )
    assert 0 < served <= load.answered


async def test_the_caller_of_a_killed_worker_has_its_answer_from_another_within_six_seconds(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    workers = {worker.worker_id: worker for worker in await processes.start(2)}
    asking = asyncio.create_task(caller.transcribe(b"x" * 7, stages={"pretend": {"seconds": 0.5}}))
    holder = await until_busy(nc)
    workers[holder].signal(signal.SIGKILL)
    killed = time.monotonic()
    transcript = await asking
    assert transcript.text == "7 bytes"
    assert transcript.worker_id != holder
    assert time.monotonic() - killed < 6
    assert await workers[holder].left() == -signal.SIGKILL


async def test_sigterm_answers_what_is_in_hand_and_takes_nothing_new(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    (worker,) = await processes.start(WORKER_SLOTS="2")
    asking = asyncio.create_task(caller.transcribe(b"x" * 7, stages={"pretend": {"seconds": 1.0}}))
    await until_busy(nc)
    worker.signal(signal.SIGTERM)
    await worker.said("draining")
    with pytest.raises(errors.Unavailable):
        await caller.transcribe(b"late", timeout=0.7)
    assert not asking.done()
    assert (await asking).text == "7 bytes"
    assert await worker.left() == 0
    assert worker.event("stopped")["answers"] == {"ok": 1}


async def test_after_a_second_sigterm_a_caller_is_served_by_another_worker(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    first, second = await processes.start(2)
    workers = {worker.worker_id: worker for worker in (first, second)}
    asking = asyncio.create_task(caller.transcribe(b"x" * 7, stages={"pretend": {"seconds": 2.0}}))
    holder = await until_busy(nc)
    workers[holder].signal(signal.SIGTERM)
    await workers[holder].said("draining")
    workers[holder].signal(signal.SIGTERM)
    assert await workers[holder].left(2.0) == 0
    assert workers[holder].event("stopped")["answers"] == {"stopping": 1}
    assert not asking.done()
    transcript = await asking
    assert (transcript.text, transcript.worker_id != holder) == ("7 bytes", True)


async def test_a_second_sigterm_with_a_stuck_thread_leaves_at_once_and_the_caller_hears(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    (worker,) = await processes.start()
    asking = asyncio.create_task(
        caller.transcribe(b"x", timeout=20, stages={"pretend": {"stubborn": 60}})
    )
    await until_busy(nc)
    worker.signal(signal.SIGTERM)
    await worker.said("draining")
    worker.signal(signal.SIGTERM)
    assert await worker.left(3.0) == 0
    with pytest.raises(errors.Unavailable, match="no worker"):
        async with asyncio.timeout(6):
            await asking


async def test_a_thread_stuck_past_its_deadline_keeps_its_slot_and_ends_the_worker(
    processes: Processes, caller: TranscribeClient, nc: Client
):
    (worker,) = await processes.start(STUCK_AFTER="2")
    asked = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        await caller.transcribe(b"x", timeout=0.5, stages={"pretend": {"stubborn": 60}})
    assert time.monotonic() - asked < 2
    answered = await worker.said("request")
    assert (answered["code"], answered["seconds"] < 2) == ("deadline_exceeded", True)
    data = (await figures(nc))[worker.worker_id]
    assert (data["in_flight"], data["stuck"]) == (1, 1)
    with pytest.raises(errors.Busy):
        await caller.transcribe(b"y", timeout=0.3)
    assert await worker.left(8.0) == 1
    assert worker.event("stuck")["seconds"] > 2


async def test_the_slot_of_a_stuck_thread_comes_back_with_the_thread(
    processes: Processes, caller: TranscribeClient
):
    await processes.start()
    with pytest.raises(errors.DeadlineExceeded):
        await caller.transcribe(b"x", timeout=0.3, stages={"pretend": {"stubborn": 1.5}})
    transcript = await caller.transcribe(b"x" * 7, timeout=10)
    assert transcript.text == "7 bytes"
