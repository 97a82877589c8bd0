"""Jobs as the bus has them: every event, every transcript, and the queues they wait in."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from nats.aio.client import Client
from nats.js.api import ConsumerConfig

from bus_worker.client import Job
from bus_worker.jetstream import JetStream
from bus_worker.job_record import JobEvent
from bus_worker.messages import unpack
from bus_worker.streams import make_streams
from bus_worker.subjects import PRIORITIES, Subjects

__all__ = [
    "NAMES", "NOTED", "Ledger", "Receiver", "events_of", "hurried", "ledger", "narrowed", "prepared",
    "receiver", "until_queues_are_empty",
]  # fmt: skip

NAMES = Subjects()
NOTED = '''
"""Writes down what comes by."""
import os
import signal
from pathlib import Path
from pydantic import BaseModel
from bus_worker.plugin import Draft, stage

class Options(BaseModel):
    file: Path
    deadly: int = 0

@stage(Options)
def noted(draft: Draft, options: Options) -> None:
    """Tell a file how much there is to hear; one size kills."""
    size = len(draft.audio) if draft.samples is None else len(draft.samples)
    with options.file.open("a", buffering=1) as file:
        file.write(f"{size}\\n")
    if size == options.deadly:
        os.kill(os.getpid(), signal.SIGKILL)
'''
"""A stage that tells a file of each run."""


async def prepared(nc: Client, model: str = "pretend") -> None:
    """What `bus-worker setup` makes."""
    await make_streams(nc, NAMES, model)


async def hurried(nc: Client, seconds: float, model: str = "pretend") -> None:
    """Let what a dead worker had in hand come again sooner than workers ask for; they look only when they start."""
    js = nc.jetstream()
    for stream in (NAMES.jobs_stream, NAMES.windows_stream):
        for priority in PRIORITIES:
            found = await js.consumer_info(stream, NAMES.queue(model, priority))
            config: ConsumerConfig = replace(found.config, ack_wait=seconds)
            await js.add_consumer(stream, config)


async def narrowed(nc: Client, stream: str, messages: int) -> None:
    """Let a stream hold so few."""
    js = nc.jetstream()
    config = (await js.stream_info(stream)).config
    await js.update_stream(config, max_msgs=messages)


async def until_queues_are_empty(nc: Client, limit: float = 30.0) -> None:
    """Wait until no job and no window waits or is in hand."""
    js = nc.jetstream()
    async with asyncio.timeout(limit):
        for stream in (NAMES.jobs_stream, NAMES.windows_stream):
            while (await js.stream_info(stream)).state.messages:  # noqa: ASYNC110 - the queues are another process's
                await asyncio.sleep(0.05)


async def events_of(nc: Client, job_id: str) -> list[JobEvent]:
    """All that was told of a job, what was told behind its end too."""
    js, found, after = JetStream(nc), list[JobEvent](), 0
    while kept := await js.following(NAMES.events_stream, NAMES.events(job_id), after + 1):
        after = kept.sequence
        found.append(JobEvent.from_map(after, unpack(kept.data)))
    return found


@dataclass
class Ledger:
    """What became of many jobs, counted."""

    status: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)
    """What each job's transcript says."""
    ends: Counter[int] = field(default_factory=Counter)
    """Jobs by how many last events were told of each."""
    pieces: Counter[int] = field(default_factory=Counter)
    """Jobs by how often the words of one window were told."""
    attempts: int = 0
    deaths: int = 0
    failures: int = 0


async def ledger(nc: Client, jobs: list[Job]) -> Ledger:
    """Count them, when all of them are over."""
    book = Ledger()
    for job in jobs:
        record = await job._results.record(job.id)
        book.status[record.status] += 1
        book.attempts += record.attempts
        book.deaths += record.deaths
        book.failures += record.failures
        told = await events_of(nc, job.id)
        book.ends[sum(event.final for event in told)] += 1
        windows = Counter(event.window for event in told if event.window is not None)
        book.pieces[max(windows.values(), default=0)] += 1
        if record.status == "done":
            book.texts[job.id] = (await job.transcript()).text
    return book


@dataclass
class Receiver:
    """A web server that takes webhooks; counts them by their ids."""

    url: str = ""
    heard: Counter[str] = field(default_factory=Counter)

    async def read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        await reader.readexactly(int(headers["content-length"]))
        self.heard[headers["webhook-id"]] += 1
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on loopback (WEBHOOK_ALLOW must let workers reach 127.0.0.1)."""
    here = Receiver()
    server = await asyncio.start_server(here.read, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/told"
    async with server:
        yield here
