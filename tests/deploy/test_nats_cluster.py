"""Three servers are one bus: while one of them is killed no job is lost, and nobody asks in vain."""

import asyncio
import time
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
from tests.helpers.deployed import deployed
from tests.helpers.house import Workers, until
from tests.helpers.jobs import ledger


@dataclass
class Load:
    """Jobs handed in and requests asked, one after the other, until it is enough."""

    client: TranscribeClient
    jobs: list[Job] = field(default_factory=list)
    answered: int = 0
    refused: int = 0
    slowest: float = 0.0
    """Seconds until a job was handed in."""

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Jobs handed in and requests asked meanwhile; at the end every job has its result."""
        enough = asyncio.Event()
        handing = asyncio.create_task(self.hand_in(enough))
        asking = [asyncio.create_task(self.ask()) for _ in range(3)]
        try:
            yield
            enough.set()
            await handing
            await asyncio.gather(*(job.result(timeout=90) for job in self.jobs))
        finally:
            for task in (handing, *asking):
                task.cancel()
            ended = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(end) for end in ended] == [asyncio.CancelledError] * 3, ended

    async def hand_in(self, enough: asyncio.Event) -> None:
        """As a careful service does: again under the same key, where it is told to try again."""
        while not enough.is_set():
            number, began = len(self.jobs) + 1, time.monotonic()
            while True:
                try:
                    job = await self.client.submit(b"x" * number, idempotency_key=f"job {number}")
                except BusWorkerError as exc:
                    if not exc.retry:
                        raise
                    self.refused += 1
                else:
                    self.jobs.append(job)
                    break
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0.02)

    async def ask(self) -> None:
        """Requests until it is cancelled; each must be answered, and rightly."""
        while True:
            size = 1 + self.answered % 1000
            heard = await self.client.transcribe(b"y" * size, timeout=45)
            assert heard.text == f"{size} bytes"
            self.answered += 1


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
    async with cluster(tmp_path) as bus, at_work(bus) as load:
        async with load.going_on():
            await until(lambda: len(load.jobs) > 15, 30)
            await bus.kill(await bus.leader("STT_JOBS"))
            await until(lambda: len(load.jobs) > 60, 60)
        await all_is_told(bus, load)


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_one_server_after_the_other_is_killed_and_comes_back(tmp_path: Path):
    async with cluster(tmp_path) as bus, at_work(bus) as load:
        async with load.going_on():
            for victim in bus.servers:
                told = len(load.jobs)
                await bus.kill(victim)
                await until(lambda: len(load.jobs) > told + 15, 60)  # noqa: B023 - awaited at once
                await victim.start()
                await bus.whole()
        await all_is_told(bus, load)


async def test_a_server_takes_the_clusters_file(tmp_path: Path):
    """Alone it listens, and waits for the others."""
    async with deployed(
        tmp_path, "cluster.conf", NATS_SERVER_NAME="speech-1", NATS_ROUTE_PASSWORD="r0ute",
        NATS_CLUSTER_LISTEN="127.0.0.1:-1", NATS_ROUTES='["nats://route:r0ute@127.0.0.1:1"]',
    ) as server, connect(server.address("admin")) as admin:  # fmt: skip
        assert admin.client._server_info["cluster"] == "speech"


async def all_is_told(bus: Cluster, load: Load) -> None:
    """Each job was done and told once, and nobody tried what it may not."""
    count = len(load.jobs)
    async with connect(bus.address("admin")) as admin:
        book = await ledger(admin.client, load.jobs)
    assert (book.status, book.ends, book.pieces) == ({"done": count}, {1: count}, {1: count})
    assert [book.texts[job.id] for job in load.jobs] == [f"{n + 1} bytes" for n in range(count)]
    assert book.failures == 0
    assert [line for server in bus.servers for line in server.violations] == []
    print(  # noqa: T201 - the figures
        f"{load.answered} requests answered; {count} jobs, {book.attempts} attempts, {book.deaths} deaths;"
        f" handing in was refused {load.refused} times, the slowest took {load.slowest:.1f} s"
    )
