"""A job ends once, whatever is killed when."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker import streams
from bus_worker.client import Job
from bus_worker.jobs import Limits, worker
from bus_worker.results import Results
from bus_worker.service import Service
from bus_worker.testing import pretend
from bus_worker.webhook_rules import WebhookRules
from plugins.decode import decode
from tests.helpers.course import Doomed, audio_left, events_of, idle, kept_of
from tests.helpers.house import NAMES, Workers, until
from tests.helpers.tones import encode, noise, wav_bytes

CLIP = wav_bytes(noise(0.4))
LARGE = encode(np.stack([noise(2.5, 48_000)] * 5, axis=1), 48_000, "wav")
"""More than a message takes."""
AT_ONCE = 10
RULES = WebhookRules.read(None, ("127.0.0.1",))


@dataclass
class Receiver:
    port: int = 0
    told: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    here = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            here.told[head.partition("webhook-id: ")[2].partition("\r\n")[0]] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    async with server:
        yield here


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ACK_WAIT", 1.0)
    monkeypatch.setattr(worker, "ACK_WAIT", 1.0)


@dataclass
class Case:
    """A job whose first worker is killed behind so many writes, of a model of its own."""

    workers: Workers
    hooks: Receiver
    writes: int
    audio: bytes
    replies: list[Msg] = field(default_factory=list)

    async def worker(self) -> Service:
        return await self.workers.start(
            decode, pretend, model=f"m{self.writes}", options={"decode": {"max_duration": 1.0}},
            slots=2, seconds=0.0, jobs=Limits(longest_clip=1.0), rules=RULES,
        )  # fmt: skip

    async def submit(self, nc: Client) -> Job:
        async def cb(msg: Msg) -> None:
            self.replies.append(msg)

        inbox = nc.new_inbox()
        await nc.subscribe(inbox, cb=cb)
        client = await self.workers.client(model=f"m{self.writes}")
        url = f"http://127.0.0.1:{self.hooks.port}/x"
        return await client.submit(self.audio, reply_to=inbox, webhook=url)

    async def run(self) -> tuple[bool, list[str]]:
        """Whether the worker was killed, and what is wrong behind it all."""
        service = await self.worker()
        jobs = next(one for one in self.workers.jobs if one._credits is service.credits)
        doomed = Doomed(service, jobs, self.writes)
        nc = (await self.workers.bus()).client
        job = await self.submit(nc)
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(idle(nc, f"m{self.writes}", limit=120))
            dead = group.create_task(doomed.dead.wait())
            await asyncio.wait({ended, dead}, return_when=asyncio.FIRST_COMPLETED)
            if doomed.dead.is_set():
                await doomed.bury()
                await self.worker()
            else:
                dead.cancel()
        wrong = [f"{self.writes}, {doomed.wrote[-1]}: {each}" async for each in self.amiss(nc, job)]
        return doomed.dead.is_set(), wrong

    async def amiss(self, nc: Client, job: Job) -> AsyncIterator[str]:
        transcript = await job.result(60)
        if abs(transcript.duration - (0.4 if self.audio is CLIP else 2.5)) > 0.01:
            yield f"heard {transcript.duration} s"
        record = await Results(nc, NAMES).record(job.id)
        events = await events_of(nc, job.id)
        windows = [event.window for event in events if event.window is not None]
        if sorted(windows) != list(range(record.windows or 1)):
            yield f"windows told: {windows}"
        if [event for event in events if event.final] != events[-1:]:
            yield f"ends told: {events}"
        if (kept := await kept_of(nc, job.id, but=("text-",))) != {"status"}:
            yield f"kept: {kept}"
        if await audio_left(nc, record):
            yield "its audio is left"
        await until(lambda: self.replies and any(job.id in told for told in self.hooks.told))
        if len([told for told in self.hooks.told if job.id in told]) != 1:
            yield f"webhooks told: {self.hooks.told}"


@pytest.mark.timeout(400)  # ten workers at once, and ten more
@pytest.mark.parametrize("audio", [CLIP, LARGE], ids=["clip", "recording"])
async def test_a_worker_killed_behind_any_write_is_followed_by_one_that_ends_the_job(
    workers: Workers, audio: bytes
):
    async with receiver() as hooks:
        writes, killed = 0, 0
        while killed == writes:
            cases = [Case(workers, hooks, writes + n, audio) for n in range(1, AT_ONCE + 1)]
            found = await asyncio.gather(*(case.run() for case in cases))
            writes += AT_ONCE
            killed += sum(died for died, _ in found)
            assert not [each for _, wrong in found for each in wrong]
        assert killed >= (8 if audio is CLIP else 20)
