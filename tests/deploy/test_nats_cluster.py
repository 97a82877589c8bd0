"""Three servers are one bus: while one of them is killed no job is lost, and nobody asks in vain."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bus_worker.bus import connect
from bus_worker.client import Job, TranscribeClient
from bus_worker.errors import BusWorkerError
from bus_worker.jobs import Limits
from tests.helpers.cluster import Cluster, cluster
from tests.helpers.house import Workers, until
from tests.helpers.jobs import ledger


@dataclass
class Load:
    """Jobs handed in and requests asked, one after the other, until it is enough."""

    client: TranscribeClient
    jobs: list[Job] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    sizes: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def hand_in(self, count: int) -> None:
        """As a careful service does: again under the same key, where it is told to try again."""
        for number in range(1, count + 1):
            while True:
                try:
                    job = await self.client.submit(b"x" * number, idempotency_key=f"job {number}")
                except BusWorkerError as exc:
                    if not exc.retry:
                        raise
                else:
                    self.jobs.append(job)
                    break

    async def ask(self) -> None:
        """Requests until it is cancelled; each must be answered, and rightly."""
        while True:
            size = next(self.sizes)
            heard = await self.client.transcribe(b"y" * size, timeout=45)
            assert heard.text == f"{size} bytes"
            self.answers.append(heard.text)


@asynccontextmanager
async def at_work(bus: Cluster) -> AsyncIterator[Load]:
    """A worker at each server, and a client of the whole."""
    await bus.set_up()
    async with AsyncExitStack() as stack:
        for server in bus.servers:
            house = await stack.enter_async_context(Workers(server, **server.who("worker")))
            await house.start(model="base", slots=2, seconds=0.1, jobs=Limits(), request_timeout=45)
        client = TranscribeClient(bus.address("publisher"), model="base", timeout=45)
        yield Load(await stack.enter_async_context(client))


@pytest.mark.soak  # elections alone take ten seconds
@pytest.mark.timeout(180)
async def test_the_server_that_leads_the_jobs_is_killed_and_no_job_is_lost(tmp_path: Path):
    count = 60
    async with cluster(tmp_path) as bus, at_work(bus) as load:
        handing = asyncio.create_task(load.hand_in(count))
        asking = [asyncio.create_task(load.ask()) for _ in range(3)]
        await until(lambda: len(load.jobs) > 15, 30)
        victim = await bus.leader("STT_JOBS")
        await bus.kill(victim)
        await handing
        await asyncio.gather(*(job.result(timeout=60) for job in load.jobs))
        for task in asking:
            task.cancel()
        ended = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 3, ended
        async with connect(bus.address("admin")) as admin:
            book = await ledger(admin.client, load.jobs)
        violations = [line for server in bus.servers for line in server.violations]
    assert (book.status, book.ends, book.pieces) == ({"done": count}, {1: count}, {1: count})
    assert [book.texts[job.id] for job in load.jobs] == [f"{n + 1} bytes" for n in range(count)]
    assert (book.failures, violations) == (0, [])
    print(  # noqa: T201 - the figures
        f"{len(load.answers)} requests answered; {book.attempts} attempts, {book.deaths} deaths"
    )
